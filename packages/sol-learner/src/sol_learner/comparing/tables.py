"""Text tables for an 80-column terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
from torch import Tensor

__all__ = ["laid_out", "median_of", "reached", "shortened", "spread"]

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


def reached(steps: Tensor) -> str:
    """Median steps to the target, with the number of seeds that reached it if not all did."""
    count = int(steps.isfinite().sum())
    return f"{median_of(steps)}{f' ({count}/{len(steps)})' if count < len(steps) else ''}"


def median_of(values: Tensor) -> str:
    """The median of values that are infinite where a target was missed: ``never`` if it is."""
    known = values[~values.isnan()].numpy()
    middle = float(numpy.median(known)) if len(known) else math.nan
    if not math.isfinite(middle):
        return "-" if math.isnan(middle) else "never"
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.3g}"


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
