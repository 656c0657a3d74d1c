"""The kinds of values in a formula, and the tensors that an optimizer updates together.

========== =========================================================
coordinate one number per element of a parameter, such as ``g``
tensor     one number per parameter tensor, such as ``rms(g)``
run        one number, such as ``t``, ``all_rms(g)`` or a constant
========== =========================================================

Kinds combine upwards: a tensor value times a coordinate value is a coordinate value. Only reductions lead down.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["Kind", "Layout"]


class Kind(enum.IntEnum):
    """How many numbers a value has; the larger of two kinds is that of their sum."""

    RUN = 0
    TENSOR = 1
    COORDINATE = 2

    @property
    def label(self) -> str:
        """Its name in texts and files."""
        return self.name.lower()

    @property
    def description(self) -> str:
        """The kind in words."""
        return ("one number", "one number per tensor", "one number per coordinate")[self]


@dataclass(frozen=True)
class Layout:
    """Parameter tensors that are stored one after another along the last axis of an array.

    Attributes:
        shapes: The shape of each tensor; scalars, ``()``, and empty tensors are allowed.

    >>> layout = Layout(((2, 3), (3,), ()))
    >>> layout.sizes, layout.fan_in, layout.is_vector
    ((6, 3, 1), (3, 1, 1), (0, 1, 1))
    """

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of coordinates of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Where each tensor ends on the axis."""
        return tuple(itertools.accumulate(self.sizes))

    @property
    def fan_in(self) -> tuple[int, ...]:
        """Number of inputs of each unit: elements per row of a tensor of two or more dimensions, else 1."""
        return tuple(max(math.prod(shape[1:]), 1) for shape in self.shapes)

    @property
    def is_vector(self) -> tuple[int, ...]:
        """1 for each tensor of less than two dimensions, else 0."""
        return tuple(int(len(shape) < 2) for shape in self.shapes)

    def split(self, values: Any) -> list[Any]:
        """The tensors in an array of shape [..., coordinates]; each has the leading axes, then its own shape."""
        starts = (0, *self.ends)
        pieces = (values[..., a:b] for a, b in itertools.pairwise(starts))
        return [piece.reshape((*values.shape[:-1], *shape)) for piece, shape in zip(pieces, self.shapes)]

    @classmethod
    def of(cls, tensors: Sequence[Any]) -> Layout:
        """The layout of arrays."""
        return cls(tuple(tuple(int(n) for n in tensor.shape) for tensor in tensors))
