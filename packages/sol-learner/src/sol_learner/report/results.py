"""The results of a comparison on the page: tables with intervals, headline numbers, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from sol_learner.comparing.significance import bootstrap_interval, paired_test
from sol_learner.comparing.verdict import Contrast, contrast
from sol_learner.report.charts import Chart, Series, line_chart
from sol_learner.report.evidence import ComparisonRecord, OptimizerRecord, SuiteRecord

__all__ = [
    "Card",
    "accuracy_card",
    "behind",
    "column",
    "curve_chart",
    "difference_table",
    "digits",
    "kind_of",
    "profile_chart",
    "result_columns",
    "result_table",
    "tuning_chart",
    "verdict_card",
]

_EXPLODED = 10.0  # multiple of the initial loss above which curves are cut off
_BEST = {"loss": min, "accuracy": max}  # which mean is best, and marked, in a column
_KINDS = {"better": "good", "even": "even", "worse": "bad"}


@dataclass(frozen=True)
class _Cell:
    """A mean, its interval, a note on runs without a value, and whether it is the best in its column."""

    mean: float
    low: float
    high: float
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Card:
    """One headline number; ``kind`` is good, bad, even or plain."""

    value: str
    what: str
    note: str
    kind: str = "plain"


def kind_of(outcome: str) -> str:
    """The kind of card that an outcome gives."""
    return _KINDS[outcome]


def result_columns(comparison: ComparisonRecord) -> list[tuple[str, str]]:
    """Training loss first, then test metrics, then the rest; metrics on the validation split are omitted."""
    keys = {key: None for result in comparison.results for key in result.metrics if key[0] != "valid"}
    return sorted(keys, key=lambda key: (key != ("train", "loss"), key[0] != "test", key[1] != "loss"))


def result_table(comparison: ComparisonRecord, keys: Sequence[tuple[str, str]], ratios: bool = False) -> dict[str, Any]:
    """Columns and rows of a table; ``ratios`` adds training losses relative to the best baseline."""
    target = "" if comparison.target is None else f" of {digits(comparison.target)}"
    columns = [f"{split} {name}".strip().replace("to target", f"to a loss{target}") for split, name in keys]
    cells = [column(comparison, key) for key in keys]
    if ratios and comparison.verdict is not None:
        baseline = comparison.verdict.baseline
        rival = next((result for result in comparison.results if result.name == baseline), None)
        if rival is not None:
            columns.append(f"train loss relative to {baseline}")
            cells.append([_ratio(result, rival, ("train", "loss")) for result in comparison.results])
    rows = [{"result": result, "cells": row} for result, row in zip(comparison.results, zip(*cells))]
    return {"columns": columns, "rows": rows}


def column(comparison: ComparisonRecord, key: tuple[str, str]) -> list[_Cell | None]:
    """Mean over episodes with a 95% bootstrap interval; medians of what is infinite for runs that miss a target."""
    cells: list[_Cell | None] = []
    for result in comparison.results:
        values = result.metrics.get(key, numpy.zeros(0))
        known, finite = values[~numpy.isnan(values)], values[numpy.isfinite(values)]
        absent = len(values) - len(finite)
        if key[1] in ("steps to target", "seconds to target"):
            middle = float(numpy.median(known)) if len(known) else math.nan
            note = f"{len(finite)} of {len(values)} reached it" if absent else ""
            cells.append(_Cell(middle, middle, middle, note) if len(known) else None)
        elif len(finite):
            mean = float(finite.mean())
            note = f"excluding {absent} lost run{'s'[: absent - 1]}" if absent else ""
            cells.append(_Cell(mean, *(bootstrap_interval(finite) or (mean, mean)), note))
        else:
            cells.append(None)
    means = [cell.mean for cell in cells if cell is not None and not cell.note]
    if key[1] not in _BEST or len(means) < 2:
        return cells
    best = _BEST[key[1]](means)
    return [cell and replace(cell, best=not cell.note and cell.mean == best) for cell in cells]


def _ratio(one: OptimizerRecord, other: OptimizerRecord, key: tuple[str, str]) -> _Cell | None:
    """Mean of ``one`` divided by mean of ``other``, with a paired bootstrap interval."""
    over, under = one.metrics.get(key), other.metrics.get(key)
    found = None if over is None or under is None or len(over) != len(under) else contrast(over, under)
    if found is None or not found.ratio:
        return None
    return _Cell(found.value, *(found.interval or (found.value, found.value)))


def verdict_card(comparison: ComparisonRecord, split: str, words: str) -> Card | None:
    """The training or the held-out loss against the best baseline; only a rule that is better gets a good one."""
    verdict = comparison.verdict
    found = None if verdict is None else {"train": verdict.train, "test": verdict.test}[split]
    if verdict is None or found is None:
        return None
    means = {result.name: result.metrics.get((split, "loss"), numpy.zeros(0)) for result in comparison.results}
    sides = [digits(float(means[name].mean())) for name in (verdict.first, verdict.baseline) if name in means]
    kind = "bad" if found.sign > 0 else "good" if found.sign < 0 and verdict.better else "even"
    evidence = ", ".join(
        part for part in (f"{'ratio' if found.ratio else 'difference'} {found.text}", found.evidence) if part
    )
    significant = "" if found.sign else "; not significant"
    note = f"{' vs. '.join(sides)} for {verdict.baseline}, the best baseline ({evidence}{significant})"
    return Card(_change(found), words, note, kind)


def accuracy_card(comparison: ComparisonRecord, words: str) -> Card | None:
    """The test accuracy of the first optimizer minus that of the baseline with the highest."""
    key = ("test", "accuracy")
    known = {result.name: result.metrics[key] for result in comparison.results if key in result.metrics}
    first = known.pop(comparison.first, None)
    whole = {name: values for name, values in known.items() if numpy.isfinite(values).all()}
    if first is None or not whole or not numpy.isfinite(first).all():
        return None
    rival = max(whole, key=lambda name: float(whole[name].mean()))
    if len(whole[rival]) != len(first):
        return None
    difference = first - whole[rival]
    found = Contrast(float(difference.mean()), bootstrap_interval(difference), paired_test(first, whole[rival]), False)
    better = comparison.verdict is not None and comparison.verdict.better
    kind = "bad" if found.sign < 0 else "good" if found.sign > 0 and better else "even"
    change = f"{100 * abs(found.value):.1f}\N{NO-BREAK SPACE}points {'higher' if found.value > 0 else 'lower'}"
    means = f"{digits(float(first.mean()))} vs. {digits(float(whole[rival].mean()))}"
    return Card(change, words, f"{means} for {rival}, the best other optimizer ({found.evidence})", kind)


def _change(found: Contrast) -> str:
    if not found.ratio:
        return f"{digits(abs(found.value))} {'lower' if found.value < 0 else 'higher'}"
    if found.value >= 3:
        return f"{found.value:.3g} times as high"
    return f"{100 * abs(found.value - 1):.0f}% {'lower' if found.value < 1 else 'higher'}"


def difference_table(comparison: ComparisonRecord) -> dict[str, Any] | None:
    """Differences from the first optimizer: one row per baseline, one column per quantity."""
    found = {(row.baseline, row.quantity): row for row in comparison.differences}
    if not found:
        return None
    baselines, quantities = (list(dict.fromkeys(keys)) for keys in zip(*found))
    order = [result.name for result in comparison.results]
    baselines.sort(key=lambda name: order.index(name) if name in order else len(order))
    rows = [{"name": name, "cells": [found.get((name, quantity)) for quantity in quantities]} for name in baselines]
    return {"columns": quantities, "rows": rows}


def curve_chart(comparison: ComparisonRecord) -> Chart | None:
    """Loss vs. step. Values above ten times the initial loss are omitted; labels mention diverged runs."""
    shown = [(result, result.curve) for result in comparison.results if result.curve is not None]
    if not shown:
        return None
    starts = [abs(float(curve[0])) for _, curve in shown if len(curve) and numpy.isfinite(curve[0])]
    most = _EXPLODED * max(starts, default=numpy.inf)
    lines, ends = [], []
    for result, curve in shown:
        calm = numpy.where(abs(curve) < most, curve, numpy.nan)
        lines.append(Series(_label(result, comparison.episodes), numpy.arange(1, len(curve) + 1), calm, result.spread))
        end = digits(float(calm[-1])) if len(calm) and numpy.isfinite(calm[-1]) else "off the chart"
        ends.append(f"{result.name} {end}")
    description = f"Training loss vs. step on {comparison.task}, one line per optimizer; at the last step: "
    return line_chart(lines, "training step", "batch loss", f"{description}{', '.join(ends)}.", ylog=True)


def behind(comparison: ComparisonRecord) -> str:
    """Where the first optimizer's curve is above that of the best baseline, in words; empty without two curves.

    Curves are means over a twentieth of the steps, because the loss of single batches is noise.
    """
    verdict, curves = comparison.verdict, {result.name: result.curve for result in comparison.results}
    first, other = (curves.get(name) for name in (verdict.first, verdict.baseline)) if verdict else (None, None)
    if verdict is None or first is None or other is None or len(first) != len(other):
        return ""
    size = max(1, len(first) // 20)
    edges = [*range(0, len(first), size)]
    above = [bool(numpy.nanmean(first[at : at + size] - other[at : at + size]) > 0) for at in edges]
    spans: list[list[int]] = []
    for at, worse in zip(edges, above):
        end = min(at + size, len(first))
        if worse and spans and spans[-1][1] == at:
            spans[-1][1] = end
        elif worse:
            spans.append([at, end])
    if not spans:
        return f"{verdict.first} is below {verdict.baseline}, the best baseline, throughout."
    where = ", ".join(f"{begin + 1:,} to {end:,}" for begin, end in spans)
    return f"{verdict.first} is above {verdict.baseline}, the best baseline, in steps {where}."


def _label(result: OptimizerRecord, episodes: int) -> str:
    rate = "" if result.lr is None else f"lr {result.lr:.3g}"
    words = ["tuned" if result.tuning else "", rate]
    if result.diverged:
        lost = f"{result.diverged} of {episodes} runs diverged"
        whole = result.runs is not None and result.runs == episodes - result.diverged
        words.append(f"{lost}; the curve shows the others" if whole else f"{lost}; the curve ends there")
    known = ", ".join(word for word in words if word)
    return f"{result.name} ({known})" if known else result.name


def tuning_chart(comparison: ComparisonRecord) -> Chart | None:
    """Objective vs. learning rate, for all rates tried."""
    tuned = [result for result in comparison.results if result.tuning]
    lines = [Series(r.name, *(numpy.array(column) for column in zip(*sorted(r.tuning)))) for r in tuned]
    if not lines:
        return None
    description = "Objective vs. learning rate: one dot per rate tried, one line per optimizer."
    return line_chart(lines, "learning rate", "objective on tuning seeds", description, xlog=True, ylog=True, dots=True)


def profile_chart(suite: SuiteRecord) -> Chart | None:
    """The performance profile: fraction of the problems vs. factor of the lowest training loss, as steps."""
    most = max((points[-1][0] for points in suite.profile.values() if points), default=1.0)
    lines = []
    ends = {name: points[-1][1] for name, points in suite.profile.items() if points}
    for name, points in suite.profile.items():
        x, y = list[float](), list[float]()
        for tau, fraction in points:
            x += [tau] if not x else [tau, tau]
            y += [fraction] if not y else [y[-1], fraction]
        if points:
            lines.append(Series(name, numpy.array([*x, most * 1.05]), numpy.array([*y, y[-1]])))
    if not lines:
        return None
    words = ", ".join(f"{name} {100 * end:.0f}%" for name, end in ends.items())
    description = f"Performance profile, one line per optimizer; fractions at the right end: {words}."
    return line_chart(
        lines, "factor of the lowest training loss", "fraction of the problems", description, xlog=True, from_zero=True
    )


def digits(value: float | None) -> str:
    """A number formatted to four significant digits; a dash for ``None``, ``never`` for an infinite time."""
    if value is None or math.isnan(value):
        return "–"
    return "never" if math.isinf(value) else f"{value:.4g}".replace("-", "−")
