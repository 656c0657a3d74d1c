r"""Polishing: the few constants that are left, improved on the whole horizon's loss itself.

CMA-ES (Hansen 2016, by the package cmaes) needs no gradient, so it has no truncation bias, and with a handful of
constants it is cheap. The search runs in coordinates z with c = c_0 + s M z, where M whitens the terms on recorded
states, M^T A M = I for their Gram matrix A, and s is the root mean square of phi: a unit of z then changes phi by its
own size, whatever the sizes of the terms. All candidates of a generation are trained side by side on the same
episodes (common random numbers), and every generation has episodes of its own, so that nothing is fitted to a seed.
The start and some of the search's means are then measured on the validation stream, and the best is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import cmaes
import numpy
import sympy
import torch

from sol_learner.episodes import run_rule
from sol_learner.progress import Clock, Interrupted, Progress
from sol_learner.pruning import Point, Samples, combine, mean_objective, split
from sol_learner.task import Purpose, Task
from sol_symbols import UpdateRule, symbol

__all__ = ["Polished", "polish"]


@dataclass(frozen=True)
class Polished:
    """The result of polishing.

    Attributes:
        rule: The rule with its new constants.
        generations: Generations that were run.
        loss: Mean objective of the rule over the validation stream; ``None`` if there was no time to measure it.
        history: Median objective of each generation's candidates.
    """

    rule: UpdateRule
    generations: int
    loss: float | None
    history: list[float]


def polish(
    task: Task,
    rule: UpdateRule,
    samples: Samples,
    *,
    seed: int,
    first_episode: int,
    generations: int,
    population: int,
    episodes: int,
    sigma: float,
    validation: int,
    progress: Progress,
    clock: Clock,
) -> Polished:
    """Improve the coefficients of the rule's additive terms.

    Args:
        task: The task.
        rule: Where to start.
        samples: Recorded states, for the scale of each term.
        seed: Base seed.
        first_episode: Index in the training stream of the first episode to use.
        generations: Generations of the search.
        population: Candidates per generation.
        episodes: Episodes that each candidate is measured on.
        sigma: Initial step in units of the root mean square of phi.
        validation: Episodes of the validation stream.
        progress: Where to report.
        clock: Ends the search early; with what it found by then it goes on as always.
    """
    units, start = split(rule)
    names = [f"c{index}" for index in range(1, len(units) + 1)]
    open_rule = UpdateRule(
        sympy.Add(*(symbol(name) * unit for name, unit in zip(names, units))),
        {**rule.values, **dict.fromkeys(names, 1.0)},
        rule.lr,
        vocabulary=rule.vocabulary,
    )
    center, matrix = numpy.array(start), _whitening(units, start, samples)
    search = cmaes.CMA(numpy.zeros(len(units)), sigma, population_size=population, seed=seed % 2**32)
    history: list[float] = []
    reached = [rule]
    progress.phase("polishing", generations)
    try:
        for generation in range(1, generations + 1):
            points = [search.ask() for _ in range(population)]
            constants = torch.from_numpy(center + numpy.stack(points) @ matrix.T)
            first = first_episode + (generation - 1) * episodes
            values = {name: constants[:, column] for column, name in enumerate(names)}
            outcome = run_rule(
                task, open_rule, seed, Purpose.TRAIN, range(first, first + episodes), values=values, clock=clock
            )
            losses = outcome.objective.mean(1).clamp(max=1e30).tolist()
            search.tell(list(zip(points, losses)))
            history.append(float(numpy.median(losses)))
            progress.step(generation, loss=history[-1], best=min(losses))
            if generation % max(1, generations // 8) == 0 or generation == generations:
                reached.append(combine(rule, units, (center + matrix @ search.mean).tolist()))
    except Interrupted:
        progress.note(f"polishing stopped after {len(history)} of {generations} generations")
    if clock.cancelled:
        return Polished(reached[-1], len(history), None, history)
    candidates = [Point(r, mean_objective(task, r, seed, validation)) for r in [rule, *reached[-4:]]]
    best = min(candidates, key=lambda point: point.loss)
    return Polished(best.rule, len(history), best.loss, history)


def _whitening(units: list[sympy.Expr], start: list[float], samples: Samples) -> numpy.ndarray:
    """s M of the module's equation, [k, k]."""
    table = samples.evaluate(units)
    table = table * (samples.weights / samples.weights.numel()).sqrt()
    gram = (table @ table.T).cpu()
    gram += 1e-9 * gram.diagonal().mean() * torch.eye(len(units), dtype=torch.float64)
    factor = torch.linalg.cholesky(gram)
    size = (torch.tensor(start, dtype=torch.float64) @ factor).norm()
    return (size * torch.linalg.inv(factor).T).numpy()
