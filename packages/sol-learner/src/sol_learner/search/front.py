"""The front: rules of several lengths with their losses on the validation stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sol_learner.runtime.clock import Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.validity import failures
from sol_symbols import UpdateRule

__all__ = ["FrontPoint", "best_points", "held", "measured_front"]


@dataclass(frozen=True)
class FrontPoint:
    """A rule on the front of length against loss.

    Attributes:
        rule: The rule.
        loss: Mean objective over the validation stream.
        holds: Whether it holds on variants of the task. A rule with a lower loss that does not is chosen only if no
            rule of its length or less does.
    """

    rule: UpdateRule
    loss: float
    holds: bool = True

    @property
    def terms(self) -> int:
        """Number of additive terms."""
        return self.rule.complexity.terms


def measured_front(rules: list[UpdateRule], evaluator: CandidateEvaluator, progress: Progress) -> list[FrontPoint]:
    """Each rule with its loss on the validation stream; rules for which no time is left are omitted."""
    progress.phase(Phase.FRONT, "measuring the front", len(rules))
    points: list[FrontPoint] = []
    together = 8 * evaluator.workers.jobs
    for first in range(0, len(rules), together):
        group = rules[first : first + together]
        try:
            points += map(FrontPoint, group, evaluator.validated(group))
        except Interrupted:
            progress.note(f"stopped early: the front contains {len(points)} of {len(rules)} rules")
            break
        progress.step(len(points), terms=points[-1].terms, loss=points[-1].loss)
    return points


def best_points(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The points with the lowest loss of all that are not longer."""
    return [p for p in points if p.loss <= min(other.loss for other in points if other.terms <= p.terms)]


def held(
    points: Sequence[FrontPoint], best: Sequence[FrontPoint], table: Mapping[str, Sequence[float]]
) -> list[FrontPoint]:
    """The points, each with whether it is one of the ``best`` and holds, compared with those that are not longer.

    Args:
        points: The front.
        best: The points of ``table``.
        table: Losses of the best points on variants of the task, by description.
    """
    checked = []
    for number, point in enumerate(best):
        not_longer = [other for other, p in enumerate(best) if p.terms <= point.terms]
        checked += [] if failures(table, number, not_longer) else [point]
    return [replace(point, holds=point in checked) for point in points]
