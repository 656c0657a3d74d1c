"""Which rule trains a task best, at which learning rate and weight decay: a few are measured on the tuning stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sol_learner.inner.episodes import WEIGHT, Outcome, run_rule
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Task
from sol_symbols import ZOO, SolError, UpdateRule

__all__ = [
    "IDLE",
    "PRIORS",
    "SHRINKING",
    "choose_rule",
    "growing_decays",
    "learning_rates",
    "nearby",
    "nearby_rates",
    "priors_of",
    "shipped_rules",
    "tune_learning_rate",
]

PRIORS = ("sol-general", "sol-fits")
"""Zoo rules that were learned on many trainings. They are tried on a new task, and start a search of their numbers."""


def priors_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The zoo rules that are tried on tasks: those that all of them name in ``priors`` first, then :data:`PRIORS`.

    Raises:
        SolError: A task names a rule that is not in the zoo, or has no learning rate.
    """
    named = [tuple(getattr(task, "priors", ())) for task in tasks]
    for task, names in zip(tasks, named):
        for name in names:
            if name not in ZOO or ZOO[name].lr is None:
                raise SolError(f"priors of {task.name} must be zoo rules with a learning rate, got {name!r}")
    own = [name for name in named[0] if all(name in names for names in named)] if named else []
    return tuple(dict.fromkeys((*own, *PRIORS)))


IDLE = 0.95
"""A training whose objective is above this share of the first batches' loss has hardly begun."""


SHRINKING = (0.4, 0.8, 1.6, 3.2, 6.4)
"""Weight decays that are tried on a new task, as wd lr T; alone, they shrink the weights by a factor exp(-wd lr T)."""


def learning_rates(center: float, factor: float, count: int) -> Tensor:
    """``count`` log-spaced rates around ``center``, a factor of ``factor`` between neighbours, to three digits."""
    rates = center * factor ** (torch.arange(count, dtype=torch.float64) - (count - 1) / 2)
    return torch.tensor([float(f"{rate:.3g}") for rate in rates.tolist()], dtype=torch.float64)


def _rate_of(rule: UpdateRule) -> float:
    """The rule's learning rate.

    Raises:
        SolError: It has none.
    """
    if rule.lr is None:
        raise SolError(f"the rule {rule} has no learning rate; append one: where lr = ...")
    return rule.lr


def nearby_rates(rule: UpdateRule) -> Tensor:
    """The rates that are tried for a rule on a new task: a quarter, a half, one, two and four times its own.

    Raises:
        SolError: The rule has no learning rate.
    """
    return learning_rates(_rate_of(rule), 2.0, 5)


def nearby(rule: UpdateRule) -> list[UpdateRule]:
    """The rule at each of :func:`nearby_rates`."""
    return [replace(rule, lr=rate) for rate in nearby_rates(rule).tolist()]


def growing_decays(
    measure: Callable[[Sequence[float]], Sequence[float]],
    rates: Sequence[float],
    horizon: float,
    to_beat: float,
) -> list[tuple[float, float, float]]:
    """Measure decoupled weight decays, from the smallest of :data:`SHRINKING` on, while each is better than the last.

    Args:
        measure: Gives the objective at each rate, from its weight decay.
        rates: Learning rates; each gets the weight decay that shrinks the weights alike.
        horizon: Steps of a training, times the mean of the schedule of weight decay.
        to_beat: The objective that the smallest has to beat.

    Returns:
        Learning rate, weight decay to three digits, and objective of all that was measured.
    """
    tried = list[tuple[float, float, float]]()
    for shrinking in SHRINKING:
        decays = [float(f"{shrinking / (rate * horizon):.3g}") for rate in rates]
        losses = measure(decays)
        tried += zip(rates, decays, losses)
        if not min(losses) < to_beat:
            break
        to_beat = min(losses)
    return tried


def shipped_rules(task: Task) -> list[UpdateRule]:
    """The rules of :func:`priors_of`, each at five learning rates."""
    return [rule for name in priors_of([task]) for rule in nearby(ZOO[name])]


def choose_rule(
    task: Task,
    rules: Sequence[UpdateRule] | None = None,
    seed: int = 0,
    episodes: int = 1,
    weight: float = WEIGHT,
    clock: Clock | None = None,
    further: int = 0,
    decays: bool = False,
    report: Callable[[UpdateRule, float], None] = lambda rule, loss: None,
) -> list[tuple[UpdateRule, float]]:
    """A rule, its learning rate and weight decay for another task, each measured by a training on the tuning stream.

    A network that was trained before needs far smaller rates than a fresh one. So where the lowest rate of the best
    rule is the best, or nothing trains (the loss stays above :data:`IDLE` of that of the first batches), a quarter of
    the lowest is tried next, and so on; where the highest is the best, twice as much (where nothing trains, only if
    each higher rate is better).

    Args:
        task, seed, clock: As in :func:`run_rule`.
        rules: Rules with learning rates; by default, :func:`shipped_rules`.
        episodes: Episodes per rule and rate; the same for all.
        weight: Of the training loss in the objective.
        further: How many such rates may be tried.
        decays: Whether to try weight decay with the best, see :func:`growing_decays`.
        report: Called with each rule and its mean objective once they are measured: those of a task whose models train
            one after another one by one, else those of all rates of a rule.

    Returns:
        Every rule, with its learning rate and weight decay, and its mean objective, the best first.

    Raises:
        SolError: A rule has no learning rate, or the loss is not finite for any.
    """
    pending, found = list(shipped_rules(task) if rules is None else rules), list[tuple[UpdateRule, float]]()

    def measure(same: Sequence[UpdateRule]) -> Outcome:
        rates = torch.tensor([_rate_of(rule) for rule in same], dtype=torch.float64)
        outcome = run_rule(task, same[0], seed, Stream.TUNE, range(episodes), rates, clock=clock)
        measured = [*zip(same, outcome.objective(weight).mean(1).tolist())]
        for rule, loss in measured:
            report(rule, loss)
        found.extend(measured)
        return outcome

    for left in range(further, -1, -1):
        groups = [[*same] for _, same in itertools.groupby(pending, lambda rule: replace(rule, lr=None))]
        for same in groups if vectorizes(task) else [[rule] for rule in pending]:
            outcome = measure(same)
        found.sort(key=lambda pair: pair[1])
        best, lowest = found[0]
        tried = {_rate_of(rule): loss for rule, loss in found if replace(rule, lr=best.lr) == best}
        rate, rising = _rate_of(best), [tried[rate] for rate in sorted(tried)]
        begun = float(outcome.losses[0].mean())
        idle = begun > 0 and not lowest < IDLE * begun  # a loss below 0 is not what the objective measures
        up = rate == max(tried) and (not idle or all(a > b for a, b in itertools.pairwise(rising)))
        if not left or not (up or idle or rate == min(tried)):
            break
        pending = [replace(best, lr=2 * rate if up else min(tried) / 4)]
    if not found[0][1] < math.inf:
        tried_all = [(rule.lr, loss) for rule, loss in found]
        raise SolError(
            f"{found[0][0]} does not train {task.name}: the loss is not finite at any learning rate in {tried_all}"
        )
    if decays:
        best, lowest = found[0]

        def decayed(decays: Sequence[float]) -> list[float]:
            measure([best.with_weight_decay(decays[0])])
            return [found[-1][1]]

        growing_decays(decayed, [_rate_of(best)], task.horizon, lowest)
        found.sort(key=lambda pair: pair[1])
    return found


def tune_learning_rate(
    task: Task,
    rule: UpdateRule,
    seed: int,
    episodes: int = 4,
    horizon: int | None = None,
    clock: Clock | None = None,
    coarse: int = 9,
    fine: int = 9,
    weight: float = WEIGHT,
    objectives: Callable[[Tensor], Sequence[float]] | None = None,
) -> tuple[float, list[tuple[float, float]]]:
    """The learning rate with the lowest mean objective over the tuning stream.

    A coarse grid of powers of sqrt(10) is centred on 1e-2 and moved until its optimum is inside. Then a fine grid
    (a factor of 10**(1/8) between neighbours) is centred on the optimum.

    Args:
        task, rule, seed, horizon, clock: As in :func:`run_rule`.
        episodes: Episodes of the tuning stream; the same for every rate.
        coarse, fine: Number of rates in each grid.
        weight: Of the training loss in the objective.
        objectives: Measures the mean objective at several rates, if not this process alone does.

    Returns:
        The rate, and every (rate, mean objective) that was measured, sorted by rate.

    Raises:
        SolError: The loss is not finite at any rate.
    """
    measured: dict[float, float] = {}

    def here(rates: Tensor) -> list[float]:
        outcome = run_rule(task, rule, seed, Stream.TUNE, range(episodes), rates, horizon=horizon, clock=clock)
        return outcome.objective(weight).mean(1).tolist()

    def measure(rates: Tensor) -> float:
        new = torch.tensor([rate for rate in rates.tolist() if rate not in measured], dtype=torch.float64)
        measured.update(zip(new.tolist(), here(new) if objectives is None else objectives(new)))
        return min(measured, key=lambda rate: measured[rate])

    center = 1e-2
    for _ in range(4):
        grid = learning_rates(center, 10**0.5, coarse)
        best = measure(grid)
        if grid[0] < best < grid[-1]:
            break
        center = best
    if not measured[best] < float("inf"):
        raise SolError(
            f"{rule} does not train {task.name}: the loss is not finite at any learning rate in {sorted(measured)}"
        )
    best = measure(learning_rates(best, 10**0.125, fine))
    return best, sorted(measured.items())
