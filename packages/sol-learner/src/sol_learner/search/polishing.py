r"""Polishing: improve the remaining constants directly on the loss over the whole horizon.

First by exact gradients over the whole horizon (:mod:`sol_learner.search.descent`), then by CMA-ES (Hansen 2016, from
the package cmaes), which needs none and is cheap for a few constants. Both run in the coordinates of
:class:`~sol_learner.search.space.SearchSpace`, and every step uses new episodes, to avoid overfitting to a seed. The
start, some of their points, averages of them and half of the way are evaluated on the validation stream, and the best
is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cmaes
import numpy
import torch

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.descent import descend
from sol_learner.search.samples import Samples
from sol_learner.search.space import SearchSpace
from sol_symbols import UpdateRule

__all__ = ["Polished", "polish"]


@dataclass(frozen=True)
class Polished:
    """The result of polishing.

    Attributes:
        rule: The rule with its new constants.
        loss: Mean objective of the rule over the validation stream; ``None`` if there was no time to measure it.
        history: Median objective of each generation's candidates.
        others: What was validated with it, including the start: (rule, loss), the best first.
        start: The rule that polishing began with.
    """

    rule: UpdateRule
    loss: float | None = None
    history: list[float] = field(default_factory=list)
    others: tuple[tuple[UpdateRule, float], ...] = ()
    start: UpdateRule | None = None

    @property
    def contenders(self) -> list[UpdateRule]:
        """The validated rules that are not worse than the start, the best first, and the start as the last."""
        rules = [rule for rule, _ in self.others]
        return rules[: rules.index(self.start) + 1] if self.start in rules else rules


def polish(
    rule: UpdateRule,
    samples: Samples,
    evaluator: CandidateEvaluator,
    *,
    generations: int,
    population: int,
    episodes: int,
    sigma: float,
    seed: int,
    phase: Phase,
    progress: Progress,
    descent_steps: int = 0,
    constants: bool = False,
    shapes: bool = True,
    reserve: float = 0.0,
) -> Polished:
    """Improve the coefficients of the rule's additive terms and, with ``constants``, its constants.

    Args:
        rule: The initial rule.
        samples: Recorded states, for the scale of each term.
        evaluator: Evaluates candidates.
        generations: Generations of the search; 0 leaves the rule unchanged.
        population: Candidates per generation.
        episodes: Episodes per candidate.
        sigma: Initial step in units of the root mean square of phi.
        seed: Seed of the search.
        phase: The phase that the search belongs to.
        descent_steps: Steps of gradient descent before the search, which then begins at the best of its points.
        constants: Whether to search the rule's constants, such as beta1, too.
        shapes: Whether these include how the step depends on the shape of a tensor.
        progress: Progress reporter. An expired clock ends the search early, and the results so far are used: of a
            generation that it ends, the mean of the better half.
        reserve: Seconds of the phase that are left for validation.

    Raises:
        SolError: No term is finite and nonzero on the recorded states.
    """
    space = SearchSpace(rule, samples, constants, shapes)
    common: dict[str, Any] = {"episodes": episodes, "phase": phase, "progress": progress, "reserve": reserve}
    points, center = list[numpy.ndarray](), numpy.zeros(space.size)
    if descent_steps:
        points = _of_descent(descend(space, evaluator, steps=descent_steps, **common))
        losses = _validated(evaluator, rule, space, points)
        if points and losses and min(losses[1:]) < losses[0]:
            center = points[int(numpy.argmin(losses[1:]))]
    sizes = (generations, population, sigma, seed)
    means, history = _searched(space, evaluator, center, *sizes, **common)
    points += _of_search(means, center)
    losses = _validated(evaluator, rule, space, points)
    if not losses:
        return Polished(space.rule_at(means[-1]) if means else rule, None, history)
    ranked = sorted(zip([rule, *(space.rule_at(z) for z in points)], losses), key=lambda pair: pair[1])
    return Polished(*ranked[0], history, tuple(ranked), rule)


def _searched(
    space: SearchSpace,
    evaluator: CandidateEvaluator,
    center: numpy.ndarray,
    generations: int,
    population: int,
    sigma: float,
    seed: int,
    *,
    episodes: int,
    phase: Phase,
    progress: Progress,
    reserve: float,
) -> tuple[list[numpy.ndarray], list[float]]:
    """The means of CMA-ES from ``center``, and the median loss of each generation."""
    start = numpy.zeros(max(space.size, 2))  # cmaes requires two dimensions; an unused second one does no harm
    start[: space.size] = center
    search = cmaes.CMA(start, sigma, population_size=population, seed=seed % 2**32)
    history, means = list[float](), list[numpy.ndarray]()
    what = f"{len(space.units)} terms" + (f" and {len(space.constants)} constants" if space.constants else "")
    progress.phase(phase, f"polishing {what}", generations)
    try:
        for generation in range(1, generations + 1):
            asked = numpy.stack([search.ask() for _ in range(population)])
            with evaluator.clock.reserving(reserve):
                values = space.numbers(torch.from_numpy(asked[:, : space.size]))
                losses = evaluator.losses(space.open_rule, values, episodes)
            history.append(float(numpy.median(losses)))
            if len(losses) < population:
                better = numpy.argsort(losses, kind="stable")[: -(-len(losses) // 2)]
                means.append(asked[better, : space.size].mean(0))
                raise Interrupted
            search.tell(list(zip(asked, losses)))
            means.append(search.mean[: space.size].copy())
            progress.step(generation, loss=history[-1], best=min(losses))
    except Interrupted:
        progress.note(f"polishing stopped in generation {len(history)} of {generations}")
    return means, history


def _of_descent(path: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """The points of a descent that are worth validating: at an eighth, a quarter and half of it and at its end, and the
    mean of the second half. Early ones have less of the gain, and of the danger."""
    count = len(path)
    early = sorted({max(1, count // share) for share in (8, 4, 2, 1)}) if path else []
    return [*(path[number - 1] for number in early), *([numpy.mean(path[count // 2 :], 0)] if path else [])]


def _of_search(means: Sequence[numpy.ndarray], start: numpy.ndarray) -> list[numpy.ndarray]:
    """The means of a search that are worth validating: at half of it, at its end, two averages, and half of the way
    from the start."""
    if not means:
        return []
    count = len(means)
    late = numpy.mean(means[count // 2 :], 0)
    return [means[count // 2 - 1], means[-1], numpy.mean(means[count * 3 // 4 :], 0), late, (start + late) / 2]


def _validated(
    evaluator: CandidateEvaluator, rule: UpdateRule, space: SearchSpace, points: Sequence[numpy.ndarray]
) -> list[float]:
    """Losses of the rule and of the points on the validation stream; empty if the run was cancelled."""
    try:
        with evaluator.clock.reserving(-math.inf):  # a rule that was not validated may be worse than its start
            return evaluator.validated([rule, *(space.rule_at(z) for z in points)])
    except Interrupted:
        return []
