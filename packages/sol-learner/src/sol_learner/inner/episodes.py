"""The inner loop: optimizers train optimizees over an episode, and an objective scores the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sol_learner.inner.optimizees import Optimizees
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.networks.base import State
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Task
from sol_symbols import Layout, SolError, UpdateRule, evaluator

__all__ = [
    "OBJECTIVE_SPLITS",
    "WEIGHT",
    "Optimizer",
    "Outcome",
    "RuleOptimizer",
    "Value",
    "finite_or_inf",
    "log_objective",
    "objective",
    "run_episodes",
    "run_rule",
    "shares",
]

Value = float | Tensor

OBJECTIVE_SPLITS = ("train", "valid")
"""Splits whose losses after the last step make up the objective."""

WEIGHT = 0.4
"""Weight of the training loss in the objective, by default."""

LEAST_LOSS = 1e-4
"""Smaller losses count as this in logarithms: beyond it, only rounding is fitted."""

LOST = 10.0
"""Logarithmic objective of a diverged run."""


def shares(weight: float) -> dict[str, float]:
    """Weight of each split's loss in the objective, if the training loss has ``weight``; splits of weight 0 are out."""
    return {split: share for split, share in zip(OBJECTIVE_SPLITS, (weight, 1 - weight)) if share}


def finite_or_inf(losses: Tensor) -> Tensor:
    """Losses, infinite where they are not finite."""
    return torch.nan_to_num(losses, nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def objective(metrics: Mapping[str, Mapping[str, Tensor]], weight: float = WEIGHT) -> Tensor:
    """The objective that every choice minimizes, [C, S]; infinite where it is not finite.

    ``weight`` times the training loss plus ``1 - weight`` times the validation loss, both after the last step: a good
    optimizer gets far, and not by overfitting.
    """
    parts = [share * metrics[split]["loss"] for split, share in shares(weight).items()]
    return finite_or_inf(sum(parts[1:], parts[0]))


def log_objective(outcome: Outcome, weight: float = WEIGHT) -> Tensor:
    """The objective for a mixture of tasks: the same mean of the logarithms of the losses, [C, S].

    The scale of a task's losses cancels in every ranking. Losses count as at least :data:`LEAST_LOSS`, and the
    objective is at most :data:`LOST`.
    """
    losses = {split: finite_or_inf(table["loss"]).clamp(min=LEAST_LOSS) for split, table in outcome.metrics.items()}
    return objective({split: {"loss": loss.log()} for split, loss in losses.items()}, weight).clamp(max=LOST)


@dataclass(frozen=True)
class Outcome:
    """Episodes of a rule.

    Attributes:
        losses: Loss on each step's batch, before the step, shape [T, C, S].
        metrics: Per split, the task's metrics after the last step, each of shape [C, S], float64.
    """

    losses: Tensor
    metrics: dict[str, dict[str, Tensor]]

    def objective(self, weight: float = WEIGHT) -> Tensor:
        """See :func:`objective`."""
        return objective(self.metrics, weight)


class Optimizer(Protocol):
    """phi with explicit state; a network or a rule."""

    def begin(self, theta: Tensor, horizon: int) -> State:
        """States before the first step of an episode whose decays span ``horizon`` steps."""

    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """phi and the new state; all tensors of one shape. The old state may be overwritten."""


class RuleOptimizer:
    """A rule as an :class:`Optimizer`.

    Args:
        rule: The rule.
        values: Replace values of the rule; each broadcasts with the parameters.
        layout: Shapes of the parameters; needed by rules with values per tensor or per run.
    """

    def __init__(
        self, rule: UpdateRule, values: Mapping[str, Value] | None = None, layout: Layout | None = None
    ) -> None:
        self.rule, self._values, self._layout = rule, dict(values or {}), layout

    def on(self, layout: Layout) -> RuleOptimizer:
        """The same for parameters of this layout."""
        return RuleOptimizer(self.rule, self._values, layout)

    def begin(self, theta: Tensor, horizon: int) -> State:
        """See :class:`Optimizer`."""
        self._phi = evaluator(self.rule, torch, horizon, hoist=True, layout=self._layout)
        self._phi.values.update(self._values)
        return self._phi.init(theta)

    def step(
        self, gradient: Tensor, state: State, theta: Tensor, t: int, losses: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """See :class:`Optimizer`; rules that use the loss need ``losses`` of the step, of one axis less."""
        return self._phi(gradient, state, theta, t, losses)

    def weights(self, state: State, theta: Tensor, t: int, lr: Value) -> Tensor:
        """The weights to evaluate with after step t at a learning rate."""
        weights: Tensor = self._phi.weights(state, theta, t, lr)  # type: ignore[arg-type]
        return weights


def _train(
    optimizees: Optimizees, optimizer: Optimizer, lr: Callable[[int], Value], horizon: int, clock: Clock | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train ``optimizees``; yields (t, losses, gradients) before each step t = 1..``horizon``.

    At the end, they have the weights to evaluate with, if those of the rule are not those that it trains.

    Raises:
        Interrupted: By the clock.
    """
    state = optimizer.begin(optimizees.theta, horizon)
    for t in range(1, horizon + 1):
        if clock is not None:
            clock.check()
        losses, gradients = optimizees.losses_and_gradients()
        yield t, losses, gradients
        measured = (losses,) if isinstance(optimizer, RuleOptimizer) else ()
        phi, state = optimizer.step(gradients, state, optimizees.theta, t, *measured)
        optimizees.descend(phi, lr(t))
    if isinstance(optimizer, RuleOptimizer) and optimizer.rule.evaluation is not None:
        optimizees.place(optimizer.weights(state, optimizees.theta, horizon, lr(horizon)))


def run_episodes(
    task: Task,
    optimizer: Optimizer,
    lr: float,
    seed: int,
    stream: Stream,
    episodes: Sequence[int],
    clock: Clock | None = None,
) -> Iterator[tuple[int, Optimizees, Tensor]]:
    """Train fresh optimizees; yields (t, optimizees, gradients) before each step t, from 1, and once after the last."""
    optimizees = Optimizees(task, seed, stream, episodes)
    optimizer = optimizer.on(optimizees.layout) if isinstance(optimizer, RuleOptimizer) else optimizer
    for t, _, gradients in _train(optimizees, optimizer, lambda t: lr, task.horizon, clock):
        yield t, optimizees, gradients
    yield task.horizon + 1, optimizees, gradients


def run_rule(
    task: Task,
    rule: UpdateRule,
    seed: int,
    stream: Stream,
    episodes: Sequence[int],
    lr: Value | None = None,
    values: Mapping[str, Value] | None = None,
    splits: Sequence[str] = OBJECTIVE_SPLITS,
    horizon: int | None = None,
    clock: Clock | None = None,
    factors: Tensor | None = None,
) -> Outcome:
    """Train fresh optimizees with a rule and measure them.

    Optimizees of a task that cannot be vectorized are trained one after another, with one model in memory at a time.

    Args:
        task: The task.
        rule: The update rule; its schedule, if any, spans the horizon of the episodes.
        seed: Base seed of the run.
        stream: Random stream of the episodes.
        episodes: Indices in that stream; S of them.
        lr: Replaces the rule's own; shape [C] for C candidates.
        values: Replace values of the rule; shape [C] each for C candidates.
        splits: Splits to evaluate on after the last step.
        horizon: Inner steps; the task's own by default.
        clock: Stops the run between two steps on request.
        factors: Factors of the learning rate at each step, [T, C] or [T, 1].

    Raises:
        SolError: Neither the rule nor the call has a learning rate.
        Interrupted: By the clock.
    """
    given = rule.lr if lr is None else lr
    if given is None:
        raise SolError(f"the rule {rule} has no learning rate; append one: where lr = ...")
    horizon = task.horizon if horizon is None else horizon
    candidates = max([1, *(len(v) for v in (given, *(values or {}).values()) if isinstance(v, Tensor) and v.ndim)])
    if candidates * len(episodes) > 1 and not vectorizes(task):

        def alone(c: int, episode: int) -> Outcome:
            own = {name: _of_candidate(value, c) for name, value in (values or {}).items()}
            rate = _of_candidate(given, c)
            column = None if factors is None else factors[:, c : c + 1] if factors.shape[1] > 1 else factors
            return run_rule(task, rule, seed, stream, [episode], rate, own, splits, horizon, clock, column)

        return _joined([[alone(c, episode) for episode in episodes] for c in range(candidates)])
    optimizees = Optimizees(task, seed, stream, episodes, candidates)
    theta = optimizees.theta

    def aligned(value: Value) -> Value:
        return value.to(theta).view(-1, 1, 1) if isinstance(value, Tensor) else value

    own = {name: aligned(value) for name, value in (values or {}).items()}
    optimizer = RuleOptimizer(rule, own, optimizees.layout)
    rate = aligned(given)
    rows = None if factors is None else factors.to(theta).view(horizon, -1, 1, 1)
    rates = (lambda t: rate) if rows is None else (lambda t: rate * rows[t - 1])
    losses = [loss for _, loss, _ in _train(optimizees, optimizer, rates, horizon, clock)]
    return Outcome(torch.stack(losses), {split: optimizees.evaluate(split) for split in splits})


def _of_candidate(value: Value, c: int) -> Value:
    return value[c : c + 1] if isinstance(value, Tensor) and value.ndim else value


def _joined(outcomes: list[list[Outcome]]) -> Outcome:
    """One outcome of [C][S] of them."""

    def joined(parts: list[list[Tensor]]) -> Tensor:
        return torch.cat([torch.cat(row, -1) for row in parts], -2)

    metrics = {
        split: {name: joined([[o.metrics[split][name] for o in row] for row in outcomes]) for name in table}
        for split, table in outcomes[0][0].metrics.items()
    }
    return Outcome(joined([[o.losses for o in row] for row in outcomes]), metrics)
