"""The verdict of a comparison: is the first optimizer better than the best baseline, in one line and as a record.

The headline quantity is the training loss after the last step. Let a and b be the first optimizer's and the best
baseline's, [S] over the same episodes. The best baseline has the lowest mean of those that lost the fewest runs.
The verdict holds mean(a)/mean(b), its paired bootstrap interval, and the p-value of the paired test after
Holm's correction for the baselines. Losses that are not positive have a difference of means in place of the ratio.

``better``: p < 0.05, the interval is on the good side, and the held-out loss is not significantly higher. The baseline
is chosen by the numbers that it is judged by, which favors it: the error is on the safe side. Equal optimizers of
equal spread are told apart in less than 5% of comparisons. This does not hold for a first optimizer whose losses are
far more skewed than the baseline's (at ten seeds, 18% for log-normal losses with sigma 1.2 against 0.05).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy

from sol_learner.comparing.significance import bootstrap_interval, holm, paired_test
from sol_learner.comparing.torch_code import described, torch_code
from sol_symbols import UpdateRule

__all__ = ["OUTCOMES", "SIGNIFICANT", "Contrast", "Side", "Verdict", "contrast", "judge", "standing"]

SIGNIFICANT = 0.05

OUTCOMES = ("better", "even", "worse")
"""What a verdict can be."""


@dataclass(frozen=True)
class Side:
    """What the verdict needs of an optimizer.

    Attributes:
        name: Name in tables.
        train, test: Loss after the last step, [S]; not finite where a run was lost. ``test`` may be ``None``.
        settings: Learning rate, hyperparameters, schedule.
        rule: Its rule, if it is one.
        trainings: Trainings spent on choosing its settings; for a learned rule, what the learner spent.
        steps, seconds: To the target, [S], infinite where it was missed; ``None`` without a target.
    """

    name: str
    train: numpy.ndarray
    test: numpy.ndarray | None = None
    settings: Mapping[str, float | str] = field(default_factory=dict)
    rule: UpdateRule | None = None
    trainings: int = 0
    steps: numpy.ndarray | None = None
    seconds: numpy.ndarray | None = None

    @property
    def lost(self) -> int:
        """Runs without a finite training loss."""
        return int((~numpy.isfinite(self.train)).sum())


@dataclass(frozen=True)
class Contrast:
    """One quantity of two optimizers.

    Attributes:
        value: Ratio of the means, or their difference if a loss is not positive.
        interval: Its 95% paired bootstrap interval; ``None`` for a single episode.
        p: Of the paired test; ``None`` if undefined.
        ratio: Whether ``value`` is a ratio.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None
    ratio: bool = True

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Contrast:
        """From its fields as JSON has them."""
        interval, p = record["interval"], record["p"]
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        return cls(float(record["value"]), ends, None if p is None else float(p), bool(record["ratio"]))

    @property
    def sign(self) -> int:
        """-1 if significantly lower, 1 if significantly higher, else 0."""
        neutral = 1.0 if self.ratio else 0.0
        if self.p is None or self.interval is None or not self.p < SIGNIFICANT:
            return 0
        return (self.interval[0] > neutral) - (self.interval[1] < neutral)

    @property
    def below(self) -> bool:
        """Whether the whole interval is lower than that of equals."""
        return self.interval is not None and self.interval[1] < (1.0 if self.ratio else 0.0)

    @property
    def text(self) -> str:
        """``value``, with three decimals if close to 1."""
        return _number(self.value, self.ratio)

    @property
    def evidence(self) -> str:
        """Interval and p-value."""
        parts = [] if self.interval is None else [f"95 % {' to '.join(_number(x, self.ratio) for x in self.interval)}"]
        parts += [] if self.p is None else [f"p = {self.p:.1g}" if self.p >= 1e-4 else "p < 0.0001"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """See the module's docstring.

    Attributes:
        first: The optimizer of interest.
        baseline: The best baseline.
        described: Learning rate and schedule of the best baseline, in words.
        outcome: ``better``, ``worse`` (significantly in training or held-out loss, or it lost more runs), or ``even``.
        train, test: Training and held-out loss against the best baseline; ``None`` if they cannot be compared.
        steps_ratio: Median of the steps to the target, as a ratio to the best baseline's; infinite if only the first
            missed it, 0 if only the baseline did, ``None`` if both did.
        seconds_ratio: The same of the seconds.
        trainings: Trainings spent on the first optimizer, and on each baseline.
        line: The verdict in one line.
        code: PyTorch code for the best baseline; empty if no library has it.
    """

    first: str
    baseline: str
    described: str
    outcome: str
    train: Contrast | None
    test: Contrast | None
    steps_ratio: float | None
    seconds_ratio: float | None
    trainings: tuple[int, tuple[int, ...]]
    line: str
    code: str

    @property
    def better(self) -> bool:
        """Whether the first optimizer is better."""
        return self.outcome == "better"

    def outcome_at(self, p: float | None, p_test: float | None) -> str:
        """The outcome after a correction of both p-values for several verdicts; it can only become less decided."""
        if self.train is None:
            return self.outcome
        outcome = _outcome(replace(self.train, p=p), self.test and replace(self.test, p=p_test))
        return "even" if (outcome, self.outcome) == ("better", "worse") else outcome

    @property
    def advised(self) -> bool:
        """Whether the line says to use the baseline."""
        return "use that" in self.line

    def record(self) -> dict[str, Any]:
        """All of it, JSON-serializable; an infinite ratio is ``"infinity"``."""
        record = asdict(self) | {"better": self.better}
        record["trainings"] = {"first": self.trainings[0], "baselines": list(self.trainings[1])}
        for name in ("steps_ratio", "seconds_ratio"):
            record[name] = "infinity" if record[name] == math.inf else record[name]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Verdict:
        """The verdict that :meth:`record` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: ``record`` is malformed.
        """
        if record["outcome"] not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {record['outcome']!r}")
        train, test = (
            None if record[name] is None else Contrast.from_record(record[name]) for name in ("train", "test")
        )
        steps, seconds = (
            None if record[name] is None else float(record[name]) for name in ("steps_ratio", "seconds_ratio")
        )
        spent = record["trainings"]
        return cls(
            str(record["first"]),
            str(record["baseline"]),
            str(record["described"]),
            str(record["outcome"]),
            train,
            test,
            steps,
            seconds,
            (int(spent["first"]), tuple(int(count) for count in spent["baselines"])),
            str(record["line"]),
            str(record["code"]),
        )


def standing(losses: numpy.ndarray) -> tuple[int, float]:
    """Sort key of an optimizer by its losses [S], the best first: lost runs, then the mean of the others."""
    finite = losses[numpy.isfinite(losses)]
    return len(losses) - len(finite), float(finite.mean()) if len(finite) else math.inf


def contrast(first: numpy.ndarray, second: numpy.ndarray, p: float | None = None) -> Contrast | None:
    """The ratio, or the difference, of two optimizers' losses; ``None`` if one is not finite.

    Args:
        first, second: Losses of the same episodes, [S].
        p: P-value to report; by default, of the paired test.
    """
    pair = numpy.stack([first, second], 1)
    if not len(pair) or not numpy.isfinite(pair).all():
        return None
    p = paired_test(first, second) if p is None else p
    a, b = (float(mean) for mean in pair.mean(0))
    if (pair > 0).all():
        return Contrast(a / b, bootstrap_interval(pair, lambda means: means[:, 0] / means[:, 1]), p)
    return Contrast(a - b, bootstrap_interval(pair, lambda means: means[:, 0] - means[:, 1]), p, ratio=False)


def judge(first: Side, baselines: Sequence[Side], steps: int) -> Verdict | None:
    """The verdict on ``first``; ``None`` if there is no baseline or no training loss.

    Args:
        first: The optimizer of interest.
        baselines: The others, without references.
        steps: Steps of the training runs, for the code of the schedule.
    """
    baselines = [side for side in baselines if len(side.train)]
    if not baselines or not len(first.train):
        return None
    place = min(range(len(baselines)), key=lambda i: standing(baselines[i].train))
    best = baselines[place]
    adjusted = holm([paired_test(first.train, side.train) for side in baselines])
    train = contrast(first.train, best.train, adjusted[place])
    test = contrast(first.test, best.test) if first.test is not None and best.test is not None else None
    outcome = "worse" if first.lost > best.lost else _outcome(train, test)
    trainings = (first.trainings, tuple(side.trainings for side in baselines))
    codes = [torch_code(side.name, side.rule, side.settings, steps) for side in baselines]
    noun = "hand-made optimizer" if all(codes) else "baseline"
    return Verdict(
        first.name,
        best.name,
        described(best.settings),
        outcome,
        train,
        test,
        _ratio_of_medians(first.steps, best.steps),
        _ratio_of_medians(first.seconds, best.seconds),
        trainings,
        _line(first, best, outcome, train, test, trainings, noun),
        codes[place],
    )


def _outcome(train: Contrast | None, test: Contrast | None) -> str:
    if test is not None and test.sign > 0:
        return "worse"
    return "even" if train is None else {-1: "better", 0: "even", 1: "worse"}[train.sign]


def _line(
    first: Side,
    best: Side,
    outcome: str,
    train: Contrast | None,
    test: Contrast | None,
    trainings: tuple[int, tuple[int, ...]],
    noun: str,
) -> str:
    evidence = [] if train is None else [train.evidence, _effort(*trainings)]
    shown = ", ".join(part for part in evidence if part)
    if outcome == "better" and train is not None:
        named = ", ".join(part for part in (best.name, described(best.settings, rate=False)) if part)
        line = f"{_of(train, 'training loss')} the best {noun} ({named}; {shown})"
        return f"{line}; held-out loss {test.text}" if test else line
    settings = described(best.settings)
    rival = f"{best.name} ({settings})" if settings else best.name
    if train is None:
        lost = f"{_lost(first)}; {_lost(best)}"
        if first.lost > best.lost:
            return f"not better than {rival}: use that; {lost}"
        return f"nothing decided against {rival}: {lost}"
    shown = f" ({shown})" if shown else ""
    held = ""
    if test is not None:
        held = f"; held-out loss {test.text}"
        held += f" ({test.evidence}), significantly worse" if test.sign > 0 >= train.sign else ""
    if len(first.train) == 1:
        return f"one seed decides nothing: {_of(train, 'training loss')} {rival}{shown}{held}"
    if outcome == "even" and train.below:
        return f"undecided, evaluate on more seeds: {_of(train, 'training loss')} {rival}{shown}{held}"
    return f"not better than {rival}: use that; {_of(train, 'training loss', True)}{shown}{held}"


def _of(found: Contrast, quantity: str, its: bool = False) -> str:
    """The start of a phrase that the name of the baseline ends, or, with ``its``, the phrase."""
    if found.ratio:
        return f"{found.text} of {'its' if its else 'the'} {quantity}{'' if its else ' of'}"
    return f"{quantity} {found.text}" if its else f"{found.text} in {quantity} against"


def _lost(side: Side) -> str:
    count = len(side.train)
    if not side.lost:
        return f"all runs of {side.name} ended well"
    return f"{side.name} diverged or failed in {side.lost} of {count} run{'s'[: count - 1]}"


def _effort(first: int, baselines: Sequence[int]) -> str:
    """Trainings of both sides; empty if nothing was counted."""
    spent = [count for count in baselines if count]
    if not first and not spent:
        return ""
    if {first} == {*baselines}:
        return f"{first:,} trainings each"
    if not spent:
        return f"{first:,} trainings against none"
    each = f"{len(spent)} × {spent[0]:,}" if len(spent) > 1 else f"{spent[0]:,}"
    return f"{first:,} trainings against {each if len({*spent}) == 1 else f'{sum(spent):,} in all'}"


def _number(value: float, ratio: bool) -> str:
    if not ratio:
        return f"{value:+.3g}".replace("-", "−")
    if abs(value - 1) < 0.05:
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _ratio_of_medians(first: numpy.ndarray | None, second: numpy.ndarray | None) -> float | None:
    if first is None or second is None or numpy.isnan(first).any() or numpy.isnan(second).any():
        return None
    a, b = (float(numpy.median(values)) for values in (first, second))
    if math.isinf(a) and math.isinf(b):
        return None
    return math.inf if math.isinf(a) else 0.0 if math.isinf(b) else a / b if b else None
