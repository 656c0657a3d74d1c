"""Text tables for an 80-column terminal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["laid_out", "reached", "shortened", "spread"]

_NAME = 14


def spread(values: Tensor) -> str:
    """Mean and standard deviation of the finite values; an asterisk marks that some are not finite."""
    finite = values[values.isfinite()]
    if not len(finite):
        return "-"
    mean, digits = float(finite.mean()), 4
    while digits > 0 and abs(mean) >= 10 ** (5 - digits):
        digits -= 1
    deviation = f" ± {finite.std():.{digits}f}" if len(finite) > 1 else ""
    return f"{mean:.{digits}f}{deviation}{'*' if len(finite) < len(values) else ''}"


def reached(values: Tensor) -> str:
    """Median step, with the number of seeds that reached the target if not all did."""
    finite = values[values.isfinite()]
    if not len(finite):
        return "never"
    count = f" ({len(finite)}/{len(values)})" if len(finite) < len(values) else ""
    return f"{finite.quantile(0.5):.0f}{count}"


def shortened(names: Sequence[str]) -> list[str]:
    """Names of at most 14 characters; long ones keep both ends, and duplicates get a number."""
    short: list[str] = []
    for number, name in enumerate(names, 1):
        text = name if len(name) <= _NAME else f"{name[: _NAME - 7]}…{name[-6:]}"
        short.append(text if text not in short else f"{text[: _NAME - 3]}#{number}")
    return short


def laid_out(rows: Sequence[Sequence[str]]) -> str:
    """Rows aligned in columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
