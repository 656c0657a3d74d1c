r"""Polishing: improve the remaining constants directly on the loss over the whole horizon.

CMA-ES (Hansen 2016, from the package cmaes) needs no gradients, so it has no truncation bias, and it is cheap for a few
constants. The search runs in the coordinates of :class:`~sol_learner.search.space.SearchSpace`. Every generation uses
new episodes, to avoid overfitting to a seed. The start, some of the search's means, averages of them and half of the
way are then evaluated on the validation stream, and the best is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cmaes
import numpy

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
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
        constants: Whether to search the rule's constants, such as beta1, too.
        shapes: Whether these include how the step depends on the shape of a tensor.
        progress: Progress reporter. An expired clock ends the search early, and the results so far are used: of a
            generation that it ends, the mean of the better half.
        reserve: Seconds of the phase that are left for validation.

    Raises:
        SolError: No term is finite and nonzero on the recorded states.
    """
    space = SearchSpace(rule, samples, constants, shapes)
    # cmaes requires at least two dimensions; an unused second one does no harm.
    size = max(space.size, 2)
    search = cmaes.CMA(numpy.zeros(size), sigma, population_size=population, seed=seed % 2**32)
    history: list[float] = []
    means: list[numpy.ndarray] = []
    what = f"{len(space.units)} terms" + (f" and {len(space.constants)} constants" if space.constants else "")
    progress.phase(phase, f"polishing {what}", generations)
    try:
        for generation in range(1, generations + 1):
            points = [search.ask() for _ in range(population)]
            table, values = space.at([point[: space.size] for point in points])
            with evaluator.clock.reserving(reserve):
                losses = evaluator.losses(rule, space.units, table, episodes, values)
            history.append(float(numpy.median(losses)))
            if len(losses) < population:
                better = numpy.argsort(losses, kind="stable")[: -(-len(losses) // 2)]
                means.append(numpy.mean([points[number][: space.size] for number in better], 0))
                raise Interrupted
            search.tell(list(zip(points, losses)))
            means.append(search.mean[: space.size].copy())
            progress.step(generation, loss=history[-1], best=min(losses))
    except Interrupted:
        progress.note(f"polishing stopped in generation {len(history)} of {generations}")
    count = len(means)
    reached = []
    if means:
        chosen = [
            means[count // 2 - 1],
            means[-1],
            numpy.mean(means[count * 3 // 4 :], 0),
            numpy.mean(means[count // 2 :], 0),
        ]
        chosen.append(chosen[-1] / 2)  # halfway from the start: less of the gain, and of the danger
        reached = [space.rule_at(z) for z in chosen]
    try:
        with evaluator.clock.reserving(-math.inf):  # a rule that was not validated may be worse than its start
            losses = evaluator.validated([rule, *reached])
    except Interrupted:
        return Polished(reached[1] if reached else rule, None, history)
    ranked = sorted(zip([rule, *reached], losses), key=lambda pair: pair[1])
    return Polished(*ranked[0], history, tuple(ranked), rule)
