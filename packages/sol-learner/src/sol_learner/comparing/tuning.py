"""Tuning: the best settings of each optimizer within a number of trainings, on episodes that evaluation does not use.

The search of one optimizer, whose trainings are all of the same length:

1. Rates: eight learning rates over seven decades, all else at its default. They fix a window of two decades.
2. Quasi-random settings (scrambled Sobol points) over the whole space, in this window: a quarter of the trainings.
3. TPE from Optuna (Bergstra et al. 2011; multivariate, with constant liar), in batches.
4. Finals: the best few train on further episodes; the best mean over all episodes wins. This keeps a lucky episode
   from choosing.

Few trainings, fewer than :data:`FEW`, do not cover the space. They start from what people use, :data:`USUAL`: four
learning rates a decade apart, further ones until the best is not the lowest or highest, then those half-way to its
neighbours. TPE goes on within half a decade of the best, in batches of half the size. There is no second stage.

Each setting trains on the same few episodes. With ``halving``, only the better half of a batch goes on to the second
episode, the better half of those to the third, and so on (successive halving): this is for tasks whose trainings
cannot run side by side. Settings with different episodes are compared after subtracting the episodes' medians.

All searches advance in rounds. The trainings of a round are independent, so that they can run side by side or in
several processes; the result does not depend on where.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy

from sol_learner.comparing.spaces import Dimension, Settings, settled
from sol_learner.runtime.progress import Progress

__all__ = ["FINALS", "FIRST_RATES", "Request", "tune_side_by_side"]

FIRST_RATES = (1e-2, 1e-3, 1e-1, 1e-4, 1.0, 10.0, 1e-5, 100.0)
"""Learning rates of the first settings, the most likely ones first."""

FIRST_FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0)
"""The same, as factors of a learning rate that is known to work elsewhere."""

WINDOW = 12.0
"""The search goes on between the best rate divided and multiplied by this factor."""

BATCH = 8
"""Settings per round."""

FEW, NEAR = 32, 3.2
"""From how many settings on the whole space is searched; and the factor of :data:`WINDOW` below that."""

USUAL: Settings = {"warmup": 0.05, "schedule": "linear"}
"""The schedule that a search of few settings starts from."""

FINALS = ((1 / 20, 3), (1 / 48, 8))
"""Rounds of the finals: the number of settings per training of the budget, and their further episodes."""

Request = tuple[Settings, Sequence[int]]
"""Settings, and the episodes to train on."""

_Search = Generator[list[Request], list[list[float]], None]


@dataclass
class _Entry:
    """Settings that were tried, and their losses by episode."""

    settings: Settings
    losses: dict[int, float] = field(default_factory=dict)
    score: float = math.inf
    """Mean loss over its episodes; with halving, each less the median over all settings that know all episodes."""


def tune_side_by_side(
    spaces: Mapping[str, Sequence[Dimension]],
    measure: Callable[[list[tuple[str, Request]]], list[list[float]]],
    trainings: int,
    episodes: int,
    seed: int,
    progress: Progress,
    halving: Set[str] = frozenset(),
) -> dict[str, list[dict[str, Any]]]:
    """Search each space for the settings with the lowest loss.

    Args:
        spaces: Search space by optimizer; the first dimension is the learning rate.
        measure: Losses of each (optimizer, request), one per episode; infinite if a run diverged.
        trainings: Trainings per optimizer.
        episodes: Episodes per setting in the search, E; the finals use the next :data:`FURTHER`.
        seed: Seed of the samplers.
        progress: Advances by the trainings of each optimizer.
        halving: Names of optimizers whose bad settings are dropped after part of the episodes.

    Returns:
        For each optimizer, ``{"settings", "objective", "losses"}`` of every setting tried: the mean loss, ``None`` if
        it is not finite, and the losses by episode. The best setting comes first.
    """
    tried: dict[str, list[_Entry]] = {name: [] for name in spaces}
    budgets = {name: _Budget(trainings, min(episodes, trainings), name in halving) for name in spaces}
    searches = {name: _search(space, budgets[name], tried[name], seed) for name, space in spaces.items()}
    waiting = {name: next(search) for name, search in searches.items()}
    while waiting:
        flat = [(name, request) for name, requests in waiting.items() for request in requests]
        losses = iter(measure(flat))
        answers = {name: [next(losses) for _ in requests] for name, requests in waiting.items()}
        waiting = {}
        for name, answer in answers.items():
            try:
                waiting[name] = searches[name].send(answer)
            except StopIteration:
                continue
        progress.step(max(_spent(entries) for entries in tried.values()))
    return {name: [_row(entry) for entry in _ranked(entries, budgets[name])] for name, entries in tried.items()}


@dataclass(frozen=True)
class _Budget:
    trainings: int
    episodes: int
    halving: bool

    @property
    def finals(self) -> list[tuple[int, int]]:
        """Settings and further episodes of each round of the finals; none where only one setting would get there."""
        rounds = [(int(share * self.trainings), episodes) for share, episodes in FINALS]
        return [(count, episodes) for count, episodes in rounds if count > 1]

    @property
    def search(self) -> int:
        """Trainings of the search, without the finals."""
        return self.trainings - sum(count * episodes for count, episodes in self.finals)

    def cost(self, settings: int) -> int:
        """Trainings of a batch of settings."""
        return sum(self._kept(settings, episode) for episode in range(self.episodes))

    def rungs(self, settings: int) -> list[int]:
        """Settings that train on each episode."""
        return [self._kept(settings, episode) for episode in range(self.episodes)]

    def _kept(self, settings: int, episode: int) -> int:
        return -(-settings // 2**episode) if self.halving else settings

    def affordable(self, spent: int, settings: int) -> int:
        """At most ``settings``, as many as are paid for."""
        while settings and spent + self.cost(settings) > self.search:
            settings -= 1
        return settings


def _search(space: Sequence[Dimension], budget: _Budget, tried: list[_Entry], seed: int) -> _Search:
    """Yields requests and receives their losses, until the budget is spent."""
    few = budget.affordable(0, FEW) < FEW
    yield from _rates_of_few(space, budget, tried) if few else _rates(space, budget, tried)
    factor, size = (NEAR, BATCH // 2) if few else (WINDOW, BATCH)
    best = float(_ranked(tried, budget)[0].settings["lr"])
    space = [Dimension("lr", None, best / factor, best * factor), *space[1:]]
    random = (0.0 if few else 0.25 * budget.search) + _spent(tried)
    points = iter(_sobol(space, budget.search, seed))
    sampler = _Sampler(space, seed, budget.halving)
    while count := budget.affordable(_spent(tried), size):
        quasi_random = _spent(tried) < random
        batch = [next(points) for _ in range(count)] if quasi_random else sampler.propose(count, tried)
        yield from _measured(batch, budget, tried)
    begin = budget.episodes
    for count, further in budget.finals:
        finalists = _ranked(tried, budget)[:count]
        stretch = range(begin, begin + further)
        answers = yield [(entry.settings, stretch) for entry in finalists]
        for entry, losses in zip(finalists, answers):
            entry.losses |= zip(stretch, losses)
        begin += further


def _defaults(space: Sequence[Dimension]) -> dict[str, float | str]:
    return {d.name: d.default for d in space if d.default is not None}


def _rates(space: Sequence[Dimension], budget: _Budget, tried: list[_Entry]) -> _Search:
    """The first stage: rates of :data:`FIRST_RATES`, or near the known one, for at most half of the trainings."""
    known = space[0].default
    first = FIRST_RATES if known is None else [float(known) * factor for factor in FIRST_FACTORS]
    half = -(-budget.search // (2 * budget.episodes))
    rates = first[: max(1, budget.affordable(0, min(len(first), half)))]
    yield from _measured([{**_defaults(space), "lr": lr} for lr in rates], budget, tried)


def _rates_of_few(space: Sequence[Dimension], budget: _Budget, tried: list[_Entry]) -> _Search:
    """The first stage of few settings: rates until the best has neighbours, and those half-way to them."""
    rate, known = space[0], space[0].default
    first = FIRST_RATES[:4] if known is None else [float(known) * factor for factor in FIRST_FACTORS[:3]]
    between = 10.0 if known is None else 2.0
    names = {dimension.name for dimension in space}
    others = _defaults(space) | {name: value for name, value in USUAL.items() if name in names}

    def measured(rates: Sequence[float]) -> _Search:
        if count := budget.affordable(_spent(tried), len(rates)):
            yield from _measured([{**others, "lr": float(f"{lr:.3g}")} for lr in rates[:count]], budget, tried)

    yield from measured(first)
    while budget.affordable(_spent(tried), 1):
        best, *_ = ranked = [float(entry.settings["lr"]) for entry in _ranked(tried, budget)]
        beyond = best / between if best == min(ranked) else best * between if best == max(ranked) else math.nan
        if not rate.low <= beyond <= rate.high:
            break
        yield from measured([beyond])
    best = float(_ranked(tried, budget)[0].settings["lr"])
    yield from measured([best / between**0.5, best * between**0.5])


def _measured(batch: Sequence[Settings], budget: _Budget, tried: list[_Entry]) -> _Search:
    """Train each setting of a batch, with halving only the better ones on later episodes."""
    entries = [_Entry(settled(settings)) for settings in batch]
    rungs, alive, episode = budget.rungs(len(entries)), entries, 0
    while episode < len(rungs):
        end = episode + 1 if budget.halving else len(rungs)
        alive = sorted(alive, key=lambda e: sum(e.losses.values()))[: rungs[episode]] if episode else alive
        answers = yield [(entry.settings, range(episode, end)) for entry in alive]
        for entry, losses in zip(alive, answers):
            entry.losses |= zip(range(episode, end), losses)
        episode = end
    tried += entries
    whole = [e for e in tried if len(e.losses) == budget.episodes and all(map(math.isfinite, e.losses.values()))]
    compared = range(budget.episodes) if whole and budget.halving else ()
    middles = {e: statistics.median(entry.losses[e] for entry in whole) for e in compared}  # no huge loss moves it
    for entry in tried if budget.halving else entries:
        relative = [loss - middles.get(e, 0.0) for e, loss in entry.losses.items()]
        entry.score = sum(relative) / len(relative)


def _ranked(entries: Sequence[_Entry], budget: _Budget) -> list[_Entry]:
    """Best first: those that got furthest in the finals by their mean over all episodes, then the others by score."""

    def key(entry: _Entry) -> tuple[bool, int, float]:
        mean = sum(entry.losses.values()) / len(entry.losses)
        final = len(entry.losses) > budget.episodes
        return not math.isfinite(mean), -len(entry.losses) if final else 0, mean if final else entry.score

    return sorted(entries, key=key)


def _spent(entries: Sequence[_Entry]) -> int:
    return sum(len(entry.losses) for entry in entries)


def _row(entry: _Entry) -> dict[str, Any]:
    mean = sum(entry.losses.values()) / len(entry.losses)
    losses = [loss if math.isfinite(loss) else None for _, loss in sorted(entry.losses.items())]
    return {"settings": entry.settings, "objective": mean if math.isfinite(mean) else None, "losses": losses}


def _sobol(space: Sequence[Dimension], count: int, seed: int) -> list[Settings]:
    """Scrambled Sobol points of the space."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the balance of a power of two is of no use here
        points = qmc.Sobol(len(space), rng=numpy.random.default_rng(seed)).random(count)
    return [{d.name: d.at(float(u)) for d, u in zip(space, point)} for point in points]


class _Sampler:
    """TPE on everything that was tried; ``changing`` scores are read anew every time."""

    def __init__(self, space: Sequence[Dimension], seed: int, changing: bool) -> None:
        import optuna

        self._optuna, self._space = optuna, space
        self._changing, self._study, self._known = changing, None, 0
        self._distributions = {d.name: _distribution(optuna, d) for d in space}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=1, multivariate=len(space) > 1, constant_liar=True
            )

    def propose(self, count: int, tried: Sequence[_Entry]) -> list[Settings]:
        """The next settings."""
        optuna, before = self._optuna, self._optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if self._study is None or self._changing:
                self._study, self._known = optuna.create_study(sampler=self._sampler), 0
            study: Any = self._study
            study.add_trials([self._trial(entry) for entry in tried[self._known :] if self._inside(entry)])
            self._known = len(tried)
            asked = [study.ask(self._distributions) for _ in range(count)]
            for trial in asked:  # what it becomes will be added
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        finally:
            optuna.logging.set_verbosity(before)
        return [{d.name: _value(d, trial.params[d.name]) for d in self._space} for trial in asked]

    def _inside(self, entry: _Entry) -> bool:
        rate = self._space[0]
        return rate.low <= float(entry.settings["lr"]) <= rate.high

    def _trial(self, entry: _Entry) -> Any:
        inner = {d.name: _inner(d, entry.settings[d.name]) for d in self._space}
        score = entry.score if math.isfinite(entry.score) else _WORST
        return self._optuna.trial.create_trial(params=inner, distributions=self._distributions, value=score)


_WORST = 1e300  # TPE only uses the ranking of scores


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=True)


def _inner(dimension: Dimension, value: float | str) -> float | str:
    """A value in Optuna's parametrization, inside of the range."""
    if dimension.choices or isinstance(value, str):
        return value
    return min(max(1 - value if dimension.complement else value, dimension.low), dimension.high)


def _value(dimension: Dimension, inner: float | str) -> float | str:
    if isinstance(inner, str) or dimension.choices:
        return inner
    value = float(f"{inner:.3g}")
    return round(1 - value, 12) if dimension.complement else value
