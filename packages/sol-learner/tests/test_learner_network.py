"""The EQL network: its start, its exact read-out, its meta-gradient."""

import math

import pytest
import torch

from sol_learner import FirstOrder, NetworkOptimizer, Optimizees, Purpose, SymbolicNetwork
from sol_learner.meta_training import meta_train
from sol_learner.progress import Clock, Silent
from sol_symbols import STANDARD, ZOO, RuleError, UpdateRule, evaluator, feature_evaluator

START = ["adam", "sgd", "lion", "powersign-ld", "nesterov", "addsign-cd"]
UNITS = [
    (("identity", "square", "exp", "sign", "neg", "add", "sub", "mul"),),
    (("mul", "identity", "tanh", "sigmoid", "abs"),),
    (("identity", "mul", "exp"), ("identity", "mul", "sign", "square")),
]


def random_network(start="adam", units=UNITS[0], seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = SymbolicNetwork(ZOO[start], units=units, scale=0.3, generator=generator)
    with torch.no_grad():
        network.readout.normal_(generator=generator)
    return network


def histories(steps=20, count=200, seed=0, largest=1.0):
    generator = torch.Generator().manual_seed(seed)
    size = largest * 10 ** (-3 * torch.rand(count, generator=generator, dtype=torch.float64))
    return size * torch.randn(steps, count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("units", UNITS)
def test_before_training_the_network_is_the_start_rule(start, units):
    network = SymbolicNetwork(ZOO[start], units=units, generator=torch.Generator().manual_seed(0)).double()
    optimizer, phi = NetworkOptimizer(network, 20), evaluator(ZOO[start], torch, 20)
    gradients = histories()
    w = torch.zeros_like(gradients[0])
    state, expected_state = optimizer.init(w), phi.init(w)
    for t, g in enumerate(gradients, start=1):
        update, state = optimizer.step(g, state, w, t)
        expected, expected_state = phi(g, expected_state, w, t)
        torch.testing.assert_close(update, expected)


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_read_out_rule_equals_the_network(start, units, seed):
    network = random_network(start, units, seed)
    rule = UpdateRule.from_json(network.rule(0.01, 20).to_json())
    optimizer, phi = NetworkOptimizer(network.double(), 20), evaluator(rule, torch)
    w = torch.zeros(200, dtype=torch.float64)
    state, rule_state = optimizer.init(w), phi.init(w)
    for t, g in enumerate(histories(seed=seed, largest=10.0), start=1):
        update, state = optimizer.step(g, state, w, t)
        value, rule_state = phi(g, rule_state, w, t)
        finite = torch.isfinite(update)
        assert finite.float().mean() > 0.3
        torch.testing.assert_close(value[finite], update[finite], rtol=1e-6, atol=1e-9)


def test_wrong_units_and_features_are_named():
    with pytest.raises(RuleError, match="'foo' is not an operator"):
        SymbolicNetwork(ZOO["adam"], units=(("identity", "foo"),))
    with pytest.raises(RuleError, match="identity unit"):
        SymbolicNetwork(ZOO["adam"], units=(("mul",),))
    with pytest.raises(RuleError, match="unknown name 'gg'"):
        SymbolicNetwork(ZOO["adam"], features=("gg",))


def window(task, network, lr, unroll, coordinates, draw=0):
    """A window's estimator, fed, and what is needed to check it."""
    optimizer = NetworkOptimizer(network, task.horizon)
    optimizees = Optimizees(task, 0, Purpose.TRAIN, range(2))
    state = optimizer.init(optimizees.theta)
    generator = torch.Generator().manual_seed(draw)
    estimator = FirstOrder(network, optimizer.features, optimizer.values, lr, unroll, coordinates, generator)
    # A window that does not start at the first step: states are not zero.
    for t in range(1, unroll + 5):
        if t == 4:
            estimator.begin(state, optimizees.theta, t)
        _, gradient = optimizees.losses_and_gradients()
        if t >= 4 and estimator.observe(gradient, optimizees.theta):
            return estimator.meta_gradient()
        phi, state = optimizer.step(gradient, state, optimizees.theta, t)
        optimizees.move(-lr * phi)
    raise AssertionError("the window never filled")


def autograd_window(task, network, lr, unroll):
    """The same by ordinary back-propagation, gradients entering phi as constants."""
    optimizer = NetworkOptimizer(network, task.horizon)
    optimizees = Optimizees(task, 0, Purpose.TRAIN, range(2))
    state = optimizer.init(optimizees.theta)
    total = 0.0
    for t in range(1, unroll + 5):
        theta = optimizees.theta
        if t > 4:  # the loss at theta on the batch whose gradient comes next; theta depends on the network
            optimizees.theta = theta.detach()
            _, gradient = optimizees.losses_and_gradients()
            total = total + (gradient * theta).sum()  # has the loss's gradient at theta
        else:
            _, gradient = optimizees.losses_and_gradients()
        if t == unroll + 4:
            break
        outputs, state = optimizer.features.step(gradient, state, theta.detach(), t, optimizer.values)
        phi = network(torch.stack(outputs))
        optimizees.theta = theta - lr * (phi if t >= 4 else phi.detach())
    return torch.autograd.grad(total / unroll / 2, list(network.parameters()))


@pytest.mark.parametrize("units", UNITS)
def test_the_closed_form_equals_autograd(task, units):
    network = SymbolicNetwork(ZOO["adam"], units=units, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.readout.add_(0.1)
    closed = window(task, network, 0.01, 5, 10**9)
    reference = autograd_window(task, network, 0.01, 5)
    for part, expected in zip(closed, reference, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_sampled_coordinates_are_unbiased(task):
    network = random_network(units=UNITS[1])
    full = torch.cat([part.reshape(-1) for part in window(task, network, 0.01, 4, 10**9)])
    draws = torch.stack(
        [torch.cat([p.reshape(-1) for p in window(task, network, 0.01, 4, 6, draw=draw)]) for draw in range(150)]
    )
    error = (draws.mean(0) - full) / (draws.std(0) / math.sqrt(len(draws))).clamp(min=1e-12)
    assert draws.std(0).max() > 0
    assert error.abs().max() < 4.5  # 60-odd weights; P(any beyond 4.5 by chance) < 1e-3


def test_features_and_phi_stay_on_the_parameters_device():
    network = random_network().to("meta")
    optimizer = NetworkOptimizer(network, 10)
    theta = torch.empty(3, 7, device="meta")
    phi, state = optimizer.step(theta, optimizer.init(theta), theta, 1)
    assert phi.device.type == "meta"
    assert phi.shape == theta.shape
    assert {value.device.type for value in state.values()} == {"meta"}


def test_chunks_do_not_change_phi(monkeypatch):
    network, g = random_network(), torch.randn(2, 333)
    optimizer = NetworkOptimizer(network, 10)
    whole, _ = optimizer.step(g, optimizer.init(g), g, 1)
    monkeypatch.setattr("sol_learner.meta_training._CHUNK", 100)
    parts, _ = optimizer.step(g, optimizer.init(g), g, 1)
    torch.testing.assert_close(parts, whole)


SETTINGS = {"meta_batch": 4, "unroll": 4, "outer_lr": 1e-2, "coordinates": 64, "validation": 4, "every": 1}


def train(task, lr=0.03, episodes=6, clock=None):
    network = SymbolicNetwork(ZOO["adam"], generator=torch.Generator().manual_seed(0))
    clock = clock or Clock()
    return meta_train(task, network, lr, seed=0, episodes=episodes, progress=Silent(), clock=clock, **SETTINGS)


def test_meta_training_improves_on_its_start_and_keeps_the_best(task):
    result = train(task)
    losses = [record["loss"] for record in result.history if "loss" in record]
    assert result.loss == min(losses) < 0.95 * losses[0]
    assert result.windows == 6 * 3
    assert result.dropped == 0


@pytest.mark.parametrize(("horizon", "windows"), [(10, 3), (12, 3), (3, 1), (1, 1)])
def test_an_episode_that_ends_within_a_window_uses_what_it_has(make_task, horizon, windows):
    assert train(make_task(horizon=horizon), episodes=1).windows == windows


def test_meta_training_drops_windows_that_are_not_finite(task):
    result = train(task, lr=1e25, episodes=2)
    assert result.dropped == 2
    assert all(torch.isfinite(parameter).all() for parameter in result.network.parameters())


def test_meta_training_stops_with_what_it_has(task):
    clock = Clock(1e-9)
    clock.allow(1.0)
    result = train(task, clock=clock)
    assert result.windows == 0
    assert result.network.readout.sum() == 1  # the start rule


def test_the_standard_features_are_in_the_vocabulary():
    features = feature_evaluator([STANDARD.parse("ag")], STANDARD, torch)
    g = torch.tensor([0.0, 1e-9, 1.0, -1.0, 2.0], dtype=torch.float64)
    (ag,), _ = features.step(g, {}, None, 1, {})
    expected = [-1.0, -1.0, math.log(1 + 1e-6) / 10, math.log(1 + 1e-6) / 10, math.log(2 + 1e-6) / 10]
    assert ag.tolist() == pytest.approx(expected)
