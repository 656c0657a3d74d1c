"""The citation graphs Cora, Citeseer and PubMed, from a data folder or downloaded by PyTorch Geometric."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sol_symbols import SolError
from sol_tasks.data_folder import cache_folder, find_data
from sol_tasks.extras import import_extra
from sol_tasks.sparse_graph import Graph

__all__ = ["GRAPHS", "load_planetoid"]

GRAPHS = ("Cora", "Citeseer", "PubMed")


def load_planetoid(name: str, data: Path | None = None) -> Graph:
    """Cora, Citeseer or PubMed with the public split: 20 training nodes per class, 500 valid, 1000 test.

    The rows of the feature matrix are scaled to sum to 1.

    Args:
        name: One of :data:`GRAPHS`.
        data: Folder that contains ``graph/NAME/raw`` or ``NAME/raw`` with the files ``ind.*`` of the original
            distribution. Nothing is written there. By default PyTorch Geometric downloads the files to
            ``$XDG_CACHE_HOME/sol``.

    Raises:
        SolError: The extra is not installed, or the files are missing, damaged or cannot be downloaded.
    """
    planetoid = import_extra("torch_geometric.datasets", "graph").Planetoid
    graph = _downloaded(planetoid, name) if data is None else _read(planetoid, name, data)
    features = graph.x / graph.x.sum(1, keepdim=True).clamp_min(1)
    masks = {"train": graph.train_mask, "valid": graph.val_mask, "test": graph.test_mask}
    nodes = {split: mask.nonzero().squeeze(1) for split, mask in masks.items()}
    return Graph.of(features, graph.edge_index, graph.y, nodes)


_SOURCE = "github.com/kimiyoung/planetoid/tree/master/data"
_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def _downloaded(planetoid: Any, name: str) -> Any:
    folder = cache_folder()
    try:
        return planetoid(str(folder), name)[0]
    except Exception as error:  # aiohttp, fsspec, pickle and the system share no base class
        raise SolError(
            f"PyTorch Geometric cannot download {name} to {folder / name}: {_line(error)}; or put the files "
            f"ind.{name.lower()}.* from {_SOURCE} into DIR/graph/{name}/raw and pass --data DIR"
        ) from error


def _read(planetoid: Any, name: str, data: Path) -> Any:
    advice = f"get the files ind.{name.lower()}.* from {_SOURCE}"
    raw = find_data(name, data, "graph", f"{name}/raw", advice=advice)
    files = [raw / f"ind.{name.lower()}.{part}" for part in _PARTS]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise SolError(f"no {', '.join(absent)} in {raw}; get the missing files from {_SOURCE}")
    with tempfile.TemporaryDirectory() as scratch:  # PyTorch Geometric writes next to the files that it reads
        copy = Path(scratch) / name / "raw"
        copy.mkdir(parents=True)
        try:
            for file in files:
                shutil.copyfile(file, copy / file.name)
            with contextlib.redirect_stderr(io.StringIO()):  # hide "Processing..."
                return planetoid(scratch, name)[0]
        except Exception as error:  # pickle, NumPy, PyTorch and the system share no base class
            raise SolError(f"cannot read {name} in {raw}: {_line(error)}; get it again from {_SOURCE}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".partition("\n")[0]
