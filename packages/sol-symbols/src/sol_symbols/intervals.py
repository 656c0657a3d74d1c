"""Intervals that remember how a quantity depends on the gradients; :mod:`sol_symbols.bounds` computes with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Weights = NDArray[numpy.float64]

__all__ = ["ANYTHING", "Bound", "monotone"]


@dataclass(frozen=True)
class Bound:
    """What is known of a quantity: ``lo <= X <= hi``, and the forms in :mod:`sol_symbols.bounds`."""

    lo: float
    hi: float
    linear: Weights | None = None
    energy: Weights | None = None
    norm: Weights | None = None
    inverse: Weights | None = None

    @property
    def size(self) -> float:
        """The largest possible absolute value."""
        return max(abs(self.lo), abs(self.hi))

    def hull(self, other: Bound) -> Bound:
        """The interval that covers both; forms are dropped."""
        return Bound(min(self.lo, other.lo), max(self.hi, other.hi))


ANYTHING = Bound(-math.inf, math.inf)


def monotone(function: Callable[[float], float]) -> Callable[[Bound], Bound]:
    """The bounds of a function that never decreases; a value beyond float64 is infinite."""

    def value(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.copysign(math.inf, x)

    return lambda x: Bound(value(x.lo), value(x.hi))
