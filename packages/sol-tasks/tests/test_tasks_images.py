"""CIFAR-10 in its layouts, augmentation, the networks of the paper, batch norm."""

import itertools
import pickle

import numpy
import pytest
import torch

from sol_learner import build_seeded
from sol_learner.inner import Optimizees
from sol_learner.task import Stream
from sol_symbols import SolError
from sol_tasks import Classification, load_cifar10
from sol_tasks.augmentation import crop_and_flip, crop_only
from sol_tasks.networks import convnet, mnistnet_module, resnet

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
    with pytest.raises(SolError, match=r"it asks for posix\.system"):
        load_cifar10(tmp_path)
    (folder / "data_batch_1").write_bytes(pickle.dumps(numpy.load))
    with pytest.raises(SolError, match=r"it asks for numpy"):
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


def test_augmentation_shifts_and_mirrors_each_image_on_its_own():
    images = torch.arange(200 * 2 * 8 * 8).view(200, 2, 8, 8).to(torch.int32) + 1
    generator = torch.Generator().manual_seed(0)
    out = crop_and_flip(images, generator, padding=1)
    kinds = set()
    for before, after in zip(images, out):
        padded = torch.nn.functional.pad(before, (1,) * 4)
        for top, left in itertools.product(range(3), range(3)):
            shifted = padded[:, top : top + 8, left : left + 8]
            kinds |= {(top, left, flip) for flip in (0, 1) if torch.equal(shifted.flip(2) if flip else shifted, after)}
    assert len(kinds) == 18
    assert out.dtype == images.dtype
    again = crop_and_flip(images, torch.Generator().manual_seed(0), padding=1)
    assert torch.equal(out, again)


def test_digits_are_not_mirrored():
    images = torch.zeros(50, 1, 8, 8)
    images[:, :, 4, 3] = 1
    images[:, :, 4, 4] = 2
    out = crop_only(images, torch.Generator().manual_seed(0))
    assert all(((image == 1).nonzero()[0, 2] + 1 == (image == 2).nonzero()[0, 2]) for image in out)


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (lambda: mnistnet_module("mnistnet"), (784,), 784 * 20 + 20 + 210),
        (lambda: mnistnet_module("mnistnet-2layer"), (784,), 784 * 20 + 20 + 420 + 210),
        (lambda: mnistnet_module("mnistnet-big"), (784,), 784 * 40 + 40 + 410),
        (lambda: mnistnet_module("mnistnet-relu"), (784,), 784 * 20 + 20 + 210),
        (convnet, (3, 32, 32), 4_225_162),
        (lambda: convnet(1, 28), (1, 28, 28), None),
        (lambda: resnet("resnet18"), (3, 32, 32), 11_173_962),
        (lambda: resnet("resnet34"), (3, 32, 32), 21_282_122),
        (lambda: resnet("resnet50"), (3, 32, 32), 23_520_842),
        (lambda: resnet("resnet18", 1), (1, 28, 28), None),
        (lambda: resnet("resnet18", width=4), (3, 32, 32), 44_622),
    ],
)
def test_the_networks_are_the_papers(model, shape, parameters):
    built = model()
    assert built.eval()(torch.rand(2, *shape)).shape == (2, 10)
    if parameters is not None:
        assert sum(p.numel() for p in built.parameters()) == parameters


def tiny_normed():
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 3), torch.nn.BatchNorm1d(3)
    )


def tiny_data(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return {
        split: (
            torch.randn(40, 3, 2, 2, generator=generator).to(device),
            torch.randint(3, (40,), generator=generator).to(device),
        )
        for split in ("train", "valid", "test")
    }


def test_running_statistics_stay_with_their_optimizee():
    task = Classification("normed", tiny_normed, tiny_data(), horizon=5, batch_size=8)
    together = Optimizees(task, 0, Stream.TRAIN, range(3), candidates=2)
    for _ in range(4):
        together.losses_and_gradients()
    for index in range(3):
        alone = Optimizees(task, 0, Stream.TRAIN, [index])
        for _ in range(4):
            alone.losses_and_gradients()
        for candidate in range(2):
            pairs = zip(together._models[candidate][index].buffers(), alone._models[0][0].buffers())
            assert all(torch.equal(a, b) for a, b in pairs)
        expected, got = alone.evaluate("test")["loss"], together.evaluate("test")["loss"]
        torch.testing.assert_close(got[:, index], expected[0].expand(2))


def test_evaluation_leaves_running_statistics_alone():
    task = Classification("normed", tiny_normed, tiny_data(), horizon=5, batch_size=8)
    optimizees = Optimizees(task, 0, Stream.TRAIN, [0])
    optimizees.losses_and_gradients()
    before = [buffer.clone() for buffer in optimizees._models[0][0].buffers()]
    optimizees.evaluate("train")
    assert all(torch.equal(a, b) for a, b in zip(before, optimizees._models[0][0].buffers()))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_precision_and_device_are_settings(device, dtype):
    def plain():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))

    task = Classification("plain", plain, tiny_data(), 5, 8, device, augment=crop_only, dtype=dtype)
    exact = Classification("plain", plain, tiny_data(), 5, 8, device, augment=crop_only)
    losses, gradients = Optimizees(task, 0, Stream.TRAIN, range(2)).losses_and_gradients()
    reference, _ = Optimizees(exact, 0, Stream.TRAIN, range(2)).losses_and_gradients()
    assert losses.dtype == gradients.dtype == torch.float32
    torch.testing.assert_close(losses, reference, rtol=0.02, atol=0.02)
    assert dtype is None or not torch.equal(losses, reference)


def test_a_sample_bounds_what_training_metrics_cost():
    inputs = tiny_data()
    task = Classification("plain", tiny_normed, inputs, 5, 8, sample=10)
    whole = Classification("plain", tiny_normed, {**inputs, "train": tuple(x[:10] for x in inputs["train"])}, 5, 8)
    model = build_seeded(tiny_normed, torch.Generator().manual_seed(0)).eval()
    assert task.evaluate(model, "train") == whole.evaluate(model, "train")
    assert task.evaluate(model, "test") == whole.evaluate(model, "test")
