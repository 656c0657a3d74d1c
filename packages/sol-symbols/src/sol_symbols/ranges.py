"""How large a rule's quantities can get, and in which number formats they overflow.

Stochastic training in float16 or bfloat16 fails on unexpected values: squared gradients above 65,504, exp of a
direction above 11, an eps that is 0. :func:`value_ranges` bounds every name of a rule step by step, for all gradients
of a stated size (see :mod:`sol_symbols.bounds`), and warns of what can go wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import sympy

from sol_symbols.bounds import ANYTHING, enclose
from sol_symbols.errors import RuleError
from sol_symbols.grammar import format_expression
from sol_symbols.intervals import Bound
from sol_symbols.operators import Reduction, operator_of
from sol_symbols.rule import UpdateRule, checked_rule

__all__ = ["FORMATS", "NumberFormat", "Ranges", "value_ranges"]

MAX_STEPS = 1_000


@dataclass(frozen=True)
class NumberFormat:
    """A floating point format.

    Attributes:
        name: Its name.
        largest: Largest finite number.
        smallest: Smallest positive number, subnormal ones included.
    """

    name: str
    largest: float
    smallest: float


FORMATS = (
    NumberFormat("float32", (2 - 2.0**-23) * 2.0**127, 2.0**-149),
    NumberFormat("bfloat16", (2 - 2.0**-7) * 2.0**127, 2.0**-133),
    NumberFormat("float16", 65504.0, 2.0**-24),
)

"""The formats that warnings are about."""


@dataclass(frozen=True)
class Ranges:
    """Bounds of a rule's quantities, for all gradients in ``[-gradient, gradient]``, and likewise for the parameter.

    Attributes:
        gradient: Largest absolute gradient.
        parameter: Largest absolute value of the parameter.
        steps: The bounds hold for this many first steps.
        bounds: ``(lowest, highest)`` of every live name, and of ``"phi"``.
        warnings: A line for each quantity that overflows, divides by zero or vanishes.
    """

    gradient: float
    parameter: float
    steps: int
    bounds: Mapping[str, tuple[float, float]]
    warnings: tuple[str, ...]


def value_ranges(
    rule: UpdateRule, gradient: float = 100.0, parameter: float = 100.0, steps: int | None = None
) -> Ranges:
    """Bounds of all quantities, and warnings where float32, bfloat16 or float16 overflow.

    The bounds hold for every trajectory within the stated sizes; those of Adam's direction and its relatives are
    tight (see :mod:`sol_symbols.bounds`).

    Args:
        rule: The rule.
        gradient: Largest absolute gradient.
        parameter: Largest absolute value of the parameter.
        steps: Number of first steps to bound, at most 1,000; the horizon by default, or 100 where it is open.

    Raises:
        RuleError: An argument is out of range.

    >>> value_ranges(UpdateRule.parse("exp(2*g)"), gradient=10).warnings
    ('exp(2*g) in phi can reach 4.85e+08, above float16 (6.55e+04)',)
    """
    rule = checked_rule(rule)
    for name, value in (("gradient", gradient), ("parameter", parameter)):
        if not (math.isfinite(value) and value > 0):
            raise RuleError(f"{name} must be a positive number, got {value!r}")
    steps = int(min(rule.horizon or 100, MAX_STEPS)) if steps is None else steps
    if not 1 <= steps <= MAX_STEPS:
        raise RuleError(f"steps must be between 1 and {MAX_STEPS:,}, got {steps!r}")
    definitions = [(name, rule.vocabulary.definitions[name]) for name in rule.live] + [("phi", rule.expression)]
    seen: dict[tuple[str, sympy.Expr], Bound] = {}
    total: dict[str, Bound] = {}
    values = {name: value if value is not None else float(steps) for name, value in rule.values.items()}
    known = {name: Bound(value, value) for name, value in values.items()}
    known |= {"fan_in": Bound(1.0, math.inf), "is_vector": Bound(0.0, 1.0), "loss": ANYTHING}
    for state in rule.states:
        init = rule.vocabulary.recurrences[state].init
        nothing = numpy.zeros(steps)
        known[f"{state}_prev"] = Bound(init, init, *((nothing, nothing) if init == 0 else ()))
    for t in range(1, steps + 1):
        weights = numpy.zeros(steps)
        weights[t - 1] = 1
        known |= {"t": Bound(t, t), "g": Bound(-gradient, gradient, linear=weights), "w": Bound(-parameter, parameter)}
        for name, definition in definitions:

            def note(part: sympy.Expr, bound: Bound, name: str = name) -> None:
                seen[name, part] = bound.hull(seen.get((name, part), bound))

            known[name] = enclose(definition, known, note)
            total[name] = known[name].hull(total.get(name, known[name]))
        known |= {f"{state}_prev": known[state] for state in rule.states}
    bounds = {name: (bound.lo, bound.hi) for name, bound in total.items()}
    warnings = [*_overflows(seen, {**known, **total}), *_vanishing(rule)]
    return Ranges(gradient, parameter, steps, bounds, tuple(dict.fromkeys(warnings)))


def _overflows(seen: Mapping[tuple[str, sympy.Expr], Bound], names: Mapping[str, Bound]) -> list[str]:
    """A line for each part that exceeds a format while its operands do not."""
    lines = []
    divisors = {factor for _, part in seen if part.is_Mul and len(_factors(part)) > 1 for factor in part.args}
    for (owner, part), bound in seen.items():
        if _divides(part) and part in divisors:
            continue  # x/y is one operation; 1/y alone is never computed
        if isinstance(operator_of(part.func), Reduction) and bound.size == math.inf:
            continue  # it grows with the tensor, whose size is unknown
        inner = [_size(owner, argument, seen, names) for argument in _operands(part)]
        if bound.size == math.inf and all(math.isfinite(size) for size in inner):
            zero = isinstance(part, sympy.log) or any(map(_divides, (part, *part.args)))
            reason = "has no bound: its divisor, or the argument of its log, can be 0" if zero else "overflows float64"
            lines.append(f"{format_expression(part)} in {owner} {reason}")
            continue
        formats = [f for f in FORMATS if all(size <= f.largest for size in inner) and f.largest < bound.size < math.inf]
        if formats:
            listed = ", ".join(f"{f.name} ({f.largest:.3g})" for f in formats)
            lines.append(f"{format_expression(part)} in {owner} can reach {bound.size:.3g}, above {listed}")
    return lines


def _divides(part: sympy.Expr) -> bool:
    return bool(part.is_Pow and part.exp.is_number and part.exp.is_negative)


def _factors(product: sympy.Expr) -> list[sympy.Expr]:
    return [factor for factor in product.args if not factor.is_number]


def _operands(part: sympy.Expr) -> list[sympy.Expr]:
    """Operands of ``part``; those of a quotient are the divisors, not their reciprocals."""
    return [argument.base if part.is_Mul and _divides(argument) else argument for argument in part.args]


def _size(
    owner: str, part: sympy.Expr, seen: Mapping[tuple[str, sympy.Expr], Bound], names: Mapping[str, Bound]
) -> float:
    if part.is_number:
        return abs(float(part))
    return names[part.name].size if part.is_Symbol else seen[owner, part].size


def _vanishing(rule: UpdateRule) -> list[str]:
    """A line for each constant that is 0 in a format."""
    numbers = {name: value for name, value in rule.values.items() if value}
    numbers |= {format_expression(number): float(number) for number in rule.expression.atoms(sympy.Float)}
    lines = []
    for name, value in numbers.items():
        lost = [f.name for f in FORMATS if abs(value) <= f.smallest / 2]
        if lost:
            shown = name if name not in rule.values else f"{name} = {value:g}"
            lines.append(f"{shown} is 0 in {', '.join(lost)}")
    return lines
