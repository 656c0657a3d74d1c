"""The numbers of a rule that a search changes: the coefficients of its terms, and constants such as beta1.

A point z has a coordinate for each of them. Coefficients are c = c_0 + M z, where M whitens the terms on recorded
states and is scaled to phi: a step of 0.1 in any direction of z changes phi by a tenth of its size. A constant x is
searched as

    log x            if it is positive,
    log(1 - x)       if it is between 0 and 1, like beta1,
    x                otherwise,

and moves by :data:`STEP` for a unit of z. A term with such a constant as a factor, like wd*w, keeps its coefficient.

Factors that only act where training is in trouble, like ``calm``, are 1 while candidates are compared: they would make
rules at the edge of stability look better than they are. What the search finds has them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
import sympy
import torch
from torch import Tensor

from sol_learner.search.samples import Samples
from sol_learner.search.terms import Fit, combine, opened, split
from sol_symbols import SolError, UpdateRule, Vocabulary, symbol

__all__ = ["STEP", "SearchSpace", "SearchedConstant", "searched_constants"]

STEP = 2.5
"""Change of a constant's coordinate for a unit of z; a tenth of the range for constants with one."""

_FIXED = {"T", "eps", "rate_limit"}  # part of the task, or without influence
_SHAPES = {"fan_in_power", "vector_gain"}
"""How a rule depends on the shapes of tensors: one task has too few of them to learn it from."""
_SAFEGUARDS = {symbol("calm"): sympy.Integer(1)}


@dataclass(frozen=True)
class SearchedConstant:
    """A constant of a rule and its coordinate.

    Attributes:
        name: Its name.
        start: Value at z = 0.
        low, high: Its range.
    """

    name: str
    start: float
    low: float
    high: float

    def at(self, z: Tensor) -> Tensor:
        """Values at coordinates z, in the range."""
        if (self.low, self.high) == (0.0, 1.0):
            return 1 - ((1 - self.start) * torch.exp(STEP * z)).clamp(max=0.95)
        if self.low == 0.0:
            return self.start * torch.exp((STEP * z).clamp(max=50))
        width = self.high - self.low
        return (self.start + (0.1 * width if math.isfinite(width) else STEP) * z).clamp(self.low, self.high)


def searched_constants(rule: UpdateRule, vocabulary: Vocabulary, shapes: bool = True) -> tuple[SearchedConstant, ...]:
    """The constants that a search may change: all but T, eps, limits, and those that are 0; without ``shapes``, also
    all but those that say how the step depends on the shape of a tensor."""
    known = vocabulary.hyperparameters
    found = []
    for name, value in sorted(rule.values.items()):
        if value and name not in (_FIXED if shapes else _FIXED | _SHAPES):
            low, high = (known[name].lower, known[name].upper) if name in known else (-math.inf, math.inf)
            found.append(SearchedConstant(name, value, low, high))
    return tuple(found)


class SearchSpace:
    """Coordinates around a rule.

    Args:
        rule: The rule at z = 0.
        samples: Recorded states, for the scale of each term.
        constants: Whether to search constants, too.
        shapes: Whether these include how the step depends on the shape of a tensor.

    Attributes:
        units: The terms, without those that are 0 or not finite on the samples; the last ones keep their coefficients.
        open_rule: The rule with a constant in place of each coefficient, and without safeguards.
        size: Number of coordinates.

    Raises:
        SolError: No term is finite and nonzero on the recorded states.
    """

    def __init__(self, rule: UpdateRule, samples: Samples, constants: bool, shapes: bool = True) -> None:
        self.rule = rule
        self.constants = searched_constants(rule, rule.vocabulary, shapes) if constants else ()
        terms, factors = dict(zip(*split(rule))), {symbol(constant.name) for constant in self.constants}
        held = {unit: c for unit, c in terms.items() if not factors.isdisjoint(sympy.Mul.make_args(unit))}
        units, start = [unit for unit in terms if unit not in held], [c for u, c in terms.items() if u not in held]
        fit = Fit(samples, units, (units, start)) if units else None
        if fit is None or not fit.usable:
            raise SolError(f"nothing to polish: no term of {rule} is finite and nonzero on the recorded states")
        self.units = [*(units[j] for j in fit.usable), *held]
        self._center = torch.tensor([*(start[j] for j in fit.usable), *held.values()], dtype=torch.float64)
        self._matrix = torch.cat([fit.whitening(fit.usable), torch.zeros(len(held), len(fit.usable))]).double()
        self.size = len(fit.usable) + len(self.constants)
        self.open_rule, self._names = opened(rule, [unit.xreplace(_SAFEGUARDS) for unit in self.units])

    def numbers(self, points: Tensor) -> dict[str, Tensor]:
        """Values of :attr:`open_rule` at points z, [..., size]: each [...], differentiable."""
        terms, rest = points.split([self.size - len(self.constants), len(self.constants)], -1)
        coefficients = self._center + terms @ self._matrix.T
        values = dict(zip(self._names, coefficients.unbind(-1)))
        return values | {constant.name: constant.at(z) for constant, z in zip(self.constants, rest.unbind(-1))}

    def rule_at(self, z: numpy.ndarray) -> UpdateRule:
        """The rule at a point, its numbers rounded."""
        values = {name: float(value) for name, value in self.numbers(torch.from_numpy(z)).items()}
        coefficients = [values.pop(name) for name in self._names]
        return combine(self.rule, self.units, coefficients, values)
