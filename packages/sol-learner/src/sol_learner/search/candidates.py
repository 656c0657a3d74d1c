"""Evaluate rules that differ only in their coefficients, in parallel, on unused episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy
import sympy
import torch
from torch import Tensor

from sol_learner.inner.side_by_side import vectorizes
from sol_learner.inner.task_set import TaskSet
from sol_learner.mixture import TaskMixture
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.ranks import Ranks
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.search.terms import opened
from sol_learner.task import Stream
from sol_symbols import UpdateRule

__all__ = ["CandidateEvaluator"]


class CandidateEvaluator:
    """Evaluates candidates; all candidates of a call share their episodes (common random numbers).

    Args:
        task_set: The tasks.
        seed: Base seed.
        first_episode: First unused index in the training stream.
        validation: Number of validation episodes for selecting rules.
        clock: Source of interrupts.
        checkpoints: Stores every result.
        ranks, workers: Processes that share the candidates.

    Attributes:
        trainings: Trainings so far.
    """

    def __init__(
        self,
        task_set: TaskSet,
        seed: int,
        first_episode: int,
        validation: int,
        clock: Clock | None = None,
        checkpoints: Checkpoints | None = None,
        ranks: Ranks | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.task_set, self.seed, self.validation, self.clock = task_set, seed, validation, clock or Clock()
        self.checkpoints, self.ranks, self.workers = (
            checkpoints or Checkpoints(),
            ranks or Ranks(),
            workers or Workers(),
        )
        self._constant = self.workers.constant(task_set)
        self._alone = any(not isinstance(task, TaskMixture) and not vectorizes(task) for task in task_set.tasks)
        self._next, self._validated, self.trainings = first_episode, dict[str, float](), 0

    def start_workers(self, start: UpdateRule, lr: float, count: int) -> None:
        """Warm up the worker processes on ``count`` candidates in the background."""
        measure = partial(_tried, self._constant, start, self.seed, count)
        self.workers.start(measure, lr)

    def fresh(self, count: int) -> range:
        """Indices of ``count`` unused episodes of the training stream."""
        self._next += count
        return range(self._next - count, self._next)

    def losses(
        self,
        rule: UpdateRule,
        units: Sequence[sympy.Expr],
        coefficients: numpy.ndarray,
        episodes: int,
        constants: Mapping[str, numpy.ndarray] | None = None,
    ) -> list[float]:
        """Mean objective of each row of ``coefficients``, [C, k], over new episodes; large if it diverges.

        If the clock expires, only of the first rows.

        ``constants`` replace values of the rule, [C] each.

        Raises:
            Interrupted: The clock expired or was cancelled before any was measured.
        """
        open_rule, names = opened(units, rule.values, rule.vocabulary)
        open_rule = replace(open_rule, lr=rule.lr)
        stretch = self.fresh(episodes)
        names += [*(constants or {})]
        table = numpy.column_stack([coefficients, *(constants or {}).values()])
        measured = partial(self._measured, open_rule, names, torch.from_numpy(table), stretch)
        self.clock.check()
        losses: list[float] = self.checkpoints.once(f"candidates/{stretch.start}", measured, together=True)
        self.trainings += len(losses) * self.task_set.trainings(Stream.TRAIN, episodes)
        return losses

    def _measured(self, rule: UpdateRule, names: list[str], table: Tensor, episodes: range) -> list[float]:
        own, jobs = self.ranks.own(list(table)), self.workers.jobs
        parts = len(own) if self._alone and self.ranks.size == 1 else jobs  # ranks stop together
        shares = [own[i * len(own) // parts : (i + 1) * len(own) // parts] for i in range(parts)]
        shares = [share for share in shares if len(share)]
        measure = partial(_losses, self._constant, rule, names, self.seed, episodes, self._local_clock)
        losses: list[float] = []
        for first in range(0, len(shares), jobs):
            try:
                if first:
                    self.clock.check()
                results = self.workers.map(measure, shares[first : first + jobs], self.clock)
            except Interrupted:
                if not losses:
                    raise
                break
            losses += [loss for share in results for loss in share]
        return self.ranks.gathered(losses)

    def validated(self, rules: Sequence[UpdateRule]) -> list[float]:
        """Mean objective of each rule over the validation stream; results are cached.

        Raises:
            Interrupted: The clock expired or was cancelled.
        """
        new = {rule.digest: rule for rule in rules if rule.digest not in self._validated}
        if new:
            self.trainings += len(new) * self.task_set.trainings(Stream.VALID, self.validation)
            measure = partial(_validation, self._constant, self.seed, range(self.validation), self._local_clock)
            self.clock.check()
            losses = self.checkpoints.once(
                f"validated/{'+'.join(new)}",
                lambda: self.ranks.gathered(self.workers.map(measure, self.ranks.own([*new.values()]), self.clock)),
                together=True,
            )
            self._validated |= zip(new, losses)
        return [self._validated[rule.digest] for rule in rules]

    @property
    def _local_clock(self) -> Clock | None:
        """The clock for work in this process; it cannot be shared with other processes."""
        return self.clock if self.workers.jobs == 1 else None


def _tried(task_set: Constant[TaskSet], start: UpdateRule, seed: int, count: int, lr: float) -> None:
    task_set.value.run(start, seed, Stream.TUNE, [0], torch.full((count,), lr, dtype=torch.float64))


def _validation(
    task_set: Constant[TaskSet], seed: int, episodes: range, clock: Clock | None, rule: UpdateRule
) -> float:
    return float(task_set.value.run(rule, seed, Stream.VALID, episodes, clock=clock).mean())


def _losses(
    task_set: Constant[TaskSet],
    rule: UpdateRule,
    names: Sequence[str],
    seed: int,
    episodes: Sequence[int],
    clock: Clock | None,
    candidates: Sequence[Tensor],
) -> list[float]:
    table = torch.stack(list(candidates))
    values = {name: table[:, column] for column, name in enumerate(names)}
    losses = task_set.value.run(rule, seed, Stream.TRAIN, episodes, values=values, clock=clock).mean(1)
    return losses.clamp(max=1e30).tolist()
