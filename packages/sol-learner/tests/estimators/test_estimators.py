"""Meta-gradient estimators against what they estimate: autograd, finite differences, the full unroll."""

import copy
import math

import pytest
import torch
from torch import nn

from sol_learner.estimators import ESTIMATORS, META_LOSSES, Exact, FirstOrder, PersistentEvolution
from sol_learner.inner import Optimizees
from sol_learner.networks import SymbolicNetwork
from sol_learner.task import Stream
from sol_symbols import ZOO, SolError

UNITS = [(("identity", "mul", "exp", "sign"),), (("identity", "square"), ("mul", "identity"))]
DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network_for(units=UNITS[0], seed=1, start="adam", gates=False):
    """A network that is not at its start: every weight matters."""
    network = SymbolicNetwork(ZOO[start], units=units, generator=generator(seed), gates=gates).double()
    with torch.no_grad():
        network.readout.add_(0.1)
    return network


def second_window(task, kind, network, lr, steps, draw=0, before=3, **options):
    """A window that does not start at the first step: states are not zero."""
    estimator = kind(network, generator(draw), **options)
    estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(2), estimator.num_replicas), lr, task.horizon)
    if before:
        estimator.window(before)
    return estimator.window(steps)


def unrolled(task, network, lr, steps, before, meta_loss, outer_split="train", second_order=True):
    """The meta-loss of the same window by ordinary tensor operations, differentiable in the network."""
    estimator = Exact(network, generator())
    optimizees = Optimizees(task, 0, Stream.TRAIN, range(2))
    estimator.begin(optimizees, lr, task.horizon)
    for _ in range(before):  # moved by the window below, not differentiated
        estimator._move()
        if outer_split != "train":
            optimizees.draw(outer_split)
    theta, state, losses = optimizees.theta.detach(), estimator.state, []
    drawn = estimator.drawn
    for step in range(steps):
        if step == 0 or not second_order:
            leaf = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(optimizees.losses(leaf, drawn).sum(), leaf)
        else:
            (gradient,) = torch.autograd.grad(optimizees.losses(theta, drawn).sum(), theta, create_graph=True)
        phi, state = estimator.optimizer.differentiable_step(
            gradient, state, theta if second_order else theta.detach(), before + 1 + step
        )
        theta = theta - lr * phi
        drawn = optimizees.draw()
        losses.append(optimizees.losses(theta, drawn if outer_split == "train" else optimizees.draw(outer_split)))
    return META_LOSSES[meta_loss](torch.stack(losses)).mean()


def assert_equal(parts, references, tolerance):
    for part, reference in zip(parts, references, strict=True):
        torch.testing.assert_close(part, reference, rtol=tolerance, atol=tolerance * float(reference.abs().max()))


@pytest.mark.parametrize("outer_split", ["train", "valid"])
@pytest.mark.parametrize("meta_loss", META_LOSSES)
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("kind", [FirstOrder, Exact])
def test_a_window_equals_autograd_through_it(make_task, kind, units, meta_loss, outer_split):
    task, network = make_task(dtype=DOUBLE), network_for(units)
    options = {"meta_loss": meta_loss, "outer_split": outer_split}
    every = {"coordinates": 10**9} if kind is FirstOrder else {}
    window = second_window(task, kind, network, 0.02, 5, **every, **options)
    loss = unrolled(task, network, 0.02, 5, 3, second_order=kind is Exact, **options)
    assert_equal(window.meta_gradient, torch.autograd.grad(loss, list(network.parameters())), 1e-9)


def test_second_order_terms_matter_here(make_task):
    task, network = make_task(dtype=DOUBLE), network_for()
    first, exact = (second_window(task, kind, network, 0.02, 5) for kind in (FirstOrder, Exact))
    assert not torch.allclose(first.meta_gradient[0], exact.meta_gradient[0], rtol=1e-2)


@pytest.mark.parametrize("gates", [False, True])
def test_exact_equals_finite_differences(make_task, gates):
    task, network = make_task(dtype=DOUBLE), network_for(gates=gates)
    network.sample_gates(generator(4))
    gradient = second_window(task, Exact, network, 0.02, 5, before=0).meta_gradient
    direction = [torch.randn(p.shape, generator=generator(3), dtype=DOUBLE) for p in network.parameters()]
    expected = sum(float((a * b).sum()) for a, b in zip(gradient, direction))
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, step in zip(moved.parameters(), direction):
                parameter += sign * 1e-6 * step
        losses.append(second_window(task, Exact, moved, 0.02, 5, before=0).losses.mean().item())
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


class DeadInput(nn.Module):
    """A parameter whose gradient is zero for ever, as behind a black pixel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=DOUBLE))

    def forward(self):
        return (self.weight * torch.tensor([1.0, 0.0], dtype=DOUBLE)).sum()


class Dead:
    name, horizon = "dead", 6

    def build(self, generator):
        return DeadInput()

    def batches(self, split, generator):
        while True:
            yield torch.rand((), generator=generator, dtype=DOUBLE)

    def loss(self, model, batch):
        return (model() - batch) ** 2

    def evaluate(self, model, split):
        return {"loss": 0.0}


def test_exact_is_finite_where_all_gradients_were_zero():
    window = second_window(Dead(), Exact, network_for(), 0.02, 3)
    assert all(torch.isfinite(part).all() for part in window.meta_gradient)


def test_sampled_coordinates_are_unbiased(make_task):
    task, network = make_task(dtype=DOUBLE), network_for()

    def flat(coordinates, draw=0):
        window = second_window(task, FirstOrder, network, 0.01, 4, draw=draw, coordinates=coordinates)
        return torch.cat([part.reshape(-1) for part in window.meta_gradient])

    draws = torch.stack([flat(6, draw) for draw in range(100)])
    error = (draws.mean(0) - flat(10**9)) / (draws.std(0) / math.sqrt(len(draws))).clamp(min=1e-12)
    assert draws.std(0).max() > 0
    assert error.abs().max() < 4.5  # 60-odd weights; P(any beyond 4.5 by chance) < 1e-3


class Quadratic(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.x = nn.Parameter(start)


class Bowl:
    """0.5 sum h x^2 from a random start: the loss of a whole episode is smooth in the rule's weights."""

    name, horizon, h = "bowl", 8, torch.tensor([1.0, 0.3, 2.0], dtype=DOUBLE)

    def build(self, generator):
        return Quadratic(torch.randn(3, generator=generator, dtype=DOUBLE))

    def batches(self, split, generator):
        while True:
            yield torch.zeros((), dtype=DOUBLE)

    def loss(self, model, batch):
        return 0.5 * (self.h * model.x**2).sum() + batch

    def evaluate(self, model, split):
        return {"loss": float(self.loss(model, torch.zeros(())))}


def test_pes_agrees_in_expectation_with_the_full_unroll():
    network = SymbolicNetwork(ZOO["sgd"], features=("g", "m_hat"), units=(("identity",),), generator=generator(1))
    network = network.double()
    task, lr = Bowl(), 0.1
    exact = Exact(network, generator())
    exact.begin(Optimizees(task, 0, Stream.TRAIN, range(4)), lr, task.horizon)
    full = torch.cat([part.reshape(-1) for part in exact.window(task.horizon).meta_gradient]) * task.horizon

    def episode(draw):
        """Sum over truncated windows, each the gradient of the sum of its losses."""
        pes = PersistentEvolution(network, generator(draw), particles=10, sigma=1e-3)
        pes.begin(Optimizees(task, 0, Stream.TRAIN, range(4), pes.num_replicas), lr, task.horizon)
        windows = [pes.window(2) for _ in range(task.horizon // 2)]
        return sum(torch.cat([part.reshape(-1) for part in window.meta_gradient]) * 2 for window in windows)

    draws = torch.stack([episode(draw) for draw in range(30)])
    error = (draws.mean(0) - full) / (draws.std(0) / math.sqrt(len(draws)))
    assert error.abs().max() < 4
    assert (draws.mean(0) - full).norm() < 0.15 * full.norm()
    # Truncated back-propagation is biased here: the test can tell the difference.
    short = Exact(network, generator())
    short.begin(Optimizees(task, 0, Stream.TRAIN, range(4)), lr, task.horizon)
    parts = [short.window(2).meta_gradient for _ in range(task.horizon // 2)]
    truncated = sum(torch.cat([part.reshape(-1) for part in window]) * 2 for window in parts)
    assert (truncated - full).norm() > 0.3 * full.norm()


@pytest.mark.parametrize("kind", ESTIMATORS.values())
@pytest.mark.parametrize("vectorizable", [True, False])
def test_loops_and_vmap_give_one_meta_gradient(make_task, kind, vectorizable):
    network = network_for()
    task, reference = make_task(vectorizable, dtype=DOUBLE), make_task(True, dtype=DOUBLE)
    few = {"particles": 2} if kind is PersistentEvolution else {}
    one, other = (second_window(t, kind, network, 0.02, 4, **few) for t in (task, reference))
    assert_equal(one.meta_gradient, other.meta_gradient, 1e-9)


@pytest.mark.parametrize("kind", ESTIMATORS.values())
@pytest.mark.parametrize("start", ["adam", "lion", "powersign-ld", "momentum"])
def test_windows_join_to_one_episode(make_task, kind, start):
    """The trajectory is that of the network, however it is cut and whoever looks on."""
    task, losses = make_task(dtype=DOUBLE), []
    for cut in ([6], [2, 4], [1, 1, 1, 3]):
        network = SymbolicNetwork(ZOO[start], generator=generator(1)).double()
        tiny = {"sigma": 1e-12, "particles": 1} if kind is PersistentEvolution else {}
        estimator = kind(network, generator(), **tiny)
        estimator.begin(Optimizees(task, 0, Stream.TRAIN, range(2), estimator.num_replicas), 0.01, task.horizon)
        losses.append(torch.cat([estimator.window(steps).losses for steps in cut]))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_wrong_settings_are_named(make_task):
    with pytest.raises(SolError, match="no meta-loss 'median'"):
        FirstOrder(network_for(), generator(), meta_loss="median")
    with pytest.raises(SolError, match="must be train or valid, got 'test'"):
        FirstOrder(network_for(), generator(), outer_split="test")
    with pytest.raises(SolError, match="no kernel 'cuda'"):
        FirstOrder(network_for(), generator(), kernel="cuda")
    task = make_task(dtype=DOUBLE)
    task.project = lambda model: None
    exact = Exact(network_for(), generator())
    with pytest.raises(SolError, match="use the estimator first-order or pes"):
        exact.begin(Optimizees(task, 0, Stream.TRAIN, [0]), 0.1, 3)


@pytest.mark.parametrize("kind", [FirstOrder, Exact, PersistentEvolution])
def test_the_logarithm_of_losses_below_zero_is_refused(make_task, kind):
    task = make_task()
    task.loss = lambda model, batch: model(batch[0]).mean() - 10
    estimator = kind(network_for(), generator(), meta_loss="log")
    estimator.begin(Optimizees(task, 0, Stream.TRAIN, [0], estimator.num_replicas), 0.01, 12)
    with pytest.raises(SolError, match=r"meta_loss='log' needs positive losses \(got -\d.*; use meta_loss='mean'"):
        estimator.window(2)
