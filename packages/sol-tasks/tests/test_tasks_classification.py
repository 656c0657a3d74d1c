"""Classification: MNISTNET on real digits, batch norm, precision and devices."""

import os
from pathlib import Path

import pytest
import torch

from sol_learner import Clock, LearnConfig, build_seeded
from sol_learner.inner import Optimizees, TaskSet, run_rule
from sol_learner.meta_training import meta_train, network_generator
from sol_learner.networks import SymbolicNetwork
from sol_learner.runtime import NullProgress
from sol_learner.task import Stream
from sol_learner.testing import check_task
from sol_symbols import ZOO
from sol_tasks import Classification, load_mnist, mnistnet
from sol_tasks.augmentation import crop_only

DATA = os.environ.get("SOL_DATA")


@pytest.fixture(scope="module")
def task():
    return mnistnet()


def test_mnistnet_conforms(task):
    check_task(task)


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
    task_set = TaskSet((task,), (1.0,), config.objective)
    result = meta_train(task_set, network, 0.03, config, progress=NullProgress(), clock=Clock())
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
