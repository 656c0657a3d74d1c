"""The tasks that one rule is learned for, and the objective that compares rules on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sol_learner.inner.episodes import Outcome, Value, finite_or_inf, log_objective, objective, run_rule, shares
from sol_learner.inner.full_gradient import relative_gradient
from sol_learner.inner.optimizees import Optimizees
from sol_learner.inner.references import penalty, references_of
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.mixture import TaskMixture, drawn_task
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.task import Stream, Task
from sol_symbols import UpdateRule

__all__ = ["SharedTaskSet", "TaskSet"]


@dataclass(frozen=True)
class TaskSet:
    """One task or several.

    Attributes:
        tasks: Tasks, and mixtures (:class:`~sol_learner.mixture.TaskMixture`), whose objective is that of the
            logarithms of the losses.
        scales: Divisor of each task's losses: with several tasks, the size of the tuned start's objective, so that all
            tasks count the same, or 1 where that is 0; else 1.
        weight: Weight of the training loss in the objective.
        guarded: Whether |L| (p - 1) is added to the objective L of a rule, where p is its penalty on references;
            see :func:`~sol_learner.inner.references.penalty`.
    """

    tasks: tuple[Any, ...]
    scales: tuple[float, ...]
    weight: float
    guarded: bool = False

    @property
    def name(self) -> str:
        """The tasks' names."""
        return ", ".join(task.name for task in self.tasks)

    @property
    def horizon(self) -> int | None:
        """The horizon of the tasks, ``None`` where they differ."""
        horizons = {getattr(task, "horizon", None) for task in self.tasks}
        return horizons.pop() if len(horizons) == 1 else None

    @property
    def alone(self) -> bool:
        """Whether models of some task are trained one after another."""
        return any(not isinstance(task, TaskMixture) and not vectorizes(task) for task in self.tasks)

    def mean(self, measure: Callable[[Any], Tensor]) -> Tensor:
        """Mean over tasks of ``measure(task)`` divided by the task's scale."""
        values = [measure(task) / scale for task, scale in zip(self.tasks, self.scales)]
        return sum(values[1:], values[0]) / len(values)

    def problems(self, seed: int, stream: Stream, episodes: Sequence[int]) -> Iterator[tuple[Task, Sequence[int]]]:
        """Each task with its episodes; a mixture draws a task for each episode."""
        for task in self.tasks:
            yield from _problems(task, seed, stream, episodes)

    def evaluate(self, optimizees: Optimizees) -> Tensor:
        """Objective [C, S] of trained optimizees of one of the tasks."""
        return objective({split: optimizees.evaluate(split) for split in self.splits}, self.weight)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the objective needs."""
        return tuple(shares(self.weight))

    def run(
        self,
        rule: UpdateRule,
        seed: int,
        stream: Stream,
        episodes: Sequence[int],
        lr: Value | None = None,
        values: Mapping[str, Value] | None = None,
        clock: Clock | None = None,
    ) -> Tensor:
        """Objective [C, S] of a rule, with its penalty; see :func:`~sol_learner.inner.run_rule` for the arguments."""

        def measure(task: Task | TaskMixture) -> Tensor:
            score = log_objective if isinstance(task, TaskMixture) else Outcome.objective
            outcomes = [
                run_rule(own, rule, seed, stream, chosen, lr, values, self.splits, clock=clock)
                for own, chosen in _problems(task, seed, stream, episodes)
            ]
            return torch.cat([score(outcome, self.weight) for outcome in outcomes], -1)

        found = self.mean(measure)
        if not self.guarded:
            return found
        return _penalised(found, self.penalty(rule, seed, stream, episodes, lr, values, clock)[:, None])

    def penalty(
        self, rule: UpdateRule, seed: int, stream: Stream, episodes: Sequence[int], *options: Any, **keywords: Any
    ) -> Tensor:
        """The penalty of a rule, [C]; see :func:`~sol_learner.inner.references.penalty`."""
        horizon = max(task.horizon for task in self.tasks)
        return penalty(rule, seed, stream, episodes, horizon, self.weight, *options, **keywords)

    def relative_gradient(
        self,
        rule: UpdateRule,
        numbers: Callable[[Tensor], dict[str, Tensor]],
        point: Tensor,
        seed: int,
        episodes: Sequence[int],
        clock: Clock | None = None,
    ) -> tuple[float, Tensor]:
        """The mean objective of a rule over episodes of the training stream, without penalties, and the gradient of
        the mean of its logarithms; see :func:`~sol_learner.inner.full_gradient.relative_gradient`."""
        found = [
            relative_gradient(task, rule, numbers, point, seed, Stream.TRAIN, own, self.weight, clock)
            for task, own in self.problems(seed, Stream.TRAIN, episodes)
        ]
        return float(torch.cat([losses for losses, _ in found]).mean()), torch.stack([g for _, g in found]).mean(0)

    def trainings(self, stream: Stream, episodes: int) -> int:
        """Trainings of one rule over a number of episodes, with those of references."""
        return episodes * len(self.tasks) + (len(references_of(stream, range(episodes))) if self.guarded else 0)


@dataclass(frozen=True)
class SharedTaskSet:
    """A :class:`TaskSet` for other processes, which have its tasks already; for the other attributes, see there.

    Attributes:
        chosen: Which of the tasks; all by default.
    """

    tasks: Constant[tuple[Any, ...]]
    scales: tuple[float, ...]
    weight: float
    guarded: bool
    chosen: tuple[int, ...] | None = None

    @property
    def value(self) -> TaskSet:
        """The set itself."""
        tasks = self.tasks.value if self.chosen is None else tuple(self.tasks.value[i] for i in self.chosen)
        return TaskSet(tasks, self.scales, self.weight, self.guarded)

    def apart(
        self,
        workers: Workers,
        rule: UpdateRule,
        seed: int,
        stream: Stream,
        episodes: Sequence[int],
        values: Mapping[str, Tensor],
        clock: Clock,
    ) -> list[float]:
        """Mean objective of a rule for each of some values, [C], ``lr`` among them or not, one item each for workers.

        References are trained side by side, whatever the tasks allow: an item is one of them, for all values. If the
        clock expires, only for the first values.

        Raises:
            Interrupted: The clock expired or was cancelled before any was measured.
        """
        own = {name: column for name, column in values.items() if name != "lr"}
        rate = values.get("lr")
        here = clock if workers.jobs == 1 else None
        factors = torch.ones(len(next(iter(values.values()))))
        if self.guarded:
            mapped = partial(workers.map, clock=clock)
            factors = self.value.penalty(rule, seed, stream, episodes, rate, own, here, mapped=mapped)
        measure = partial(_alone, replace(self, guarded=False), rule, seed, stream, episodes, here)
        items = [{name: column[c : c + 1] for name, column in values.items()} for c in range(len(factors))]
        found: list[float] = []
        wave = workers.jobs if clock.limited else len(items)
        for first in range(0, len(items), wave):
            try:
                if first:
                    clock.check()
                found += workers.map(measure, items[first : first + wave], clock)
            except Interrupted:
                if not found:
                    raise
                break
        return _penalised(torch.tensor(found, dtype=torch.float64), factors[: len(found)].double()).tolist()


def _penalised(losses: Tensor, factors: Tensor) -> Tensor:
    """Losses, which can be negative, with a penalty; what is lost stays infinite."""
    return finite_or_inf(losses + losses.abs() * (factors - 1))


def _alone(
    task_set: SharedTaskSet,
    rule: UpdateRule,
    seed: int,
    stream: Stream,
    episodes: Sequence[int],
    clock: Clock | None,
    values: Mapping[str, Tensor],
) -> float:
    """Mean objective for one row of values, in a worker."""
    own = {name: value for name, value in values.items() if name != "lr"}
    return float(task_set.value.run(rule, seed, stream, episodes, values.get("lr"), own, clock).mean())


def _problems(
    task: Task | TaskMixture, seed: int, stream: Stream, episodes: Sequence[int]
) -> Iterator[tuple[Task, Sequence[int]]]:
    if isinstance(task, TaskMixture):
        yield from ((drawn_task(task, seed, stream, episode), [episode]) for episode in episodes)
    else:
        yield task, episodes
