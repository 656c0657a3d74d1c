r"""Pruning: which terms a rule can do without, by what its loss after a whole horizon says.

Term by term, each is left out on trial, the coefficients of the others being fitted anew to what the long rule did on
recorded states, and all these shorter rules are trained side by side on the same new episodes. The one with the lowest
loss stays. Magnitudes of coefficients say much less, and so does the error of the fit.
"""

from __future__ import annotations

import numpy

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.samples import Samples
from sol_learner.search.terms import Fit, combine, split
from sol_symbols import UpdateRule

__all__ = ["prune"]

_TWO_AT_ONCE = 12  # above so many terms, the two least useful go together


def prune(
    rule: UpdateRule,
    terms: int,
    samples: Samples,
    evaluator: CandidateEvaluator,
    episodes: int,
    progress: Progress,
    phase: Phase = Phase.PRUNE,
) -> list[UpdateRule]:
    """Shorter and shorter rules, down to ``terms`` terms; empty where ``rule`` has no more than that.

    When the clock has run out, the terms that add least to the error of the fit go, which costs nothing.

    Args:
        rule: The long rule.
        terms: Where to stop.
        samples: States recorded with the long rule.
        evaluator: Measures.
        episodes: Episodes that each trial is measured on.
        progress: Where to report.
        phase: What the pruning is part of.
    """
    units, coefficients = split(rule)
    fit = Fit(samples, units, (units, coefficients))
    live, path = fit.usable, list[UpdateRule]()
    progress.phase(phase, f"pruning to {terms} terms", max(len(live) - terms, 0))
    total, told = len(live), False
    while len(live) > terms:
        trials = [[j for j in live if j != left_out] for left_out in live]
        table = numpy.zeros((len(live), len(live)))
        for row, kept in enumerate(trials):
            table[row, [live.index(j) for j in kept]] = fit.coefficients(kept) if kept else []
        try:
            scores = evaluator.losses(rule, [units[j] for j in live], table, episodes)
        except Interrupted:
            scores = fit.influence(live).tolist()
            if not told:
                progress.note(f"no time left for pruning below {len(live)} terms by loss; the rest is by fit")
            told = True
        order = numpy.argsort(scores, kind="stable")
        count = min(2 if len(live) > _TWO_AT_ONCE else 1, len(live) - terms)
        gone = {live[i] for i in order[:count]}
        live = [j for j in live if j not in gone]
        path.append(combine(rule, [units[j] for j in live], fit.coefficients(live)))
        progress.step(total - len(live), terms=len(live), loss=min(scores))
    return path
