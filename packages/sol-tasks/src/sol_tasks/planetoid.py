"""The citation graphs Cora, Citeseer and PubMed, from a data folder or downloaded."""

from __future__ import annotations

import http.client
import urllib.request
from pathlib import Path

import numpy
import torch

from sol_symbols import SolError, write_atomically
from sol_tasks.data_folder import cache_folder, find_data
from sol_tasks.pickles import read_pickle
from sol_tasks.sparse_graph import Graph

__all__ = ["GRAPHS", "load_planetoid"]

GRAPHS = ("Cora", "Citeseer", "PubMed")


def load_planetoid(name: str, data: str | Path | None = None) -> Graph:
    """Cora, Citeseer or PubMed with the public split: 20 training nodes per class, 500 valid, 1000 test.

    The rows of the feature matrix are scaled to sum to 1.

    Args:
        name: One of :data:`GRAPHS`.
        data: Folder that contains ``graph/NAME/raw`` or ``NAME/raw`` with the files ``ind.*`` of the original
            distribution: pickles, which are read without running them. By default they are downloaded to
            ``$XDG_CACHE_HOME/sol``.

    Raises:
        SolError: The extra is not installed, or the files are missing, damaged or cannot be downloaded.
    """
    return _read(_downloaded(name) if data is None else _found(name, data), name)


_SOURCE = "github.com/kimiyoung/planetoid/tree/master/data"
_FILES = "https://github.com/kimiyoung/planetoid/raw/master/data"
_PARTS = ("tx", "allx", "y", "ty", "ally", "graph", "test.index")  # not x, the first rows of allx
_VALID = 500


def _downloaded(name: str) -> Path:
    """The folder with the files, in the cache; those that it lacks are downloaded."""
    folder = cache_folder() / name / "raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in _names(name):
            if not (folder / file).exists():
                with urllib.request.urlopen(f"{_FILES}/{file}", timeout=60) as answer:
                    write_atomically(folder / file, answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise SolError(
            f"cannot download {name} to {folder}: {_line(error)}; or put the files "
            f"ind.{name.lower()}.* from {_SOURCE} into DIR/graph/{name}/raw and pass --data DIR"
        ) from error
    return folder


def _found(name: str, data: str | Path) -> Path:
    """The folder with the files, in the user's data folder."""
    advice = f"get the files ind.{name.lower()}.* from {_SOURCE}"
    raw = find_data(name, data, "graph", f"{name}/raw", advice=advice)
    absent = [file for file in _names(name) if not (raw / file).is_file()]
    if absent:
        raise SolError(f"no {', '.join(absent)} in {raw}; get the missing files from {_SOURCE}")
    return raw


def _names(name: str) -> list[str]:
    return [f"ind.{name.lower()}.{part}" for part in _PARTS]


def _read(raw: Path, name: str) -> Graph:
    """The graph of the files. Test nodes that the features lack (Citeseer has some) have no features and class 0."""
    try:
        tx, allx, y, ty, ally, neighbours = (read_pickle(raw / file) for file in _names(name)[:-1])
        rows = torch.tensor([int(line) for line in (raw / _names(name)[-1]).read_text("ascii").split()])
        first, count = len(ally), int(rows.max()) + 1
        if int(rows.min()) < first or len(rows.unique()) != len(rows) or count > len(neighbours):
            raise SolError("the test nodes are not those after the others")
        features = torch.zeros(count, allx.shape[1])
        labels = torch.zeros(count, ally.shape[1])
        for table, head, tail in ((features, allx.dense(), tx.dense()), (labels, ally, ty)):
            table[:first] = torch.from_numpy(numpy.array(head, numpy.float32))
            table[rows] = torch.from_numpy(numpy.array(tail, numpy.float32))
        pairs = [(int(node), int(other)) for node, others in neighbours.items() for other in others if node != other]
        edges = torch.tensor(pairs).unique(dim=0).T
        edges = edges[:, torch.argsort(edges[1], stable=True)]
        train, valid = torch.arange(len(y)), torch.arange(len(y), len(y) + _VALID)
        features /= features.sum(1, keepdim=True).clamp_min(1)
        nodes = {"train": train, "valid": valid, "test": rows.sort().values}
        return Graph.of(features, edges, labels.argmax(1), nodes)
    except Exception as error:  # what is damaged can fail anywhere
        said = str(error) if isinstance(error, SolError) else _line(error)
        raise SolError(f"cannot read {name} in {raw}: {said}; get it again from {_SOURCE}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".partition("\n")[0]
