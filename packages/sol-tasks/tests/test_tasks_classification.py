"""MNISTNET on real digits, and its data."""

import os
import re
import struct
from pathlib import Path

import pytest
import torch

from sol_learner import Clock, LearnConfig
from sol_learner.inner import TaskSet, run_rule
from sol_learner.meta_training import meta_train, network_generator
from sol_learner.networks import SymbolicNetwork
from sol_learner.runtime import NullProgress
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO, SolError
from sol_tasks import load_mnist, mnistnet

DATA = os.environ.get("SOL_DATA")


@pytest.fixture(scope="module")
def task():
    return mnistnet()


def test_mnistnet_conforms(task):
    check_task(task)


def test_the_shipped_digits_are_split_by_class(task):
    splits = load_mnist()
    assert {name: len(y) for name, (_, y) in splits.items()} == {"train": 4000, "valid": 500, "test": 500}
    for inputs, labels in splits.values():
        assert labels.bincount().tolist() == [len(labels) // 10] * 10
        assert (inputs.dtype, inputs.shape[1:], labels.dtype) == (torch.float32, (784,), torch.int64)
        assert inputs.min() == 0
        assert inputs.max() == 1
    everything = torch.cat([inputs for inputs, _ in splits.values()])
    assert len(everything.unique(dim=0)) == 5000


def test_splits_are_the_same_every_time():
    again = load_mnist()
    assert all(torch.equal(x, again[name][0]) for name, (x, _) in load_mnist().items())


def test_the_model_is_mnistnet(task):
    model = task.build(torch.Generator().manual_seed(0))
    assert [tuple(p.shape) for p in model.parameters()] == [(20, 784), (20,), (10, 20), (10,)]
    assert task.horizon == 100
    assert next(task.batches("train", torch.Generator()))[0].shape == (128, 784)


def test_building_leaves_the_global_generator_alone(task):
    torch.random.default_generator.manual_seed(3)
    expected = torch.rand(2)
    torch.random.default_generator.manual_seed(3)
    task.build(torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(2), expected)


def test_a_pass_uses_each_image_at_most_once(task):
    stream = task.batches("valid", torch.Generator().manual_seed(0))
    seen = torch.cat([next(stream)[0] for _ in range(3)])  # 500 images give 3 full batches
    assert len(seen.unique(dim=0)) == 3 * 128


def test_adam_trains_it(task):
    outcome = run_rule(task, ZOO["adam"], 0, Stream.TUNE, range(2), 0.03, splits=("train", "valid", "test"))
    assert outcome.losses[0].mean() == pytest.approx(2.3, abs=0.15)
    assert outcome.metrics["train"]["loss"].mean() < 0.35
    assert outcome.metrics["test"]["accuracy"].mean() > 0.85


def test_a_few_outer_steps_on_real_digits(task):
    network = SymbolicNetwork(ZOO["adam"], generator=network_generator(0))
    config = LearnConfig(episodes=2, meta_batch=4, coordinates=512, validation_episodes=4, validate_every=2)
    family = TaskSet((task,), (1.0,), config.objective)
    result = meta_train(family, network, 0.03, config, progress=NullProgress(), clock=Clock())
    assert result.windows == 10
    assert result.loss < result.history[0]["loss"]


@pytest.mark.skipif(not DATA, reason="SOL_DATA is not set")
def test_all_of_mnist():
    splits = load_mnist(Path(DATA))
    assert {name: len(y) for name, (_, y) in splits.items()} == {"train": 55_000, "valid": 5_000, "test": 10_000}
    task = mnistnet(Path(DATA))
    check_task(task)
    outcome = run_rule(task, ZOO["adam"], 0, Stream.TUNE, [0], 0.03, splits=("train", "valid", "test"))
    assert outcome.metrics["test"]["accuracy"].item() > 0.88


def idx(values: torch.Tensor) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}i", *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def test_the_original_files_are_read(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = torch.arange(6 * 4).view(6, 2, 2)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(6)))
    inputs, labels = load_mnist(tmp_path)["test"]
    torch.testing.assert_close(inputs[1] * 255, torch.tensor([4.0, 5, 6, 7]))
    assert labels.tolist() == list(range(6))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images)[:-1])
    with pytest.raises(SolError, match="cut short"):
        load_mnist(tmp_path)
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(
        SolError, match=rf"cannot read .*t10k-images.*MNIST\('{re.escape(str(tmp_path))}', download=True\)"
    ):
        load_mnist(tmp_path)


def test_missing_data_is_said_with_what_to_do(tmp_path):
    with pytest.raises(SolError, match=r"no MNIST in .*torchvision\.datasets\.MNIST"):
        load_mnist(tmp_path)
