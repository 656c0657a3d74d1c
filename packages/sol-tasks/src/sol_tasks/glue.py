"""GLUE data sets from their tab-separated files, or fetched by the package datasets."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from sol_symbols import SolError
from sol_tasks.data_folder import find_data
from sol_tasks.extras import import_extra

__all__ = ["GLUE", "Dataset", "Examples", "load_glue"]

Examples = list[tuple[str, str, int]]
"""First text, second text (empty where there is none) and label, 0 or 1."""


@dataclass(frozen=True)
class Dataset:
    """Facts of a data set of two classes.

    Attributes:
        columns: Header of the first text, of the second (or ``""``), and of the label; ``None`` where the files have no
            header and the columns are source, label, mark, sentence.
        hub: Its configuration in the data set ``glue`` of the Hub, and the names of its texts there.
        epochs: Passes through the data in the paper.
        length: Tokens that texts are cut to; a few per cent of RTE and WNLI are longer.
    """

    columns: tuple[str, str, str] | None
    hub: tuple[str, str, str]
    epochs: int
    length: int


GLUE: dict[str, Dataset] = {
    "CoLA": Dataset(None, ("cola", "sentence", ""), 3, 48),
    "SST-2": Dataset(("sentence", "", "label"), ("sst2", "sentence", ""), 3, 64),
    "RTE": Dataset(("sentence1", "sentence2", "label"), ("rte", "sentence1", "sentence2"), 3, 128),
    "MRPC": Dataset(("#1 String", "#2 String", "Quality"), ("mrpc", "sentence1", "sentence2"), 5, 96),
    "WNLI": Dataset(("sentence1", "sentence2", "label"), ("wnli", "sentence1", "sentence2"), 5, 96),
}
"""The data sets of the paper by name."""

_LABELS = {"0": 0, "1": 1, "entailment": 0, "not_entailment": 1}


def load_glue(name: str, data: Path | None = None, rows: int | None = None) -> dict[str, Examples]:
    """The splits: test is the official development set, valid a tenth of the training set (at most 1,000), shuffled.

    Args:
        name: One of :data:`GLUE`.
        data: Folder that holds ``glue/NAME`` or ``NAME`` with ``train.tsv`` and ``dev.tsv``. Without it the package
            datasets fetches them.
        rows: Keeps the first so many rows of train, after shuffling.

    Raises:
        SolError: The name is unknown, or the data is missing or damaged.
    """
    if name not in GLUE:
        raise SolError(f"no data set {name!r}; known: {', '.join(GLUE)}")
    train, test = _fetched(GLUE[name]) if data is None else _files(name, data)
    random.Random(20_240_929).shuffle(train)
    held = min(1_000, len(train) // 10)
    return {"train": train[held:][:rows], "valid": train[:held], "test": test}


def _files(name: str, data: Path) -> tuple[Examples, Examples]:
    advice = "get it from gluebenchmark.com/tasks, or omit --data to fetch it with the package datasets"
    folder = find_data(data, name, (f"glue/{name}/train.tsv", f"{name}/train.tsv"), advice).parent
    return _table(folder / "train.tsv", GLUE[name]), _table(folder / "dev.tsv", GLUE[name])


def _table(path: Path, dataset: Dataset) -> Examples:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        if dataset.columns is None:
            return [(line[3], "", _LABELS[line[1]]) for line in lines]
        header, *lines = lines
        first, second, label = (header.index(column) if column else None for column in dataset.columns)
        return [(line[first], line[second] if second is not None else "", _LABELS[line[label]]) for line in lines]  # type: ignore[index]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise SolError(f"cannot read {path} as a GLUE table: {error!r}") from error


def _fetched(dataset: Dataset) -> tuple[Examples, Examples]:
    name, first, second = dataset.hub
    hint = "or give a folder that holds glue/NAME/train.tsv and dev.tsv: --data DIR"
    library = import_extra("datasets", "fetch", hint)
    try:
        tables = library.load_dataset("nyu-mll/glue", name)
    except (OSError, ValueError, RuntimeError) as error:
        raise SolError(f"the package datasets cannot fetch GLUE's {name}: {error}; {hint}") from error
    parts = []
    for split in ("train", "validation"):
        table = tables[split]
        seconds = table[second] if second else [""] * len(table)
        parts.append(list(zip(table[first], seconds, table["label"])))
    return parts[0], parts[1]
