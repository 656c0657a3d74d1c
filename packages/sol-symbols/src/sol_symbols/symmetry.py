"""How an expression responds to the sign and the scale of the gradients.

phi is odd when phi(-g_1..-g_t) = -phi(g_1..g_t): the optimizer then treats a problem and its mirror image alike, as
all the classics do. Terms that are not odd push every parameter in one direction regardless of the gradients.

phi has scaling degree k when phi(c g_1..c g_t) = c^k phi(g_1..g_t) for all c > 0: 0 for Adam, 1 for gradient descent.
Terms of a degree above 1 are harmless on gradients like those they were fitted to and explode on larger ones. Where
a rule uses the loss, that is multiplied by c, too, as for a task with c times the loss.
"""

from __future__ import annotations

import itertools
import math

import numpy
import sympy

from sol_symbols.grammar import symbol
from sol_symbols.operators import operator_of
from sol_symbols.probes import measure, trajectories
from sol_symbols.rule import UpdateRule, checked_rule
from sol_symbols.vocabulary import Vocabulary

__all__ = ["parity", "probed_parity", "probed_scaling_degree", "scaling_degree"]

_FACTOR = 64.0  # a power of 4: rounding is the same at all scales
_SCALES = numpy.array([_FACTOR**k for k in range(-3, 6)])  # of the gradients of a run each: 4e-6 to 1e9
_SIZES = (0.3, 1.0, 3.0)  # of the tensors in a run, times its scale
_NO_EPS = 1e-120  # not 0: a 0/0 would spread over its tensor
_LARGEST = 1e50  # of what is not by the smallness of eps
_PARITIES: dict[str | None, int] = {"odd": -1, "even": 1}


def parity(expression: sympy.Expr, vocabulary: Vocabulary) -> int:
    """-1: odd in the history of gradients; 1: even; 0: neither, or not recognized. Zero counts as even.

    The parameter value ``w`` counts as odd, as it does for a problem mirrored at the origin (weight decay).

    >>> from sol_symbols import STANDARD
    >>> [parity(STANDARD.parse(text), STANDARD) for text in ("ad*ld + g**3", "sqrt(v_hat)", "exp(g)")]
    [-1, 1, 0]
    """
    parities = {"g": -1, "w": -1}
    order = _states_first(expression, vocabulary)
    parities |= {f"{name}_prev": 0 for name in order if name in vocabulary.recurrences}  # not known yet
    before: dict[str, int] = {}
    while before != parities:  # features of old values come before the states whose values they are
        before = dict(parities)
        for name in order:
            definition, old = vocabulary.definitions[name], f"{name}_prev"
            if name not in vocabulary.recurrences:
                parities[name] = _parity(definition, parities)
                continue
            # A state is odd (even) if its update is for an odd (even) old value.
            possible = (-1, 1) if vocabulary.recurrences[name].init == 0 else (1,)
            found = [sign for sign in possible if _parity(definition, {**parities, old: sign}) == sign]
            parities[name] = parities[old] = found[0] if found else 0
    return _parity(expression, parities)


def _states_first(expression: sympy.Expr, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Live names; states come before features that can use their old values."""
    states = [symbol(name) for name in vocabulary.live(expression) if name in vocabulary.recurrences]
    return vocabulary.live(*states, expression)


def _parity(expression: sympy.Expr, parities: dict[str, int]) -> int:
    if expression.is_Symbol:
        return parities.get(expression.name, 1)
    parts = [_parity(argument, parities) for argument in expression.args]
    if all(part == 1 for part in parts):
        return 1
    clipped = _clipped(expression)
    if clipped is not None and _parity(clipped[1], parities) == 1:
        return _parity(clipped[0], parities)
    if 0 in parts:
        return 0
    if expression.is_Mul:
        return math.prod(parts)
    if expression.is_Pow and expression.exp.is_Integer:
        return parts[0] ** (int(expression.exp) % 2)
    operator = operator_of(expression.func)
    if operator is not None and operator.parity == "product":
        return math.prod(parts)
    if len(set(parts)) > 1:
        return 0
    if expression.is_Add:
        return parts[0]
    return _PARITIES.get(operator.parity, 0) if operator is not None else 0


def _clipped(expression: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr] | None:
    """x and y of min(max(x, -y), y) or max(min(x, y), -y), which are as odd as x if y is even."""
    if isinstance(expression, sympy.Min | sympy.Max) and len(expression.args) == 2:
        other = sympy.Max if isinstance(expression, sympy.Min) else sympy.Min
        for limit, limited in (expression.args, expression.args[::-1]):
            if isinstance(limited, other) and len(limited.args) == 2 and -limit in limited.args:
                return next(x for x in limited.args if x != -limit), limit
    return None


def scaling_degree(expression: sympy.Expr, vocabulary: Vocabulary) -> sympy.Expr | None:
    """The degree k of the module's equation, or ``None`` if there is none. The stabilizer ``eps`` counts as zero.

    >>> from sol_symbols import STANDARD
    >>> texts = ("ad + sign(g)", "g**2*ld", "sqrt(v_hat)", "g + ad")
    >>> [scaling_degree(STANDARD.parse(text), STANDARD) for text in texts]
    [0, 2, 1, None]
    """
    try:
        return _stable_degree(expression, vocabulary)
    except ValueError:  # SymPy cannot compare what is infinite without eps
        return None


def _stable_degree(expression: sympy.Expr, vocabulary: Vocabulary) -> sympy.Expr | None:
    degrees: dict[str, sympy.Expr | None] = {"g": sympy.Integer(1), "loss": sympy.Integer(1), "w": None}
    order = _states_first(expression, vocabulary)
    degrees |= {f"{name}_prev": None for name in order if name in vocabulary.recurrences}  # not known yet
    before: dict[str, sympy.Expr | None] = {}
    while before != degrees:
        before = dict(degrees)
        for name in order:
            definition = vocabulary.definitions[name].subs(symbol("eps"), 0)
            if name not in vocabulary.recurrences:
                degrees[name] = _degree(definition, degrees)
                continue
            # A state has the degree of what is added to it, if its update is then consistent.
            old = f"{name}_prev"
            fresh = _degree(definition.subs(symbol(old), 0), degrees)
            fresh = fresh if vocabulary.recurrences[name].init == 0 or fresh == 0 else None  # a start has a size
            degrees[old] = fresh
            degrees[name] = fresh if _degree(definition, degrees) == fresh else None
    return _degree(expression.subs(symbol("eps"), 0), degrees)


def _degree(expression: sympy.Expr, degrees: dict[str, sympy.Expr | None]) -> sympy.Expr | None:
    if expression.is_Symbol:
        return degrees.get(expression.name, sympy.Integer(0))
    if not expression.args:
        return sympy.Integer(0)
    extremum = isinstance(expression, sympy.Min | sympy.Max)  # zeros, such as a stabilizer's, are of any degree
    parts = [_degree(argument, degrees) for argument in expression.args if not (extremum and argument.is_zero)]
    if any(part is None for part in parts):
        return None
    operator = operator_of(expression.func)
    if expression.is_Mul or (operator is not None and operator.degree == "product"):
        return sympy.Add(*parts)
    if expression.is_Pow and parts[1] == 0:
        return parts[0] * expression.exp if expression.exp.is_number or parts[0] == 0 else None
    if expression.is_Add:
        return parts[0] if len(set(parts)) == 1 else None
    if operator is not None and isinstance(operator.degree, int) and len(set(parts)) == 1:
        return sympy.Integer(operator.degree) * parts[0]
    return sympy.Integer(0) if all(part == 0 for part in parts) else None


def probed_parity(rule: UpdateRule) -> int:
    """The parity found by evaluation: phi of mirrored gradients and parameters against phi of the originals."""
    rule = checked_rule(rule)
    gradients, parameters = _runs()
    value, mirrored = (measure(rule, [rule.expression], s * gradients, s * parameters, _SCALES)[0] for s in (1, -1))
    return -1 if _close(mirrored, -value) and value.any() else int(_close(mirrored, value))


def probed_scaling_degree(rule: UpdateRule) -> float | None:
    """The scaling degree found by evaluation: the k with phi(64 g) = 64^k phi(g), or ``None``.

    It must hold for optimizers that see gradients of one size each, from 4e-6 to 1e9, and for any change of the
    parameter's value; ``eps`` counts as zero, as for :func:`scaling_degree`. k is a multiple of 1/2 in [-4, 4]; a rule
    that is 0 has none.

    >>> from sol_symbols import ZOO
    >>> [probed_scaling_degree(ZOO[name]) for name in ("adam", "momentum")]
    [0.0, 1.0]
    """
    rule = checked_rule(rule)
    gradients, parameters = _runs()
    parameters[:, 1::3] *= -2
    parameters[:, 2::3] *= 0.01
    values = measure(rule, [rule.expression], gradients, parameters, _SCALES, {"eps": _NO_EPS})[0]
    if "eps" in rule.values:
        size = numpy.abs(values)
        values = numpy.where(size < 1 / _LARGEST, 0, numpy.where(size > _LARGEST, numpy.nan, values))
    pairs = [*itertools.pairwise(values.swapaxes(0, 1))]
    with numpy.errstate(all="ignore"):
        fitting = [k / 2 for k in range(-8, 9) if all(_close(y, _FACTOR ** (k / 2) * x) for x, y in pairs)]
    return fitting[0] if len(fitting) == 1 else None


def _runs() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Gradients and parameters of one run for each scale, [STEPS, scales, coordinates]."""
    gradients, parameters = trajectories(_SIZES)
    return gradients[:, None] * _SCALES[:, None], numpy.repeat(parameters[:, None], len(_SCALES), axis=1)


def _close(x: numpy.ndarray, y: numpy.ndarray) -> bool:
    """Whether finite values are equal; 1/0 has no meaningful sign."""
    finite = numpy.isfinite(x) & numpy.isfinite(y)
    with numpy.errstate(all="ignore"):
        return bool(finite.any() and numpy.allclose(x[finite], y[finite], rtol=1e-3, atol=0))
