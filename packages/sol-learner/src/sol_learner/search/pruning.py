r"""Pruning: remove the terms that matter least for the loss after the whole horizon.

Each term is left out in turn, and the coefficients of the others are refitted to the long rule's output on recorded
states. All these shorter rules are evaluated in parallel on the same new episodes, and the one with the lowest loss is
kept. Coefficient magnitudes and the error of the fit are much less informative.
"""

from __future__ import annotations

import numpy
import torch

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.samples import Samples
from sol_learner.search.terms import Fit, combine, opened, split
from sol_symbols import UpdateRule

__all__ = ["prune"]

_TWO_AT_ONCE = 12  # above this many terms, remove the two least useful at once


def prune(
    rule: UpdateRule,
    terms: int,
    samples: Samples,
    evaluator: CandidateEvaluator,
    episodes: int,
    progress: Progress,
    phase: Phase = Phase.PRUNE,
) -> list[UpdateRule]:
    """Successively shorter rules, down to ``terms`` terms; empty if ``rule`` has no more than that.

    Once the clock has expired, the rule keeps its terms: the error of the fit says little about the loss.

    Args:
        rule: The long rule.
        terms: Target number of terms.
        samples: States recorded with the long rule.
        evaluator: Evaluates candidates.
        episodes: Episodes per candidate.
        progress: Progress reporter.
        phase: The phase that the pruning belongs to.
    """
    units, coefficients = split(rule)
    fit = Fit(samples, units, (units, coefficients))
    live, path = fit.usable, list[UpdateRule]()
    progress.phase(phase, f"pruning to {terms} term{'s' if terms > 1 else ''}", max(len(live) - terms, 0))
    total = len(live)
    while len(live) > terms:
        trials = [[j for j in live if j != left_out] for left_out in live]
        table = numpy.zeros((len(live), len(live)))
        for row, kept in enumerate(trials):
            table[row, [live.index(j) for j in kept]] = fit.coefficients(kept) if kept else []
        try:
            open_rule, names = opened(rule, [units[j] for j in live])
            scores = evaluator.losses(open_rule, dict(zip(names, torch.from_numpy(table).unbind(1))), episodes)
            if len(scores) < len(live):
                raise Interrupted
        except Interrupted:
            progress.note(f"out of time: the rule keeps {len(live)} terms")
            break
        order = numpy.argsort(scores, kind="stable")
        count = min(2 if len(live) > _TWO_AT_ONCE else 1, len(live) - terms)
        gone = {live[i] for i in order[:count]}
        live = [j for j in live if j not in gone]
        path.append(combine(rule, [units[j] for j in live], fit.coefficients(live)))
        progress.step(total - len(live), terms=len(live), loss=min(scores))
    return path
