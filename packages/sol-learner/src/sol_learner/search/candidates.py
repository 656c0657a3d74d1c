"""Evaluate rules that differ only in their coefficients, in parallel, on unused episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from sol_learner.inner.full_gradient import GRADIENT_COST
from sol_learner.inner.task_set import SharedTaskSet, TaskSet
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.ranks import Ranks
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.search.space import SearchSpace
from sol_learner.search.terms import losses_together
from sol_learner.task import Stream
from sol_symbols import UpdateRule

__all__ = ["CandidateEvaluator"]

Item = TypeVar("Item")

_WIDTH = 64  # trainings side by side in a validation


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
        tasks: The tasks, if the workers have them already.

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
        tasks: Constant[tuple[Any, ...]] | None = None,
    ) -> None:
        self.task_set, self.seed, self.validation, self.clock = task_set, seed, validation, clock or Clock()
        self.checkpoints, self.ranks, self.workers = (
            checkpoints or Checkpoints(),
            ranks or Ranks(),
            workers or Workers(),
        )
        shared = self.workers.constant(task_set.tasks) if tasks is None else tasks
        self._shared = SharedTaskSet(shared, task_set.scales, task_set.weight, task_set.guarded)
        self._alone = task_set.alone
        self._next, self._validated, self.trainings = first_episode, dict[str, float](), 0

    def start_workers(self, start: UpdateRule, lr: float, count: int) -> None:
        """Warm up the worker processes on ``count`` candidates in the background."""
        measure = partial(_tried, self._shared, start, self.seed, count)
        self.workers.start(measure, lr)

    def fresh(self, count: int) -> range:
        """Indices of ``count`` unused episodes of the training stream."""
        self._next += count
        return range(self._next - count, self._next)

    def losses(self, rule: UpdateRule, values: Mapping[str, Tensor], episodes: int) -> list[float]:
        """Mean objective of a rule for each of some values, [C], over new episodes; large if it diverges.

        If the clock expires, only for the first values.

        Raises:
            Interrupted: The clock expired or was cancelled before any was measured.
        """
        stretch = self.fresh(episodes)
        table = torch.stack([*values.values()], 1)
        measured = partial(self._measured, rule, [*values], table, stretch)
        self.clock.check()
        losses: list[float] = self.checkpoints.once(f"candidates/{stretch.start}", measured, together=True)
        self.trainings += len(losses) * self.task_set.trainings(Stream.TRAIN, episodes)
        return losses

    def gradient(self, space: SearchSpace, point: numpy.ndarray, episodes: int) -> tuple[float, numpy.ndarray]:
        """The mean objective at a point, [size], over new episodes, and the gradient of the mean of its logarithms.

        Penalties are left out. See :func:`~sol_learner.inner.full_gradient.relative_gradient`.

        Raises:
            SolError, RuntimeError: There is no gradient.
            Interrupted: The clock expired or was cancelled.
        """
        stretch = self.fresh(episodes)
        parts = _shared(stretch, self.ranks.size * self.workers.jobs)
        measure = partial(_gradient, self._shared, space, point, self.seed, self._local_clock)
        self.clock.check()
        rows = self.checkpoints.once(
            f"gradient/{stretch.start}",
            lambda: self.ranks.gathered(self.workers.map(measure, self.ranks.own(parts), self.clock)),
            together=True,
        )
        self.trainings += GRADIENT_COST * episodes * len(self.task_set.tasks)
        shares = numpy.array([len(part) / episodes for part in parts])
        losses, gradients = zip(*rows)
        return float(shares @ losses), shares @ numpy.array(gradients)

    def _measured(self, rule: UpdateRule, names: list[str], table: Tensor, episodes: range) -> list[float]:
        if self._alone and self.ranks.size == 1:  # ranks stop together
            columns = {name: table[:, column] for column, name in enumerate(names)}
            own = self._shared.apart(self.workers, rule, self.seed, Stream.TRAIN, episodes, columns, self.clock)
            return [min(loss, 1e30) for loss in own]
        shares = _shared(self.ranks.own(list(table)), self.workers.jobs)
        measure = partial(_losses, self._shared, rule, names, self.seed, episodes, self._local_clock)
        losses = self.workers.map(measure, shares, self.clock)
        return self.ranks.gathered([loss for share in losses for loss in share])

    def validated(self, rules: Sequence[UpdateRule]) -> list[float]:
        """Mean objective of each rule over the validation stream; results are cached.

        Raises:
            Interrupted: The clock expired or was cancelled.
        """
        new = {rule.digest: rule for rule in rules if rule.digest not in self._validated}
        if new:
            self.trainings += len(new) * self.task_set.trainings(Stream.VALID, self.validation)
            own = self.ranks.own([*new.values()])
            shares = _shared(own, max(self.workers.jobs, -(-len(own) * self.validation // _WIDTH)))
            measure = partial(_validation, self._shared, self.seed, range(self.validation), self._local_clock)

            def measured() -> list[float]:
                results = self.workers.map(measure, shares, self.clock)
                return self.ranks.gathered([loss for share in results for loss in share])

            self.clock.check()
            losses = self.checkpoints.once(f"validated/{'+'.join(new)}", measured, together=True)
            self._validated |= zip(new, losses)
        return [self._validated[rule.digest] for rule in rules]

    @property
    def _local_clock(self) -> Clock | None:
        """The clock for work in this process; it cannot be shared with other processes."""
        return self.clock if self.workers.jobs == 1 else None


def _tried(task_set: SharedTaskSet, start: UpdateRule, seed: int, count: int, lr: float) -> None:
    unguarded = replace(task_set.value, guarded=False)
    unguarded.run(start, seed, Stream.TUNE, [0], torch.full((count,), lr, dtype=torch.float64))


def _shared(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """The items in order, in ``count`` shares of about the same size, or fewer; none is empty."""
    shares = [items[i * len(items) // count : (i + 1) * len(items) // count] for i in range(count)]
    return [share for share in shares if len(share)]


def _validation(
    task_set: SharedTaskSet,
    seed: int,
    episodes: range,
    clock: Clock | None,
    rules: Sequence[UpdateRule],
) -> list[float]:
    """Mean objective of each of the rules, side by side."""

    def losses(rule: UpdateRule, values: dict[str, Tensor]) -> Tensor:
        return task_set.value.run(rule, seed, Stream.VALID, episodes, values.pop("lr"), values, clock).mean(1)

    return losses_together(rules, losses)


def _losses(
    task_set: SharedTaskSet,
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


def _gradient(
    task_set: SharedTaskSet,
    space: SearchSpace,
    point: numpy.ndarray,
    seed: int,
    clock: Clock | None,
    episodes: Sequence[int],
) -> tuple[float, list[float]]:
    at = torch.from_numpy(point)
    loss, gradient = task_set.value.relative_gradient(space.open_rule, space.numbers, at, seed, episodes, clock)
    return loss, gradient.tolist()
