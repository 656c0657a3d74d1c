"""The front: rules of several lengths with their losses on the validation stream."""

from __future__ import annotations

from dataclasses import dataclass

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_symbols import UpdateRule

__all__ = ["FrontPoint", "measured_front"]


@dataclass(frozen=True)
class FrontPoint:
    """A rule on the front of length against loss.

    Attributes:
        rule: The rule.
        loss: Mean objective over the validation stream.
    """

    rule: UpdateRule
    loss: float

    @property
    def terms(self) -> int:
        """Number of additive terms."""
        return self.rule.complexity.terms


def measured_front(rules: list[UpdateRule], evaluator: CandidateEvaluator, progress: Progress) -> list[FrontPoint]:
    """Each rule with its loss on the validation stream; rules for which no time is left are omitted."""
    progress.phase(Phase.FRONT, "measuring the front", len(rules))
    points: list[FrontPoint] = []
    together = evaluator.workers.jobs
    for first in range(0, len(rules), together):
        group = rules[first : first + together]
        try:
            points += map(FrontPoint, group, evaluator.validated(group))
        except Interrupted:
            progress.note(f"stopped early: the front contains {len(points)} of {len(rules)} rules")
            break
        progress.step(len(points), terms=points[-1].terms, loss=points[-1].loss)
    return points
