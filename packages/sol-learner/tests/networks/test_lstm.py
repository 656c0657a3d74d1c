"""The LSTM as an update network: its equations, meta-gradients and meta-training."""

import copy
import math

import pytest
import torch
from torch import nn

from sol_learner import Clock, LearnConfig
from sol_learner.estimators import ESTIMATORS, Exact, FirstOrder
from sol_learner.inner import Optimizees, TaskSet
from sol_learner.meta_training import meta_train
from sol_learner.networks import LSTMNetwork
from sol_learner.networks.lstm import preprocess
from sol_learner.runtime import NullProgress
from sol_learner.task import Stream

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network_for(seed=1, units=4):
    return LSTMNetwork(units, generator=generator(seed)).double()


def window(task, kind, network, steps=4, before=3, lr=0.05, **options):
    """A window that does not start at the first step: states are not zero."""
    estimator = kind(network, generator(), **options)
    estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(2), estimator.num_replicas), lr, task.horizon)
    if before:
        estimator.window(before)
    return estimator.window(steps)


def test_the_gradient_is_preprocessed_as_published():
    g = torch.tensor([0.0, 1e-7, -1e-7, 0.3, -20.0], dtype=DOUBLE)
    log = [-1.0, -1.0, -1.0, math.log(0.3) / 10, math.log(20.0) / 10]
    sign = [0.0, 1e-7 * math.exp(10), -1e-7 * math.exp(10), 1.0, -1.0]
    torch.testing.assert_close(preprocess(g), torch.tensor([log, sign], dtype=DOUBLE))


@torch.no_grad()
def test_updates_are_those_of_a_stacked_lstm():
    network, count, steps = network_for(units=5), 7, 6
    reference = nn.LSTM(2, 5, num_layers=2).double()
    order = [0, 1, 3, 2]  # PyTorch's gates are i, f, u, o
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases)):
        blocks, inputs = torch.cat([weight.chunk(4)[k] for k in order]), weight.shape[1] - 5
        getattr(reference, f"weight_ih_l{layer}").copy_(blocks[:, :inputs])
        getattr(reference, f"weight_hh_l{layer}").copy_(blocks[:, inputs:])
        getattr(reference, f"bias_ih_l{layer}").copy_(torch.cat([bias.chunk(4)[k] for k in order]).squeeze(1))
        getattr(reference, f"bias_hh_l{layer}").zero_()
    gradients = torch.randn(steps, 1, 2, count, generator=generator(2), dtype=DOUBLE)
    outputs, _ = reference(preprocess(gradients).permute(0, 1, 2, 4, 3).reshape(steps, 2 * count, 2))
    expected = (outputs @ network.readout[0] + network.offset).view(steps, 1, 2, count)
    runner = network.runner()
    state, updates = runner.begin(gradients[0], steps), []
    for t, gradient in enumerate(gradients, start=1):
        phi, state = runner.step(gradient, state, gradient, t)
        updates.append(phi)
    torch.testing.assert_close(torch.stack(updates), expected)
    replayed = runner.replay(list(gradients), runner.begin(gradients[0], steps))
    torch.testing.assert_close(replayed, expected)


def test_chunks_do_not_matter(monkeypatch):
    network, gradient = LSTMNetwork(generator=generator()), torch.randn(3, 1, 50, generator=generator(5))
    runner = network.runner()
    whole, _ = runner.step(gradient, runner.begin(gradient, 1), gradient, 1)
    monkeypatch.setattr("sol_learner.networks.lstm._CHUNK", 7)
    torch.testing.assert_close(runner.step(gradient, runner.begin(gradient, 1), gradient, 1)[0], whole)


def test_exact_equals_finite_differences(make_task):
    task, network = make_task(dtype=DOUBLE), network_for()
    gradient = window(task, Exact, network, steps=5, before=0).meta_gradient
    direction = [torch.randn(p.shape, generator=generator(3), dtype=DOUBLE) for p in network.parameters()]
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, step in zip(moved.parameters(), direction):
                parameter += sign * 1e-6 * step
        losses.append(window(task, Exact, moved, steps=5, before=0).losses.mean().item())
    expected = sum(float((a * b).sum()) for a, b in zip(gradient, direction))
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_window_equals_autograd_through_it(make_task, second_order):
    """First order: the optimizees' gradients are constants, the LSTM's own states are not."""
    task, network, lr, before = make_task(dtype=DOUBLE), network_for(), 0.05, 3
    kind, every = (Exact, {}) if second_order else (FirstOrder, {"coordinates": 10**9})
    found = window(task, kind, network, **every).meta_gradient
    estimator = Exact(network, generator())
    optimizees = Optimizees(task, 0, Stream.TRAIN, range(2))
    estimator.begin(optimizees, lr, task.horizon)
    for _ in range(before):
        estimator._move()
    theta, state, drawn, losses = optimizees.theta.detach(), estimator.state, estimator.drawn, []
    for step in range(4):
        at = theta if second_order and step else theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            optimizees.losses(at, drawn).sum(), at, create_graph=second_order and step > 0, retain_graph=True
        )
        phi, state = network(gradient, state)
        theta = theta - lr * phi
        drawn = optimizees.draw()
        losses.append(optimizees.losses(theta, drawn))
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))
    for part, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-8, atol=1e-10)


def test_sampled_coordinates_are_unbiased(make_task):
    task, network = make_task(dtype=DOUBLE), network_for()

    def flat(draw, coordinates):
        estimator = FirstOrder(network, generator(draw), coordinates=coordinates)
        estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(2)), 0.05, task.horizon)
        return torch.cat([part.reshape(-1) for part in estimator.window(3).meta_gradient])

    draws = torch.stack([flat(draw, 8) for draw in range(60)])
    error = (draws.mean(0) - flat(0, 10**9)) / (draws.std(0) / math.sqrt(len(draws))).clamp(min=1e-12)
    assert draws.std(0).max() > 0
    assert error.abs().max() < 5  # some 250 weights; P(any beyond 5 by chance) < 1e-3


@pytest.mark.parametrize("kind", ESTIMATORS.values())
def test_windows_join_to_one_episode(make_task, kind):
    task, losses = make_task(dtype=DOUBLE), []
    for cut in ([6], [2, 4], [1, 1, 1, 3]):
        tiny = {"sigma": 1e-12, "particles": 1} if kind is ESTIMATORS["pes"] else {}
        estimator = kind(network_for(), generator(), **tiny)
        estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(2), estimator.num_replicas), 0.05, task.horizon)
        losses.append(torch.cat([estimator.window(steps).losses for steps in cut]))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


class Bowl:
    """0.5 sum h x^2 from a random start."""

    name, horizon = "bowl", 20

    def build(self, generator):
        module = nn.Module()
        module.x = nn.Parameter(torch.randn(10, generator=generator))
        return module

    def batches(self, split, generator):
        while True:
            yield torch.zeros(())

    def loss(self, model, batch):
        return 0.5 * (torch.linspace(0.3, 2, 10) * model.x**2).sum() + batch

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, torch.zeros(())))}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_meta_training_learns_to_descend(estimator):
    settings = {"episodes": 24, "meta_batch": 2, "unroll": (5,), "outer_lr": 1e-2, "particles": 4}
    config = LearnConfig(estimator=estimator, validate_every=4, validation_episodes=4, **settings)
    network = LSTMNetwork(4, generator=generator(2))
    family = TaskSet((Bowl(),), (1.0,), 0.5)
    result = meta_train(family, network, 0.1, config, progress=NullProgress(), clock=Clock())
    still = sum(Bowl().loss(Bowl().build(generator(seed)), 0.0).item() for seed in range(50)) / 50
    assert result.dropped == 0
    assert result.loss < 0.5 * still
