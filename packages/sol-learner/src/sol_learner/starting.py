"""The rule that learning starts from, and its learning rate: several are measured on the tuning stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor

from sol_learner.config import LearnConfig
from sol_learner.inner.rates import growing_decays, learning_rates, nearby_rates, priors_of, tune_learning_rate
from sol_learner.inner.references import CHOOSING, REFERENCES
from sol_learner.inner.task_set import SharedTaskSet, TaskSet
from sol_learner.mixture import TaskMixture
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.task import Stream, Task
from sol_symbols import ZOO, SolError, UpdateRule, symbol

__all__ = ["Start", "StartFinder", "Tuning", "reference_of", "starts_of"]

Tuning = list[tuple[float, float]]
"""Learning rates with the mean objective of each."""

NEARLY = 0.03
"""A guarded start has the smallest rate whose objective is this close to the best, relatively: it leaves more room."""


@dataclass
class Start:
    """Where learning starts.

    Attributes:
        rule: The rule, without its learning rate.
        task_set: The tasks, each scaled by the loss of its tuned reference if there are several.
        lr: The learning rate: one for all tasks.
        tunings: Learning rate of the reference on each task, with all measurements behind it.
        objectives: Best objective of each start that was measured, where there was a choice.
        trainings: Trainings that all of this took.
    """

    rule: UpdateRule
    task_set: TaskSet
    lr: float
    tunings: dict[str, tuple[float, Tuning]] = field(default_factory=dict)
    objectives: dict[str, float] = field(default_factory=dict)
    trainings: int = 0


def reference_of(config: LearnConfig) -> UpdateRule:
    """The rule whose learning rate is tuned first: the start that the settings name, Adam if that is a prior."""
    return ZOO["adam" if config.priors else config.start]


def starts_of(members: Sequence[Task], config: LearnConfig) -> tuple[str, ...]:
    """The priors that are measured as starts; none if a network is meta-trained."""
    if config.episodes:
        return ()
    return priors_of(members) if config.start in ("auto", "prior") else config.priors


class StartFinder:
    """Tunes the reference on each task; measures the priors, the best also with weight decay, if they may be the start.

    Args:
        members: Tasks and mixtures of tasks.
        config: Settings of the run.
        guarded: Whether a start must train the reference networks, too.
        checkpoints, progress, clock: Those of the run.
        workers: Share what cannot be measured side by side.
        shared: ``members``, if the workers have them already.
    """

    def __init__(
        self,
        members: Sequence[Task],
        config: LearnConfig,
        guarded: bool,
        checkpoints: Checkpoints,
        progress: Progress,
        clock: Clock,
        workers: Workers | None = None,
        shared: Constant[tuple[Task, ...]] | None = None,
    ) -> None:
        self.members, self.config, self.guarded = tuple(members), config, guarded
        self.workers = workers or Workers()
        self.shared = self.workers.constant(self.members) if shared is None else shared
        self.tasks = tuple(task for task in members if not isinstance(task, TaskMixture))
        self.checkpoints, self.progress, self.clock = checkpoints, progress, clock
        self.reference, self.priors = reference_of(config), starts_of(members, config)
        self.stretch = config.seed, Stream.TUNE, range(config.tuning_episodes)

    def run(self) -> Start:
        """The start.

        Raises:
            SolError: No learning rate trains one of the tasks, or the settings do not fit a mixture.
            Interrupted: By the clock.
        """
        config = self.config
        if len(self.members) == 1 and config.start != "auto" and config.priors and not config.episodes:
            return self._chosen(self._set(self.members), {}, math.nan, math.inf)
        tunings = self._tuned()
        if len(self.members) > len(self.tasks):
            scales = (1.0,) * len(self.members)
            return self._chosen(TaskSet(self.members, scales, config.objective), tunings, math.nan, math.inf)
        if len(self.tasks) == 1:
            ((lr, measured),) = tunings.values()
            return self._chosen(self._set(self.tasks), tunings, lr, min(loss for _, loss in measured))
        lowest = [min(loss for _, loss in measured) for _, measured in tunings.values()]
        task_set = self._set(self.tasks, tuple(abs(loss) or 1.0 for loss in lowest))
        own = [rate for rate, _ in tunings.values()]
        middle, width = math.sqrt(min(own) * max(own)), (max(own) / min(own)) ** (1 / 8)
        rates = learning_rates(middle, max(width, 2 ** (1 / 8)), 9)
        losses = self._measured("task_set", task_set, self.reference, lr=rates)
        return self._chosen(task_set, tunings, float(rates[int(numpy.argmin(losses))]), min(losses))

    def _set(self, tasks: tuple[Task, ...], scales: tuple[float, ...] = (1.0,)) -> TaskSet:
        return TaskSet(tasks, scales, self.config.objective, self.guarded)

    def _tuned(self) -> dict[str, tuple[float, Tuning]]:
        """The reference's learning rate on each task."""
        config, tunings = self.config, dict[str, tuple[float, Tuning]]()
        self.progress.phase(Phase.TUNE, f"tuning {self.reference.name}", len(self.tasks))
        for number, task in enumerate(self.tasks, 1):
            sizes = self.reference, config.seed, config.tuning_episodes
            task_set = TaskSet((task,), (1.0,), config.objective)
            several = partial(self._objectives, task_set, self.reference) if self._shares(task_set) else None
            options: dict[str, Any] = {"clock": self.clock, "weight": config.objective, "objectives": several}
            tuned = partial(tune_learning_rate, task, *sizes, **options)
            lr, measured = self.checkpoints.once(f"tune/{task.name}", tuned)
            tunings[task.name] = (lr, [(rate, loss) for rate, loss in measured])
            self.progress.step(number, lr=lr, loss=min(loss for _, loss in measured))
        return tunings

    def _measured(self, key: str, task_set: TaskSet, rule: UpdateRule, **options: Any) -> list[float]:
        """Mean objective of each variant of a rule."""

        return list(self.checkpoints.once(f"tune/{key}", partial(self._objectives, task_set, rule, **options)))

    def _objectives(
        self, task_set: TaskSet, rule: UpdateRule, lr: Tensor, values: Mapping[str, Tensor] | None = None
    ) -> list[float]:
        """Mean objective of a rule at each of some rates, and values."""
        if not self._shares(task_set):
            return task_set.run(rule, *self.stretch, lr, values, self.clock).mean(1).tolist()
        chosen = tuple(next(i for i, member in enumerate(self.members) if member is task) for task in task_set.tasks)
        own = SharedTaskSet(self.shared, task_set.scales, task_set.weight, task_set.guarded, chosen)
        return own.apart(self.workers, rule, *self.stretch, {"lr": lr, **(values or {})}, self.clock)

    def _shares(self, task_set: TaskSet) -> bool:
        """Whether the workers share what is measured on a set."""
        return self.workers.jobs > 1 and task_set.alone

    def _chosen(self, task_set: TaskSet, tunings: dict[str, tuple[float, Tuning]], lr: float, loss: float) -> Start:
        """The best prior, or with start auto the reference if that is better.

        Every prior but the first is measured at its own rate; only if it is better there than the best before it is at
        its own, other rates are tried, too.

        Args:
            task_set: The tasks.
            tunings: See :class:`Start`.
            lr, loss: Learning rate and objective of the tuned reference.
        """
        config, several = self.config, len(self.tasks) > 1
        mixed = len(self.members) > len(self.tasks)
        priors = self.priors
        if mixed and "sol-general" not in priors:
            raise SolError("a mixture of tasks needs start = sol-general and episodes = 0")
        spent = sum(len(measured) for _, measured in tunings.values()) + (9 * len(self.tasks) if several else 0)
        start = Start(self.reference, task_set, lr, tunings)
        if priors and loss < math.inf:
            start.objectives = {f"{self.reference.name}-constant": loss}
        tried, best, chosen, to_beat = 0, math.inf, "", math.inf
        for name in priors[: 1 if mixed else None]:
            rule, rates = ZOO[name], nearby_rates(ZOO[name])
            if tried:
                tried += 1
                (found,) = self._measured(f"{name}, its own rate", task_set, rule, lr=torch.tensor([rule.lr]))
                start.objectives[name] = found
                if not found < to_beat:
                    continue
            losses = self._measured(name, task_set, rule, lr=rates)
            tried += len(rates)
            start.objectives[name] = min(losses)
            if min(losses) < best:
                best, chosen, to_beat = min(losses), name, losses[len(losses) // 2]
                enough = best + (NEARLY * abs(best) if self.guarded else 0.0)
                rate = next(rate for rate, loss in zip(rates.tolist(), losses) if loss <= enough)
        if chosen and (config.start != "auto" or mixed or best < loss):
            start.rule, start.lr = ZOO[chosen], rate
            if task_set.horizon is not None:
                tried += self._decayed(start, task_set.horizon, best)
        elif math.isnan(lr):
            raise SolError(f"{priors[0]} does not train {task_set.name} at any of five rates: the loss is not finite")
        known = tried + (9 if several else 0)
        guards = known * CHOOSING + REFERENCES + 2 * CHOOSING if self.guarded else 0  # with those of sol-general
        start.trainings = (spent + tried * len(self.members)) * config.tuning_episodes + guards
        return start

    def _with_decays(
        self, kind: str, task_set: TaskSet, rule: UpdateRule, rates: Sequence[float], decays: Sequence[float]
    ) -> list[float]:
        """Mean objective of a rule at some rates, each with its weight decay."""
        lr, wd = (torch.tensor(numbers, dtype=torch.float64) for numbers in (rates, decays))
        return self._measured(f"{kind} {decays}", task_set, rule, lr=lr, values={"wd": wd})

    def _decayed(self, start: Start, horizon: int, loss: float) -> int:
        """Give the start decoupled weight decay if that is better by :data:`NEARLY`; returns how many were tried.

        It is constant, or falls like the rule's power decay, pd, whose mean is 1/(1 + decay_power).

        Args:
            start: The start without weight decay; changed.
            horizon: Steps of an episode.
            loss: Its lowest objective.
        """
        before, rates, tried, lowest = start.rule, [start.lr, 2 * start.lr], 0, loss - NEARLY * abs(loss)
        power = before.values.get("decay_power", before.vocabulary.hyperparameters["decay_power"].default)
        falling = 1 / (1 + (power or 0.0))
        for kind, schedule, mean in (("weight decay", 1, 1.0), ("weight decay that falls", symbol("pd"), falling)):
            decayed = before.with_weight_decay(0.0, schedule)
            measure = partial(self._with_decays, kind, start.task_set, decayed, rates)
            found = growing_decays(measure, rates, horizon * mean, loss)
            lr, wd, best = min(found, key=lambda pair: pair[-1])
            start.objectives |= {f"{before.name} with {kind}": best}
            if best < lowest:
                lowest, start.rule, start.lr = best, decayed.with_weight_decay(wd), lr
            tried += len(found)
        return tried
