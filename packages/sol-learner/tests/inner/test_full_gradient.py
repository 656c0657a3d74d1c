"""Gradients of the final loss by the numbers of a rule."""

import pytest
import torch
from torch import nn

from sol_learner.inner import full_gradient
from sol_learner.inner.full_gradient import relative_gradient
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.search.terms import opened, split
from sol_learner.task import Stream
from sol_symbols import ZOO, SolError, UpdateRule

RULES = (
    "0.5*ad + 0.2*ld*rs where lr = 0.02, beta1 = 0.8",
    "0.7*m_hat + 0.1*w where lr = 0.05",
    "ad*pd*wu + g/(rms(g) + eps) where lr = 0.01, decay_power = 1.3, warmup = 2",
    ZOO["sol-general"],
    "g*loss*inv0(all_dot(g, g)) + 0.3*m_hat*loss where lr = 0.02",
)


def numbers_of(rule):
    """The rule with open coefficients, a function of a point that gives all its numbers, and the point of its own."""
    rule = UpdateRule.parse(rule) if isinstance(rule, str) else rule
    units, coefficients = split(rule.with_horizon(12))
    open_rule, names = opened(rule.with_horizon(12), units)
    names += [name for name in rule.values if name not in ("T", "eps")]
    start = [*coefficients, *(rule.values[name] for name in names[len(coefficients) :])]
    return open_rule, lambda point: dict(zip(names, point)), torch.tensor(start, dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES, ids=["adam-like", "momentum", "tensors", "sol-general", "loss"])
@pytest.mark.parametrize("vectorizable", [True, False])
def test_gradients_are_those_of_differences(make_task, rule, vectorizable, monkeypatch):
    monkeypatch.setattr(full_gradient, "MOST", 1e9)
    task = make_task(vectorizable=vectorizable, dtype=torch.float64)
    open_rule, numbers, point = numbers_of(rule)
    where = (0, Stream.TRAIN, [0, 1], 0.4)
    losses, gradient = relative_gradient(task, open_rule, numbers, point, *where)
    assert losses.shape == (2,)
    for i in range(len(point)):
        step = torch.zeros_like(point)
        step[i] = 1e-6
        after, before = (relative_gradient(task, open_rule, numbers, point + s * step, *where)[0] for s in (1, -1))
        expected = ((after - before) / losses).mean() / (2 * step[i])
        assert gradient[i] == pytest.approx(float(expected), rel=1e-3, abs=1e-6)


def test_episodes_side_by_side_give_the_mean_of_each(make_task):
    task, (open_rule, numbers, point) = make_task(dtype=torch.float64), numbers_of(RULES[0])
    alone = [relative_gradient(task, open_rule, numbers, point, 0, Stream.TRAIN, [e], 0.4) for e in (3, 4)]
    losses, gradient = relative_gradient(task, open_rule, numbers, point, 0, Stream.TRAIN, [3, 4], 0.4)
    torch.testing.assert_close(losses, torch.cat([loss for loss, _ in alone]))
    torch.testing.assert_close(gradient, (alone[0][1] + alone[1][1]) / 2)


class Blind:
    """An input that is always 0, as at the edge of digits: its gradients are 0, and so is sqrt(v_hat)."""

    def __init__(self, task):
        self.task, self.name, self.horizon, self.vectorizable = task, "blind", task.horizon, True

    def __getattr__(self, name):
        return getattr(self.task, name)

    def loss(self, model, batch):
        x, y = batch
        return self.task.loss(model, (x * torch.tensor([0.0, 1, 1, 1, 1]), y))


@pytest.mark.parametrize("rule", RULES, ids=["adam-like", "momentum", "tensors", "sol-general", "loss"])
def test_inputs_of_zeros_do_not_spoil_the_gradient(task, rule):
    open_rule, numbers, point = numbers_of(rule)
    _, gradient = relative_gradient(Blind(task), open_rule, numbers, point, 0, Stream.TRAIN, [0], 0.4)
    assert gradient.isfinite().all()
    assert (gradient != 0).sum() >= len(point) - 1


def test_a_run_that_diverges_has_an_infinite_loss_and_a_finite_gradient(task):
    open_rule, numbers, point = numbers_of("g*exp(abs(g)) where lr = 1e4")
    losses, gradient = relative_gradient(task, open_rule, numbers, point, 0, Stream.TRAIN, [0, 1], 0.4)
    assert losses.isinf().all()
    assert gradient.isfinite().all()


def test_chaos_does_not_grow_beyond_the_end(make_task):
    """At a rate that is far too large, factors multiply over the steps; the scaled adjoints add up at most."""
    task, (open_rule, numbers, point) = make_task(horizon=144), numbers_of("m_hat where lr = 3")
    _, gradient = relative_gradient(task, open_rule, numbers, point, 0, Stream.TRAIN, [0], 0.4)
    assert gradient.norm() < 1e6


def test_what_has_no_gradient_is_refused(make_task):
    open_rule, numbers, point = numbers_of(RULES[0])
    projected = make_task()
    projected.project = lambda model: None
    with pytest.raises(SolError, match="projects its parameters"):
        relative_gradient(projected, open_rule, numbers, point, 0, Stream.TRAIN, [0], 0.4)

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(5, 2)])
            self.kept = [self.parts[0].weight]

        def forward(self, x):
            return x @ self.kept[0].T

    hidden = make_task(vectorizable=False)
    hidden.build = lambda generator: Hidden()
    with pytest.raises(SolError, match="outside of modules"):
        relative_gradient(hidden, open_rule, numbers, point, 0, Stream.TRAIN, [0], 0.4)


def test_the_clock_stops_it(task):
    clock = Clock()
    clock.cancel()
    with pytest.raises(Interrupted):
        relative_gradient(task, *numbers_of(RULES[0]), 0, Stream.TRAIN, [0], 0.4, clock)
