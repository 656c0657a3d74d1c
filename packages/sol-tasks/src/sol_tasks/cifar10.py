"""CIFAR-10 from a data folder, in any of three layouts, or downloaded by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from torch import Tensor

from sol_symbols import SolError
from sol_tasks.data_folder import Splits, cache_folder, find_data
from sol_tasks.extras import import_extra
from sol_tasks.pickles import read_pickle

__all__ = ["load_cifar10"]

_VALID = 5_000
_PIXELS = 3 * 32 * 32

Part = tuple[numpy.ndarray, numpy.ndarray]  # images [N, 3, 32, 32] and labels [N], both uint8


def load_cifar10(data: str | Path | None = None) -> Splits:
    """Images, uint8 [N, 3, 32, 32], and labels, int64 [N]: 45,000 / 5,000 / 10,000 in train, valid and test.

    The valid split is the end of the official training set.

    Args:
        data: Folder that contains, in ``vision`` or directly, one of: ``cifar10`` with ``train/*.webp``,
            ``test/*.webp`` (100 images stacked vertically per file, lossless) and ``train_labels.npy``,
            ``test_labels.npy``; or ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, the original distribution.
            By default torchvision downloads the original into ``$XDG_CACHE_HOME/sol``.

    Raises:
        SolError: The data is missing or damaged.
    """
    if data is None:
        data = _downloaded()
    readers: dict[str, Callable[[Path, str], Part]] = {
        "cifar10": _images,
        "cifar-10-batches-bin": _binary,
        "cifar-10-batches-py": _pickled,
    }
    download = f"torchvision.datasets.CIFAR10('{data}', download=True)"
    advice = f'download it with: python -c "import torchvision; {download}"'
    folder = find_data("CIFAR-10", data, "vision", *readers, advice=advice)
    read = readers[folder.name]
    try:
        train, test = (_checked(folder, read(folder, split)) for split in ("train", "test"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
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
        raise SolError(f"{folder} is damaged: {len(images)} images and {len(labels)} labels, which must be 0 to 9")
    return torch.from_numpy(numpy.ascontiguousarray(images)), torch.from_numpy(labels.astype(numpy.int64))


def _images(folder: Path, split: str) -> Part:
    image = import_extra("PIL.Image", "vision")
    files = sorted((folder / split).glob("*.webp"))
    if not files:
        raise SolError(f"no {split}/*.webp in {folder}")
    pixels = [numpy.asarray(image.open(file)).reshape(-1, 32, 32, 3) for file in files]
    return numpy.concatenate(pixels).transpose(0, 3, 1, 2), numpy.load(folder / f"{split}_labels.npy")


def _binary(folder: Path, split: str) -> Part:
    """Each record has one label byte and 3072 pixel bytes."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
    records = numpy.concatenate([numpy.fromfile(folder / name, numpy.uint8) for name in names])
    records = records.reshape(-1, 1 + _PIXELS)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _pickled(folder: Path, split: str) -> Part:
    names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    images, labels = [], []
    for name in names:
        content = read_pickle(folder / name)
        images.append(content[b"data"].reshape(-1, 3, 32, 32))
        labels.append(numpy.array(content[b"labels"], numpy.uint8))
    return numpy.concatenate(images), numpy.concatenate(labels)


def _downloaded() -> Path:
    """The cache folder with torchvision's download, which torchvision checks by MD5."""
    folder = cache_folder()
    hint = "or pass a folder with CIFAR-10: --data DIR"
    datasets = import_extra("torchvision.datasets", "fetch", hint)
    try:
        datasets.CIFAR10(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise SolError(f"torchvision cannot download CIFAR-10 to {folder}: {error}; {hint}") from error
    return folder
