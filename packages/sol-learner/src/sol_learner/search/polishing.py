r"""Polishing: the constants that are left, improved on the whole horizon's loss itself.

CMA-ES (Hansen 2016, by the package cmaes) needs no gradient, so it has no truncation bias, and with a few constants it
is cheap. The search runs in coordinates z with c = c_0 + M z, where M whitens the terms on recorded states and has the
size of phi: a step of 0.1 in any direction of z changes phi by a tenth of itself, whatever the sizes of the terms.
Every generation has episodes of its own, so that nothing is fitted to a seed. The start, some of the search's means
and averages of them are then measured on the validation stream, and the best is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cmaes
import numpy

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.samples import Samples
from sol_learner.search.terms import Fit, combine, split
from sol_symbols import SolError, UpdateRule

__all__ = ["Polished", "polish"]


@dataclass(frozen=True)
class Polished:
    """The result of polishing.

    Attributes:
        rule: The rule with its new constants.
        loss: Mean objective of the rule over the validation stream; ``None`` if there was no time to measure it.
        history: Median objective of each generation's candidates.
    """

    rule: UpdateRule
    loss: float | None = None
    history: list[float] = field(default_factory=list)


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
) -> Polished:
    """Improve the coefficients of the rule's additive terms.

    Args:
        rule: Where to start.
        samples: Recorded states, for the scale of each term.
        evaluator: Measures.
        generations: Generations of the search; with none, the rule stays as it is.
        population: CandidateEvaluator per generation.
        episodes: Episodes that each candidate is measured on.
        sigma: Initial step in units of the root mean square of phi.
        seed: Of the search.
        phase: What the search is part of.
        progress: Where to report. A clock that runs out ends the search early; with what it found by then it goes on.

    Raises:
        SolError: No term has an effect that could be scaled.
    """
    units, start = split(rule)
    fit = Fit(samples, units, (units, start))
    units, start = [units[j] for j in fit.usable], [start[j] for j in fit.usable]
    if not units:
        raise SolError(f"no term of {rule} is finite and other than 0 on recorded states: there is nothing to polish")
    center, matrix = numpy.array(start), fit.whitening(fit.usable).numpy()
    # At least two dimensions, which cmaes asks for; a second one that does nothing does no harm.
    size = max(len(units), 2)
    search = cmaes.CMA(numpy.zeros(size), sigma, population_size=population, seed=seed % 2**32)
    history: list[float] = []
    means: list[numpy.ndarray] = []
    progress.phase(phase, f"polishing {len(units)} terms", generations)
    try:
        for generation in range(1, generations + 1):
            points = [search.ask() for _ in range(population)]
            table = center + numpy.stack(points)[:, : len(units)] @ matrix.T
            losses = evaluator.losses(rule, units, table, episodes)
            search.tell(list(zip(points, losses)))
            means.append(search.mean[: len(units)].copy())
            history.append(float(numpy.median(losses)))
            progress.step(generation, loss=history[-1], best=min(losses))
    except Interrupted:
        progress.note(f"polishing stopped after {len(history)} of {generations} generations")
    count = len(means)
    reached = []
    if means:
        chosen = [
            means[count // 2 - 1],
            means[-1],
            numpy.mean(means[count * 3 // 4 :], 0),
            numpy.mean(means[count // 2 :], 0),
        ]
        reached = [combine(rule, units, (center + matrix @ z).tolist()) for z in chosen]
    try:
        losses = evaluator.validated([rule, *reached])
    except Interrupted:
        return Polished(reached[1] if reached else rule, None, history)
    best = int(numpy.argmin(losses))
    return Polished([rule, *reached][best], losses[best], history)
