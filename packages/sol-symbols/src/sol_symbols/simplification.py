"""Shorter rules with the same values.

SymPy's own ``simplify`` makes update rules longer and its ``equals`` is wrong on them, so this module has a small set
of identities. Each is true for all real numbers, 0 included, and applied only where it leaves fewer nodes:

    c (x + y) + d x = (c + d) x + c y      like terms, also those that appear when a small product is expanded
    sign(x) |x| = x,  sign(x) x = |x|,  sign(x)^2 x = x,  sign(x)^3 = sign(x)
    |x| |y| = |x y|,  sign(c x + c y) = sign(x + y) for c > 0
    (a x + b y) z = a (x + b/a y) z        a factor's scale moves into the product's
    |x| = x, sign(x) = 1, min(x, y) = x    where bounds of the states, decays and corrections imply it
    m_hat/(sqrt(v_hat) + eps) = ad         a feature's definition becomes the feature

SymPy folds constants and equal terms itself. The result is compared with the original on trajectories of all scales
(:mod:`sol_symbols.probes`); if they differ, the original stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy
import sympy

from sol_symbols.bounds import enclose
from sol_symbols.errors import RuleError
from sol_symbols.grammar import count_terms, expand_terms, symbol, tidy
from sol_symbols.intervals import ANYTHING, Bound
from sol_symbols.probes import measure, trajectories
from sol_symbols.rule import UpdateRule, checked_rule
from sol_symbols.vocabulary import Vocabulary

__all__ = ["Simplification", "round_constants", "simplify"]

SAME = 1e-9
"""Rules whose relative change is at most this count as equal: the differences are amplified float64 rounding."""

_PASSES = 10
_MOST_EXPANDED = 16


@dataclass(frozen=True)
class Simplification:
    """A shorter rule and how far its values are from the original's.

    Attributes:
        rule: The result; never longer than the original, in nodes and in characters.
        change: The largest ``|phi' - phi| / sum_j |u_j|`` over all probes at which phi is finite, u_j being the
            additive terms of the original phi.
        probes: The number of values compared.
    """

    rule: UpdateRule
    change: float
    probes: int


def simplify(rule: UpdateRule, digits: int | None = None) -> Simplification:
    """A rule with the same values that is shorter if one is found, never longer: ``simplify(rule).rule``.

    With ``digits``, constants are rounded to that many significant digits too, which changes values;
    ``change`` is the largest relative change.

    Args:
        rule: The rule.
        digits: Rounds the numbers in the formula and the named constants, but not the learning rate or
            hyperparameters; ``None`` rounds nothing.

    Raises:
        RuleError: ``digits`` is less than 1.

    >>> done = simplify(UpdateRule.parse("0.12345*abs(m)*sign(m) + 0.2*(g + m) - 0.2*g"), digits=2)
    >>> print(done.rule, f"{done.change:.1g}")
    0.32*m 0.01
    """
    rule = checked_rule(rule)
    if digits is not None and digits < 1:
        raise RuleError(f"digits must be at least 1, got {digits}")
    probes = trajectories()
    reference, *terms = measure(rule, [rule.expression, *sympy.Add.make_args(rule.expression)], *probes)
    with numpy.errstate(all="ignore"):
        size = numpy.abs(terms).sum(0)

    def values(other: UpdateRule) -> numpy.ndarray:
        return measure(other, [other.expression], *probes)[0]

    def proven(original: UpdateRule, before: numpy.ndarray) -> tuple[UpdateRule, numpy.ndarray]:
        short = _shorter(original)
        after = before if short is original else values(short)
        return (short, after) if _change(before, after, size) <= SAME else (original, before)

    short, after = proven(rule, reference)
    if digits is not None:
        rounded = round_constants(short, digits)
        short, after = proven(rounded, values(rounded))
    return Simplification(short, _change(reference, after, size), int(numpy.isfinite(reference).sum()))


def round_constants(rule: UpdateRule, digits: int) -> UpdateRule:
    """``rule`` with the numbers of its formula and its named constants rounded to ``digits`` significant digits."""
    named = {*rule.values} - {*rule.vocabulary.hyperparameters, "T"}
    values = {
        name: _rounded(value, digits) if name in named and value is not None else value
        for name, value in rule.values.items()
    }
    floats = {number: sympy.Float(_rounded(float(number), digits)) for number in rule.expression.atoms(sympy.Float)}
    return replace(rule, expression=rule.expression.xreplace(floats), values=values)


def _rounded(value: float, digits: int) -> float:
    rounded = float(f"{value:.{digits - 1}e}")
    return rounded if math.isfinite(rounded) else value


def _change(reference: numpy.ndarray, values: numpy.ndarray, size: numpy.ndarray) -> float:
    finite = numpy.isfinite(reference)
    with numpy.errstate(all="ignore"):
        difference = numpy.abs(values - reference) / size
    difference[values == reference] = 0
    difference[numpy.isinf(size) & numpy.isfinite(values)] = 0  # terms that overflow and cancel: nothing to compare
    return float(numpy.nan_to_num(difference[finite], nan=math.inf).max(initial=0.0))


def _shorter(rule: UpdateRule) -> UpdateRule:
    """The fixed point of all identities; ``rule`` itself if that is longer."""
    expression = rule.expression
    for _ in range(_PASSES):
        before, expression = expression, _recognised(expression, rule.vocabulary)
        expression = _rewritten(expression, _bounds(expression, rule))
        if expression == before:
            break
    if expression.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):  # log(1 - sign(bc1)): no formula has these
        return rule
    short = replace(rule, expression=expression)
    longer = _nodes(short.expression) > _nodes(rule.expression) or len(str(short)) > len(str(rule))
    return rule if longer else short


def _nodes(expression: sympy.Expr) -> int:
    return 1 + sum(map(_nodes, expression.args))


def _bounds(expression: sympy.Expr, rule: UpdateRule) -> dict[str, Bound]:
    """Bounds that always hold of the names in ``expression``, with the values of ``rule``."""
    vocabulary, live = rule.vocabulary, rule.vocabulary.live(expression)
    known = dict.fromkeys(vocabulary.names, ANYTHING) | {"t": Bound(1, math.inf), "T": Bound(1, math.inf)}
    known |= {"fan_in": Bound(1, math.inf), "is_vector": Bound(0, 1)}
    known |= {name: Bound(value, value) for name, value in rule.values.items() if value is not None}
    for name in live:
        definition = vocabulary.definitions[name]
        if name in vocabulary.recurrences:
            # By induction: never negative if the start is not and an update keeps it so.
            never = Bound(0.0, math.inf)
            starts = vocabulary.recurrences[name].init >= 0
            holds = starts and enclose(definition, {**known, f"{name}_prev": never}).lo >= 0
            known[name] = known[f"{name}_prev"] = never if holds else ANYTHING
        else:
            known[name] = enclose(definition, known)
    return known


def _rewritten(expression: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr:
    done: dict[sympy.Expr, sympy.Expr] = {}

    def visit(node: sympy.Expr) -> sympy.Expr:
        if not node.args:
            return node
        if node not in done:
            arguments = [visit(argument) for argument in node.args]
            best = node if tuple(arguments) == node.args else node.func(*arguments)
            for identity in _IDENTITIES:
                candidate = identity(best, known)
                if candidate is not None and _nodes(candidate) < _nodes(best):
                    best = candidate
            done[node] = best
        return done[node]

    return visit(expression)


def _signs(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """Products and powers of sign(x), |x| and x."""
    powers = dict(factor.as_base_exp() for factor in sympy.Mul.make_args(node))
    for base in [base for base in powers if isinstance(base, sympy.sign)]:
        power, inner = powers[base], base.args[0]
        if not (power.is_Integer and power >= 1):
            continue
        absolute = sympy.Abs(inner)
        n, k = powers.get(inner, sympy.Integer(0)), powers.get(absolute, sympy.Integer(0))
        odd = power % 2 == 1
        if k.is_Number and k >= 1:  # sign(x) |x|^k = x |x|^(k - 1)
            powers |= {base: sympy.Integer(0)} | ({absolute: k - 1, inner: n + 1} if odd else {})
        elif n.is_Integer and n >= 1:  # sign(x) x^n = |x| x^(n - 1)
            powers |= {base: sympy.Integer(0)} | ({inner: n - 1, absolute: k + 1} if odd else {})
        else:
            powers[base] = sympy.Integer(1 if odd else 2)
    absolutes = [base for base, power in powers.items() if isinstance(base, sympy.Abs) and power == 1]
    if len(absolutes) > 1:
        together = sympy.Abs(sympy.Mul(*(base.args[0] for base in absolutes)))
        powers = {base: power for base, power in powers.items() if base not in absolutes}
        powers[together] = powers.get(together, sympy.Integer(0)) + 1
    return sympy.Mul(*(base**power for base, power in powers.items()))


def _like_terms(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """Numbers times sums, expanded inside a sum."""
    if not node.is_Add:
        return None
    terms: list[sympy.Expr] = []
    for term in node.args:
        number, rest = term.as_coeff_Mul()
        terms += [number * part for part in rest.args] if rest.is_Add else [term]
    return sympy.Add(*terms)


def _expanded(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """Small products, expanded where terms then cancel."""
    if node.is_Function or not len(sympy.Add.make_args(node)) < count_terms(node) <= _MOST_EXPANDED:
        return None
    return sympy.Add(*expand_terms(node))


def _common_scale(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """sign(c x - c y) = sign(x - y)."""
    if not (isinstance(node, sympy.sign) and node.args[0].is_Add):
        return None
    parts = [term.as_coeff_Mul() for term in node.args[0].args]
    if len({abs(number) for number, _ in parts}) != 1:
        return None
    return sympy.sign(sympy.Add(*(sympy.sign(number) * rest for number, rest in parts)))


def _unit_scale(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """Scales of sums that are factors, collected in one number."""
    if not node.is_Mul:
        return None
    number, factors = sympy.Float(1), []
    for factor in node.args:
        base, power = factor.as_base_exp()
        lead = next((c for c, rest in (t.as_coeff_Mul() for t in base.args) if rest != 1), 1) if base.is_Add else 1
        if power.is_Integer and power > 0 and isinstance(lead, sympy.Float):
            number *= lead**power
            factor = sympy.Add(*(tidy(term / lead) for term in base.args)) ** power
        factors.append(factor)
    return sympy.Mul(number, *factors) if 0 < abs(float(number)) < math.inf else None


def _known_signs(node: sympy.Expr, known: Mapping[str, Bound]) -> sympy.Expr | None:
    """|x|, sign(x), min(x, y) and max(x, y) where bounds decide them."""
    if isinstance(node, sympy.Min):
        parts = {argument: enclose(argument, known) for argument in node.args}
        lowest = min(bound.hi for bound in parts.values())
        kept = [argument for argument, bound in parts.items() if bound.lo < lowest or bound.lo == bound.hi == lowest]
        return sympy.Min(*kept) if kept else None
    if isinstance(node, sympy.Max):
        parts = {argument: enclose(argument, known) for argument in node.args}
        highest = max(bound.lo for bound in parts.values())
        kept = [argument for argument, bound in parts.items() if bound.hi > highest or bound.lo == bound.hi == highest]
        return sympy.Max(*kept) if kept else None
    if not isinstance(node, sympy.Abs | sympy.sign):
        return None
    (inner,) = node.args
    bound = enclose(inner, known)
    if isinstance(node, sympy.Abs):
        return inner if bound.lo >= 0 else -inner if bound.hi <= 0 else None
    return sympy.Integer(1) if bound.lo > 0 else sympy.Integer(-1) if bound.hi < 0 else None


_IDENTITIES: tuple[Callable[[sympy.Expr, Mapping[str, Bound]], sympy.Expr | None], ...] = (
    _signs,
    _like_terms,
    _expanded,
    _common_scale,
    _unit_scale,
    _known_signs,
)


def _recognised(expression: sympy.Expr, vocabulary: Vocabulary) -> sympy.Expr:
    """``expression`` with features in place of their definitions, long ones first."""
    features = [(name, vocabulary.definitions[name]) for name, f in vocabulary.features.items() if not f.inline]
    for name, definition in sorted(features, key=lambda item: -_nodes(item[1])):
        if definition.args:
            expression = _put(symbol(name), definition, expression)
    return expression


def _put(name: sympy.Symbol, definition: sympy.Expr, expression: sympy.Expr) -> sympy.Expr:
    if expression == definition:
        return name
    if not expression.args or not definition.free_symbols <= expression.free_symbols:
        return expression
    arguments: Iterable[sympy.Expr] = [_put(name, definition, argument) for argument in expression.args]
    commutes = expression.func == definition.func and (definition.is_Mul or definition.is_Add)
    if commutes and {*definition.args} <= {*arguments}:
        arguments = [*(argument for argument in arguments if argument not in definition.args), name]
    return expression.func(*arguments)
