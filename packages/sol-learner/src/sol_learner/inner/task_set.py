"""The tasks that one rule is learned for, and the objective that compares rules on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sol_learner.inner.episodes import Value, objective, run_rule, shares
from sol_learner.inner.optimizees import Optimizees
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Task
from sol_symbols import UpdateRule

__all__ = ["TaskSet"]


@dataclass(frozen=True)
class TaskSet:
    """One task or several.

    Attributes:
        tasks: The tasks.
        scales: Divisor of each task's losses: with several tasks, the tuned start's objective, so that all tasks count
            the same; else 1.
        weight: Weight of the training loss in the objective.
    """

    tasks: tuple[Task, ...]
    scales: tuple[float, ...]
    weight: float

    @property
    def name(self) -> str:
        """The tasks' names."""
        return ", ".join(task.name for task in self.tasks)

    @property
    def horizon(self) -> int | None:
        """The horizon of the tasks, ``None`` where they differ."""
        horizons = {task.horizon for task in self.tasks}
        return horizons.pop() if len(horizons) == 1 else None

    def mean(self, measure: Callable[[Task], Tensor]) -> Tensor:
        """Mean over tasks of ``measure(task)`` divided by the task's scale."""
        values = [measure(task) / scale for task, scale in zip(self.tasks, self.scales)]
        return sum(values[1:], values[0]) / len(values)

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
        """Objective [C, S] of a rule; see :func:`~sol_learner.inner.run_rule` for the arguments."""

        def measure(task: Task) -> Tensor:
            outcome = run_rule(task, rule, seed, stream, episodes, lr, values, self.splits, clock=clock)
            return outcome.objective(self.weight)

        return self.mean(measure)
