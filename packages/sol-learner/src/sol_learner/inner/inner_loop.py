"""The inner loop: whatever can move optimizees, moving them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sol_learner.inner.optimizees import Optimizees
from sol_learner.runtime.clock import Clock
from sol_learner.task import Purpose, Task
from sol_symbols import UpdateRule, evaluator

__all__ = ["Optimizer", "RuleOptimizer", "run_episodes"]

State = dict[str, Tensor]


class Optimizer(Protocol):
    """phi with explicit state; a network or a rule."""

    def begin(self, theta: Tensor, horizon: int) -> State:
        """States before the first step of an episode whose decays are laid over ``horizon`` steps."""

    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """phi and the new state; all tensors of one shape. The old state is used up: it may be overwritten."""


class RuleOptimizer:
    """A rule as an :class:`Optimizer`."""

    def __init__(self, rule: UpdateRule) -> None:
        self.rule = rule

    def begin(self, theta: Tensor, horizon: int) -> State:
        """See :class:`Optimizer`."""
        self._phi = evaluator(self.rule, torch, horizon, collected=True)
        return self._phi.init(theta)

    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """See :class:`Optimizer`."""
        return self._phi(gradient, state, theta, t)


def run_episodes(
    task: Task,
    optimizer: Optimizer,
    lr: float,
    seed: int,
    purpose: Purpose,
    episodes: Sequence[int],
    clock: Clock | None = None,
) -> Iterator[tuple[int, Optimizees, Tensor]]:
    """Train fresh optimizees; yields (t, optimizees, gradient) ahead of each move, t from 1, and once at the end."""
    optimizees = Optimizees(task, seed, purpose, episodes)
    state = optimizer.begin(optimizees.theta, task.horizon)
    for t in range(1, task.horizon + 1):
        if clock is not None:
            clock.check()
        _, gradient = optimizees.losses_and_gradients()
        yield t, optimizees, gradient
        phi, state = optimizer.step(gradient, state, optimizees.theta, t)
        optimizees.descend(phi, lr)
    yield task.horizon + 1, optimizees, gradient
