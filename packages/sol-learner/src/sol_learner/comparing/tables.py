"""A comparison as text: tables that a terminal of 80 columns holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from sol_learner.comparing.comparison import Comparison, Contender, finite_mean

__all__ = ["report", "results"]

_NAME = 14


def results(comparison: Comparison) -> str:
    """The table of losses and metrics after the last step, and what was lost; see :meth:`Comparison.table`."""
    pairs = _pairs(comparison)
    return "\n\n".join([_results(comparison, pairs), *_lost(comparison, pairs)])


def report(comparison: Comparison, statistics: bool) -> str:
    """All tables; see :meth:`Comparison.report`."""
    pairs = _pairs(comparison)
    parts = [_results(comparison, pairs), _speed(comparison, pairs)]
    if comparison.protocol.get("tune"):
        parts.append(_tuning(comparison.protocol, pairs))
    if statistics and len(pairs) > 1 and comparison.episodes > 1:
        parts.append(_tests(comparison, {contender.name: name for name, contender in pairs}))
    return "\n\n".join([*parts, *_lost(comparison, pairs)])


def _pairs(comparison: Comparison) -> list[tuple[str, Contender]]:
    """Contenders by their names in tables."""
    return list(zip(_shortened([contender.name for contender in comparison.contenders]), comparison.contenders))


def _lost(comparison: Comparison, pairs: Sequence[tuple[str, Contender]]) -> list[str]:
    lines = [
        f"{name}: {len(c.diverged)} of {comparison.episodes} runs diverged"
        f" ({', '.join(f'seed {e} after step {t}' for e, t in c.diverged.items())}); means are of the others"
        for name, c in pairs
        if c.diverged
    ]
    lines += [f"FAILED: {line}" for line in comparison.failures]
    return ["\n".join(lines)] if lines else []


def _results(comparison: Comparison, pairs: Sequence[tuple[str, Contender]]) -> str:
    columns = [*comparison.metrics[:2], *comparison.metrics[2:3]]
    rows = [["optimizer", "lr", *columns]]
    for name, contender in pairs:
        quantities = contender.quantities(None)
        tuned = " tuned" if contender.trials else ""
        rows.append([name, f"{contender.lr:.3g}{tuned}", *(_spread(quantities[column]) for column in columns)])
    over = f"mean ± standard deviation over {comparison.episodes} held-out seeds"
    return f"{_laid_out(rows)}\n{comparison.task}, {comparison.horizon} steps; {over}"


def _speed(comparison: Comparison, pairs: Sequence[tuple[str, Contender]]) -> str:
    rows = [["optimizer", "best loss", "area", "to target", "ms/step", "state kB", "peak MB"]]
    for name, contender in pairs:
        quantities = contender.quantities(comparison.target)
        numbers = [f"{finite_mean(quantities[column]):.4f}" for column in ("best loss", "area")]
        reached = _reached(quantities["steps to target"]) if comparison.target is not None else "-"
        sizes = [1e3 * finite_mean(contender.seconds), (contender.state_bytes or 0) / 1e3]
        sizes.append(finite_mean(contender.peak_bytes) / 1e6)
        rows.append([name, *numbers, reached, *("-" if math.isnan(size) else f"{size:.3g}" for size in sizes)])
    window = max(1, comparison.horizon // 20)
    note = f"batch losses, means over {window} steps" if window > 1 else "batch losses"
    target = "" if comparison.target is None else f"; target {comparison.target:.4g}"
    return f"{_laid_out(rows)}\n{note}{target}; peak memory is the whole process's"


def _tuning(protocol: Mapping[str, object], pairs: Sequence[tuple[str, Contender]]) -> str:
    count = len(protocol["tuning_episodes"])  # type: ignore[arg-type]
    lines = [
        f"tuned: {protocol['tune']}, {protocol['trials']} trials each, by the {protocol['tune_for']} loss after the"
    ]
    lines[0] += f" last step, mean of {count} other seeds"
    for name, contender in pairs:
        if contender.trials and len(contender.settings) > 1:
            lines.append(f"  {name}: {', '.join(f'{key} {value}' for key, value in contender.settings.items())}")
    return "\n".join(lines)


def _tests(comparison: Comparison, short: Mapping[str, str]) -> str:
    rows = [["difference in", "against", "mean", "95 % interval", "p (Holm)"]]
    for row in comparison.differences():
        if row["quantity"] in comparison.metrics[:3]:
            interval = row["interval"]
            told = "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            mean = "-" if row["mean"] is None else f"{row['mean']:+.4f}"
            p = "-" if row["p_holm"] is None else f"{row['p_holm']:.2g}"
            rows.append([row["quantity"], short[row["baseline"]], mean, told, p])
    first, count = short[comparison.contenders[0].name], len(comparison.contenders) - 1
    return f"{_laid_out(rows)}\n{first} minus each; BCa bootstrap; paired t-test, Holm's correction for {count}"


def _spread(values: Tensor) -> str:
    finite = values[values.isfinite()]
    if not len(finite):
        return "-"
    mean, digits = float(finite.mean()), 4
    while digits > 0 and abs(mean) >= 10 ** (5 - digits):
        digits -= 1
    spread = f" ± {finite.std():.{digits}f}" if len(finite) > 1 else ""
    return f"{mean:.{digits}f}{spread}{'*' if len(finite) < len(values) else ''}"


def _reached(values: Tensor) -> str:
    """Median step, and how many seeds got there where not all did."""
    finite = values[values.isfinite()]
    if not len(finite):
        return "never"
    count = f" ({len(finite)}/{len(values)})" if len(finite) < len(values) else ""
    return f"{finite.quantile(0.5):.0f}{count}"


def _shortened(names: Sequence[str]) -> list[str]:
    """Names of at most 14 characters; long ones keep both ends, and a number where that makes two the same."""
    short: list[str] = []
    for number, name in enumerate(names, 1):
        text = name if len(name) <= _NAME else f"{name[: _NAME - 7]}…{name[-6:]}"
        short.append(text if text not in short else f"{text[: _NAME - 3]}#{number}")
    return short


def _laid_out(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
