"""The results of a comparison on the page: tables with intervals, verdicts, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from sol_learner.report.charts import Chart, Series, line_chart
from sol_learner.report.evidence import ComparisonRecord, OptimizerRecord

__all__ = [
    "Verdict",
    "against_best",
    "column",
    "curve_chart",
    "difference_table",
    "digits",
    "result_columns",
    "result_table",
    "tuning_chart",
]

_RESAMPLES = 2_000
_EXPLODED = 10.0  # multiple of the initial loss above which curves are cut off
_BEST = {"loss": min, "accuracy": max}  # which mean is best, and marked, in a column


@dataclass(frozen=True)
class _Cell:
    """A mean, its interval, a note on runs without a value, and whether it is the best in its column."""

    mean: float
    low: float
    high: float
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Verdict:
    """One headline result; ``kind`` is good, bad, even or plain."""

    value: str
    what: str
    note: str
    kind: str = "plain"


def _resamples(count: int) -> numpy.ndarray:
    """Episode indices drawn with replacement, [resamples, count]; the same at every call."""
    return numpy.random.default_rng(0).integers(count, size=(_RESAMPLES, count))


def _interval(statistics: numpy.ndarray) -> tuple[float, float]:
    low, high = numpy.percentile(statistics, [2.5, 97.5])
    return float(low), float(high)


def result_columns(comparison: ComparisonRecord) -> list[tuple[str, str]]:
    """Training loss first, then test metrics, then the rest; metrics on the validation split are omitted."""
    keys = {key: None for result in comparison.results for key in result.metrics if key[0] != "valid"}
    return sorted(keys, key=lambda key: (key != ("train", "loss"), key[0] != "test", key[1] != "loss"))


def result_table(comparison: ComparisonRecord, keys: Sequence[tuple[str, str]], ratios: bool = False) -> dict[str, Any]:
    """Columns and rows of a table; ``ratios`` adds training losses relative to that of the first optimizer."""
    target = "" if comparison.target is None else f" of {digits(comparison.target)}"
    columns = [f"{split} {name}".strip().replace("steps to target", f"steps to a loss{target}") for split, name in keys]
    cells = [column(comparison, key) for key in keys]
    if ratios and len(comparison.results) > 1:
        columns.append(f"train loss relative to {comparison.results[0].name}")
        cells.append([_paired(comparison, number, 0, ("train", "loss")) for number in range(len(comparison.results))])
    rows = [{"result": result, "cells": row} for result, row in zip(comparison.results, zip(*cells))]
    return {"columns": columns, "rows": rows}


def column(comparison: ComparisonRecord, key: tuple[str, str]) -> list[_Cell | None]:
    """Mean over episodes with a 95% bootstrap interval over episodes."""
    cells: list[_Cell | None] = []
    for result in comparison.results:
        values = result.metrics.get(key, numpy.zeros(0))
        finite = values[numpy.isfinite(values)]
        if len(finite):
            means = finite[_resamples(len(finite))].mean(1)
            absent = len(values) - len(finite)
            counted = key[1] == "steps to target"
            note = (
                f"{len(finite)} of {len(values)} reached it"
                if counted
                else f"excluding {absent} lost run{'s'[: absent - 1]}"
            )
            cells.append(_Cell(float(finite.mean()), *_interval(means), note if absent else ""))
        else:
            cells.append(None)
    means = [cell.mean for cell in cells if cell is not None and not cell.note]
    if key[1] not in _BEST or len(means) < 2:
        return cells
    best = _BEST[key[1]](means)
    return [cell and replace(cell, best=not cell.note and cell.mean == best) for cell in cells]


def _paired(comparison: ComparisonRecord, one: int, other: int, key: tuple[str, str]) -> _Cell | None:
    """Mean of ``one`` divided by mean of ``other``, with a paired bootstrap interval."""
    over, under = (comparison.results[number].metrics.get(key) for number in (one, other))
    if over is None or under is None or len(over) != len(under) or not (under > 0).all():
        return None
    if not (numpy.isfinite(over) & numpy.isfinite(under)).all():
        return None
    drawn = _resamples(len(over))
    ratios = over[drawn].mean(1) / under[drawn].mean(1)
    return _Cell(float(over.mean() / under.mean()), *_interval(ratios))


def against_best(comparison: ComparisonRecord, key: tuple[str, str], words: str) -> Verdict | None:
    """The first optimizer vs. the best of the others: a ratio of losses or a difference of accuracies."""
    larger = key[1] == "accuracy"
    worst = -numpy.inf if larger else numpy.inf
    means = [
        float(numpy.nan_to_num(result.metrics[key].mean(), nan=worst)) if key in result.metrics else worst
        for result in comparison.results
    ]
    if len(means) < 2 or not numpy.isfinite(means[1:]).any():
        return None
    rival = 1 + int(numpy.argmax(means[1:]) if larger else numpy.argmin(means[1:]))
    found = _difference(comparison, 0, rival, key) if larger else _paired(comparison, 0, rival, key)
    if found is None:
        return None
    tuned = "tuned " if comparison.results[rival].tuning else ""
    space = "\N{NO-BREAK SPACE}"
    if larger:
        change = f"{100 * abs(found.mean):.1f}{space}points {'higher' if found.mean > 0 else 'lower'}"
        interval = f"difference {found.mean:+.4f}, 95% interval {found.low:+.4f} to {found.high:+.4f}".replace("-", "−")
        kind = "good" if found.low > 0 else "bad" if found.high < 0 else "even"
    else:
        percent = f"{100 * abs(found.mean - 1):.0f}% {'lower' if found.mean < 1 else 'higher'}"
        change = f"{found.mean:.3g} times as high" if found.mean >= 3 else percent
        interval = f"ratio {found.mean:.2f}, 95% interval {found.low:.2f} to {found.high:.2f}"
        kind = "good" if found.high < 1 else "bad" if found.low > 1 else "even"
    p = _chance(comparison, rival, key)
    if p is not None:
        interval += f", p = {p:.2g}"
        kind = kind if p < 0.05 else "even"
    rest = f"{tuned}{comparison.results[rival].name}, the best other optimizer"
    return Verdict(change, words, f"{digits(means[0])} vs. {digits(means[rival])} for {rest} ({interval})", kind)


def _chance(comparison: ComparisonRecord, rival: int, key: tuple[str, str]) -> float | None:
    """The Holm-corrected p-value of the first optimizer's difference from ``rival``, if it was tested."""
    quantity, name = " ".join(key), comparison.results[rival].name
    return next((d.p for d in comparison.differences if (d.baseline, d.quantity) == (name, quantity)), None)


def _difference(comparison: ComparisonRecord, one: int, other: int, key: tuple[str, str]) -> _Cell | None:
    """Mean of ``one`` minus mean of ``other``, with a paired bootstrap interval."""
    first, second = (comparison.results[number].metrics.get(key) for number in (one, other))
    if first is None or second is None or len(first) != len(second):
        return None
    differences = first - second
    if not numpy.isfinite(differences).all():
        return None
    return _Cell(float(differences.mean()), *_interval(differences[_resamples(len(differences))].mean(1)))


def difference_table(comparison: ComparisonRecord) -> dict[str, Any] | None:
    """Differences from the first optimizer: one row per baseline, one column per quantity."""
    found = {(row.baseline, row.quantity): row for row in comparison.differences}
    if not found:
        return None
    baselines, quantities = (list(dict.fromkeys(keys)) for keys in zip(*found))
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


def digits(value: float | None) -> str:
    """A number formatted to four significant digits; a dash for ``None``."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−")
