"""CIFAR-10 in the three layouts that people have it in, or fetched by torchvision."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from sol_symbols import SolError
from sol_tasks.data_folder import Splits, cache_folder, find_data
from sol_tasks.extras import import_extra

__all__ = ["load_cifar10"]

_VALID = 5_000
_PIXELS = 3 * 32 * 32

Part = tuple[numpy.ndarray, numpy.ndarray]  # images [N, 3, 32, 32] and labels [N], both uint8


def load_cifar10(data: Path | None = None) -> Splits:
    """Images, uint8 [N, 3, 32, 32], and labels, int64 [N]: 45,000 / 5,000 / 10,000 in train, valid and test.

    Valid is the end of the official training set.

    Args:
        data: Folder that holds, directly or in ``vision``, one of: ``cifar-10-batches-bin`` or
            ``cifar-10-batches-py`` (the original distribution), or ``cifar10`` with ``train/*.webp``, ``test/*.webp``
            (100 images below each other in a file, lossless) and ``train_labels.npy``, ``test_labels.npy``.
            Without it torchvision fetches the original into ``$XDG_CACHE_HOME/sol``.

    Raises:
        SolError: The data is missing or damaged.
    """
    if data is None:
        data = _fetched()
    readers: dict[str, Callable[[Path, str], Part]] = {
        "cifar10": _images,
        "cifar-10-batches-bin": _binary,
        "cifar-10-batches-py": _pickled,
    }
    fetch = f"get it with: python -c \"import torchvision; torchvision.datasets.CIFAR10('{data}', download=True)\""
    folder = find_data(data, "CIFAR-10", [*readers, *(f"vision/{name}" for name in readers)], fetch)
    read = readers[folder.name]
    try:
        train, test = (_checked(folder, read(folder, split)) for split in ("train", "test"))
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise SolError(f"cannot read CIFAR-10 in {folder}: {error}") from error
    held = len(train[1]) - _VALID if len(train[1]) > _VALID else len(train[1]) // 2
    return {
        "train": (train[0][:held], train[1][:held]),
        "valid": (train[0][held:], train[1][held:]),
        "test": test,
    }


def _checked(folder: Path, part: Part) -> tuple[Tensor, Tensor]:
    images, labels = part
    if len(images) != len(labels) or not len(labels) or labels.max() > 9:
        raise SolError(f"{folder} is damaged: {len(images)} images, {len(labels)} labels of 0 to 9")
    return torch.from_numpy(numpy.ascontiguousarray(images)), torch.from_numpy(labels.astype(numpy.int64))


def _images(folder: Path, split: str) -> Part:
    image = import_extra("PIL.Image", "vision")
    files = sorted((folder / split).glob("*.webp"))
    if not files:
        raise SolError(f"no {split}/*.webp in {folder}")
    pixels = [numpy.asarray(image.open(file)).reshape(-1, 32, 32, 3) for file in files]
    return numpy.concatenate(pixels).transpose(0, 3, 1, 2), numpy.load(folder / f"{split}_labels.npy")


def _binary(folder: Path, split: str) -> Part:
    """Records of one label byte and 3072 pixel bytes."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
    records = numpy.concatenate([numpy.fromfile(folder / name, numpy.uint8) for name in names])
    records = records.reshape(-1, 1 + _PIXELS)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


class _ArrayReader(pickle.Unpickler):
    """Reads pickles that hold plain containers and NumPy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of CIFAR-10 does")
        return _ALLOWED[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2; whatever the encoding is said to be, it is this one."""
    return text.encode("latin1")


_RECONSTRUCT = numpy.zeros(1).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): numpy.ndarray,
    ("numpy", "dtype"): numpy.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): _latin1,
}


def _pickled(folder: Path, split: str) -> Part:
    names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    images, labels = [], []
    for name in names:
        with (folder / name).open("rb") as file:
            content = _ArrayReader(file, encoding="bytes").load()
        images.append(content[b"data"].reshape(-1, 3, 32, 32))
        labels.append(numpy.array(content[b"labels"], numpy.uint8))
    return numpy.concatenate(images), numpy.concatenate(labels)


def _fetched() -> Path:
    """torchvision's download, checked by its MD5 sums."""
    folder = cache_folder()
    hint = "or give a folder that holds CIFAR-10: --data DIR"
    datasets = import_extra("torchvision.datasets", "fetch", hint)
    try:
        datasets.CIFAR10(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise SolError(f"torchvision cannot fetch CIFAR-10 into {folder}: {error}; {hint}") from error
    return folder
