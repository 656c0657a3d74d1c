"""CIFAR-10 in its layouts."""

import pickle

import numpy
import pytest
import torch

from sol_symbols import SolError
from sol_tasks import load_cifar10

COUNT = 20  # images a file


def made(seed=0):
    random = numpy.random.default_rng(seed)
    return random.integers(0, 256, (6, COUNT, 3, 32, 32), numpy.uint8), random.integers(0, 10, (6, COUNT), numpy.uint8)


def write_binary(folder, images, labels):
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    for name, x, y in zip(names, images, labels):
        numpy.concatenate([y[:, None], x.reshape(COUNT, -1)], 1).tofile(folder / name)


def write_pickled(folder, images, labels):
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for name, x, y in zip(names, images, labels):
        content = {b"data": x.reshape(COUNT, -1), b"labels": y.tolist(), b"batch_label": b"one"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def write_images(folder, images, labels):
    image = pytest.importorskip("PIL.Image")
    for split, x, y in (("train", images[:5], labels[:5]), ("test", images[5:], labels[5:])):
        (folder / split).mkdir()
        for number, part in enumerate(x):
            stacked = part.transpose(0, 2, 3, 1).reshape(-1, 32, 3)
            image.fromarray(stacked).save(folder / split / f"{split}_{number:03}.webp", lossless=True)
        numpy.save(folder / f"{split}_labels.npy", y.reshape(-1))


LAYOUTS = {"cifar-10-batches-bin": write_binary, "cifar-10-batches-py": write_pickled, "cifar10": write_images}


@pytest.mark.parametrize("above", ["", "vision"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_all_layouts_hold_the_same_images(name, above, tmp_path):
    folder = tmp_path / above / name
    folder.mkdir(parents=True)
    images, labels = made()
    LAYOUTS[name](folder, images, labels)
    splits = load_cifar10(tmp_path)
    everything = torch.cat([splits[split][0] for split in ("train", "valid", "test")])
    assert torch.equal(everything, torch.from_numpy(images.reshape(-1, 3, 32, 32)))
    assert torch.equal(torch.cat([y for _, y in splits.values()]), torch.from_numpy(labels.reshape(-1)).long())
    assert [len(y) for _, y in splits.values()] == [50, 50, 20]


def test_a_pickle_that_does_more_than_hold_arrays_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    write_pickled(folder, *made())
    (folder / "data_batch_1").write_bytes(b"cposix\nsystem\n(Vtouch ran\ntR.")
    with pytest.raises(SolError, match=r"it loads posix\.system"):
        load_cifar10(tmp_path)
    (folder / "data_batch_1").write_bytes(pickle.dumps(numpy.load))
    with pytest.raises(SolError, match=r"it loads numpy"):
        load_cifar10(tmp_path)


def test_what_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(SolError, match=r"no CIFAR-10 in .*cifar-10-batches-bin.*torchvision"):
        load_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    with pytest.raises(SolError, match=r"cannot read CIFAR-10 .*data_batch_1"):
        load_cifar10(tmp_path)
    write_binary(folder, *made())
    (folder / "test_batch.bin").write_bytes(b"cut short")
    with pytest.raises(SolError, match="cannot read CIFAR-10"):
        load_cifar10(tmp_path)
    write_binary(folder, made()[0], made()[1] + 10)
    with pytest.raises(SolError, match="damaged"):
        load_cifar10(tmp_path)


def test_all_of_cifar10(data):
    pytest.importorskip("PIL")
    splits = load_cifar10(data)
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == {
        "train": (45_000, 3, 32, 32),
        "valid": (5_000, 3, 32, 32),
        "test": (10_000, 3, 32, 32),
    }
    labels = torch.cat([splits["train"][1], splits["valid"][1]])
    assert labels.bincount().tolist() == [5_000] * 10
    mean = splits["train"][0].float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3, rtol=0)
