"""GLUE data sets from their tab-separated files, or downloaded by the package datasets."""

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
"""First text, second text (empty if there is none) and label, 0 or 1."""


@dataclass(frozen=True)
class Dataset:
    """Facts about a data set with two classes.

    Attributes:
        columns: Headers of the first text, the second text (or ``""``) and the label. ``None`` if the files have no
            header, and the columns are source, label, mark, sentence.
        hub: Name of the configuration of ``nyu-mll/glue``, and of its columns for the first and the second text.
        epochs: Number of epochs in the paper.
        length: Maximum number of tokens; a few per cent of RTE and WNLI are longer and are truncated.
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
"""The paper's data sets by name."""

_LABELS = {"0": 0, "1": 1, "entailment": 0, "not_entailment": 1}


def load_glue(name: str, data: str | Path | None = None, rows: int | None = None) -> dict[str, Examples]:
    """The splits. ``test`` is the official development set; the rest is the official training set, shuffled, of which
    ``valid`` is a tenth, at most 1,000 rows.

    Args:
        name: One of :data:`GLUE`.
        data: Folder that contains ``glue/NAME`` or ``NAME`` with ``train.tsv`` and ``dev.tsv``. By default the package
            datasets downloads them.
        rows: Number of rows of ``train`` to keep after shuffling; by default all.

    Raises:
        SolError: The name is unknown, or the data is missing or damaged.
    """
    if name not in GLUE:
        raise SolError(f"unknown data set {name!r}; known: {', '.join(GLUE)}")
    train, test = _downloaded(GLUE[name]) if data is None else _files(name, data)
    random.Random(20_240_929).shuffle(train)
    held = min(1_000, len(train) // 10)
    return {"train": train[held:][:rows], "valid": train[:held], "test": test}


def _files(name: str, data: str | Path) -> tuple[Examples, Examples]:
    advice = "get it from gluebenchmark.com/tasks, or leave out --data to download it with the package datasets"
    train = find_data(name, data, "glue", f"{name}/train.tsv", advice=advice)
    return _table(train, GLUE[name]), _table(train.with_name("dev.tsv"), GLUE[name])


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


def _downloaded(dataset: Dataset) -> tuple[Examples, Examples]:
    name, first, second = dataset.hub
    hint = "or pass a folder with glue/NAME/train.tsv and dev.tsv: --data DIR"
    library = import_extra("datasets", "fetch", hint)
    try:
        tables = library.load_dataset("nyu-mll/glue", name)
    except (OSError, ValueError, RuntimeError) as error:
        raise SolError(f"the package datasets cannot download GLUE's {name}: {error}; {hint}") from error
    parts = []
    for split in ("train", "validation"):
        table = tables[split]
        seconds = table[second] if second else [""] * len(table)
        parts.append(list(zip(table[first], seconds, table["label"])))
    return parts[0], parts[1]
