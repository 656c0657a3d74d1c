r"""Bounds of expressions: interval arithmetic that knows Cauchy and Schwarz.

Plain intervals let Adam's direction m_hat/(sqrt(v_hat) + eps) reach max|g|/eps, because they ignore that m and v
average the same gradients. A bound therefore also records, where it is known, how a quantity X depends on g_1..g_n:

    linear   X  = sum_i a_i g_i          (m, m_hat, b, look-ahead momenta)
    energy   X >= sum_i a_i g_i^2        (v, v_hat, s, and anything that is never negative, with a = 0)
    norm     X >= sqrt(sum_i a_i g_i^2)  (the roots of these)
    inverse  |X| <= 1/sqrt(sum_i a_i g_i^2)

The product of a linear and an inverse quantity is at most sqrt(sum_i a_i^2 / b_i) (Cauchy-Schwarz), which is tight.
Bounds hold up to rounding, if no intermediate result overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy
import sympy
from numpy.typing import NDArray

from sol_symbols.intervals import ANYTHING, Bound
from sol_symbols.operators import operator_of

__all__ = ["enclose"]

Weights = NDArray[numpy.float64]
_INF = math.inf


def enclose(
    expression: sympy.Expr,
    known: Mapping[str, Bound],
    note: Callable[[sympy.Expr, Bound], None] = lambda expression, bound: None,
) -> Bound:
    """A bound of ``expression`` from those of its names; ``note`` gets the bound of every part, inner parts first.

    >>> import sympy
    >>> from sol_symbols import symbol
    >>> bound = enclose(symbol("g")**2 + sympy.tanh(symbol("m")), {"g": Bound(-2, 1), "m": Bound(-9e9, 0)})
    >>> bound.lo, bound.hi
    (-1.0, 4.0)
    """
    if expression.is_Symbol:
        return known[expression.name]
    if expression.is_number:
        value = float(expression)
        return Bound(value, value)
    parts = [enclose(argument, known, note) for argument in expression.args]
    if expression.is_Add:
        bound = _sum(parts)
    elif expression.is_Mul:
        bound = _product(parts)
    elif expression.is_Pow:
        bound = _power(*parts)
    else:
        operator = operator_of(expression.func)
        bound = operator.bounds(*parts) if operator is not None and operator.bounds is not None else ANYTHING
    note(expression, bound)
    return bound


def _sum(parts: list[Bound]) -> Bound:
    lo, hi = sum(part.lo for part in parts), sum(part.hi for part in parts)
    norms = [part.norm for part in parts if part.norm is not None]
    linear = [part.linear for part in parts]
    return Bound(
        -_INF if math.isnan(lo) else lo,
        _INF if math.isnan(hi) else hi,
        linear=None if any(a is None for a in linear) else sum(linear),  # type: ignore[arg-type]
        energy=_energies(parts),
        norm=norms[0] if norms and all(part.norm is not None or part.lo >= 0 for part in parts) else None,
    )


def _energies(parts: list[Bound]) -> Weights | None:
    known = [part.energy for part in parts if part.energy is not None]
    return sum(known) if known and all(p.energy is not None or p.lo >= 0 for p in parts) else None  # type: ignore


def _product(parts: list[Bound]) -> Bound:
    constants = [part for part in parts if part.lo == part.hi and part.linear is None]
    others = [part for part in parts if not (part.lo == part.hi and part.linear is None)]
    factor = math.prod(part.lo for part in constants)
    paired = list(_paired(others))
    bound = Bound(factor, factor)
    for part in paired:
        bound = _times(bound, part)
    if len(others) == 1 and math.isfinite(factor):
        (part,) = others
        positive = factor if factor > 0 else None
        bound = replace(
            bound,
            linear=_scaled(part.linear, factor),
            energy=_scaled(part.energy, positive),
            norm=_scaled(part.norm, positive and _squared(positive)),
            inverse=_scaled(part.inverse, factor and _squared(1 / factor)),
        )
    return bound


def _scaled(weights: Weights | None, factor: float | None) -> Weights | None:
    return None if weights is None or factor is None or not math.isfinite(factor) else weights * factor


def _squared(x: float) -> float:
    return x * x  # x**2 raises an error where this is infinite


def _paired(parts: list[Bound]) -> Iterator[Bound]:
    """The factors; linear and inverse ones are combined in pairs while there are both."""
    inverses = [part for part in parts if part.inverse is not None]
    for part in parts:
        if part.inverse is not None:
            continue
        if part.linear is None or not inverses:
            yield part
            continue
        inverse = inverses.pop()
        with numpy.errstate(all="ignore"):
            shares = numpy.where(part.linear == 0, 0.0, part.linear**2 / inverse.inverse)  # type: ignore[operator]
        limit = float(numpy.sqrt(shares.sum()))
        plain = _times(part, inverse)
        yield Bound(max(plain.lo, -limit), min(plain.hi, limit))
    yield from inverses


def _times(x: Bound, y: Bound) -> Bound:
    # 0 times an infinite bound is 0: the bound means finite values of any size.
    corners = [0.0 if a == 0 or b == 0 else a * b for a in (x.lo, x.hi) for b in (y.lo, y.hi)]
    return Bound(min(corners), max(corners))


def _power(base: Bound, exponent: Bound) -> Bound:
    if exponent.lo != exponent.hi:
        if base.lo <= 0:
            return ANYTHING
        corners = [_raise(b, e) for b in (base.lo, base.hi) for e in (exponent.lo, exponent.hi)]
        return Bound(min(corners), max(corners))
    power = exponent.lo
    if power == 1:
        return base
    if power < 0:
        return _reciprocal(_power(base, Bound(-power, -power)))
    if power == int(power):
        ends = [_raise(base.lo, power), _raise(base.hi, power)]
        even = power % 2 == 0
        bound = Bound(0.0 if even and base.lo < 0 < base.hi else min(ends), max(ends))
    else:  # nan for a negative base, which no bound covers
        bound = Bound(_raise(max(base.lo, 0.0), power), _raise(max(base.hi, 0.0), power))
    if power == 2 and base.linear is not None and numpy.count_nonzero(base.linear) <= 1:
        return replace(bound, energy=base.linear**2)
    if power == 2 and base.norm is not None:
        return replace(bound, energy=base.norm)
    return replace(bound, norm=base.energy) if power == 0.5 and base.energy is not None else bound


def _raise(base: float, power: float) -> float:
    try:
        return float(base**power)
    except OverflowError:
        return -_INF if base < 0 and power % 2 == 1 else _INF
    except ZeroDivisionError:
        return _INF


def _reciprocal(x: Bound) -> Bound:
    if x.lo < 0 < x.hi:
        return ANYTHING
    if x.hi <= 0:
        return Bound(-_INF if x.hi == 0 else 1 / x.hi, 1 / x.lo if x.lo else -_INF)
    return Bound(1 / x.hi, _INF if x.lo == 0 else 1 / x.lo, inverse=x.norm)
