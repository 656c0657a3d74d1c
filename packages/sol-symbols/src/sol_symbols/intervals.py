"""Bounds of a quantity: an interval, and how the quantity depends on the gradients.

:mod:`sol_symbols.operators` states how each function maps these, :mod:`sol_symbols.bounds` combines them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["ANYTHING", "Bound", "increasing"]


@dataclass(frozen=True)
class Bound:
    """What is known of a quantity X: ``lo <= X <= hi``, and the forms that :mod:`sol_symbols.bounds` explains."""

    lo: float
    hi: float
    linear: NDArray[numpy.float64] | None = None
    energy: NDArray[numpy.float64] | None = None
    norm: NDArray[numpy.float64] | None = None
    inverse: NDArray[numpy.float64] | None = None

    @property
    def size(self) -> float:
        """The largest possible absolute value."""
        return max(abs(self.lo), abs(self.hi))

    def hull(self, other: Bound) -> Bound:
        """The interval that covers both; forms are dropped."""
        return Bound(min(self.lo, other.lo), max(self.hi, other.hi))


ANYTHING = Bound(-math.inf, math.inf)


def increasing(function: Callable[[float], float]) -> Callable[[Bound], Bound]:
    """The bounds of a function that never decreases: its values at the ends of the interval.

    An ``OverflowError`` counts as infinity with the sign of the argument.
    """

    def value(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.copysign(math.inf, x)

    return lambda x: Bound(value(x.lo), value(x.hi))
