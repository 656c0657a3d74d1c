"""The tables of operators and names: what each entry states is true, and one entry is all that an operator needs."""

import itertools
import math

import numpy as np
import pytest
import sympy

from sol_symbols import (
    OPERATORS,
    STANDARD,
    Operator,
    RuleError,
    UpdateRule,
    evaluator,
    latex,
    parity,
    probed_parity,
    probed_scaling_degree,
    scaling_degree,
    symbol,
    value_ranges,
)
from sol_symbols import operators as table
from sol_symbols.bounds import enclose
from sol_symbols.evaluation import array_function
from sol_symbols.intervals import Bound, increasing

SINH = Operator(*("sinh", 1, sympy.sinh, "hyperbolic sine"), parity="odd", degree="none", bounds=increasing(math.sinh))
ARCTAN = Operator(*("arctan", 1, sympy.atan, "arc tangent"), parity="odd", degree="none", bounds=increasing(math.atan))
ENTRIES = [*OPERATORS.values(), SINH, ARCTAN]
NAMES = sorted({*STANDARD.recurrences, *STANDARD.features})
POINTS = np.concatenate([np.linspace(-4, 4, 33), [-30.0, -1e-3, 1e-3, 30.0]])


@pytest.fixture
def wider(monkeypatch):
    """The table with two functions more, each by its entry alone."""
    for operator in (SINH, ARCTAN):
        monkeypatch.setitem(table._OPERATORS, operator.name, operator)


def grid(operator):
    """All points for one argument, all pairs of points for two: [arity, n]."""
    return np.array([*itertools.product(POINTS, repeat=operator.arity)]).T


def call(operator, arguments):
    with np.errstate(all="ignore"):
        return np.broadcast_to(array_function(operator, np)(*arguments), arguments[0].shape)


def same(x, y):
    return np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=True)


def applied(operator, *names):
    return operator(*map(symbol, names[: operator.arity]))


@pytest.mark.parametrize("operator", ENTRIES, ids=lambda operator: operator.name)
def test_parity_and_degree_of_operators_are_those_of_their_values(operator, wider):
    x = grid(operator)
    value, mirrored = call(operator, x), call(operator, -x)
    finite = np.isfinite(value) & np.isfinite(mirrored)  # 1/0 and log(-1) have no sign
    odd, even = same(mirrored[finite], -value[finite]), same(mirrored[finite], value[finite])
    expression = applied(operator, "g", "b")
    # Of x and -x, one has no real root and no logarithm: there is nothing to compare.
    expected = 0 if operator.name in ("sqrt", "log") else -1 if odd else 1 if even else 0
    assert parity(expression, STANDARD) == expected
    degrees = [k for k in (-2, -1, 0, 0.5, 1, 2, 3) if same(call(operator, 4 * x), 4.0**k * value)]
    degree = scaling_degree(expression, STANDARD)
    assert [degree if degree is None else float(degree)] == (degrees or [None])


@pytest.mark.parametrize("operator", ENTRIES, ids=lambda operator: operator.name)
def test_bounds_of_operators_contain_their_values(operator, wider):
    ends = [-math.inf, -3.0, -0.5, 0.0, 2.0, math.inf]
    intervals = [*itertools.combinations(ends, 2), (-0.5, -0.5), (0.0, 0.0), (2.0, 2.0)]
    rng = np.random.default_rng(0)
    expression = applied(operator, "g", "b")
    for parts in itertools.product(intervals, repeat=operator.arity):
        bound = enclose(expression, dict(zip(("g", "b"), (Bound(*part) for part in parts))))
        inside = np.array([rng.uniform(max(lo, -1e12), min(hi, 1e12), 20) for lo, hi in parts])
        near = np.array([np.clip(rng.normal(size=20), lo, hi) for lo, hi in parts])
        values = call(operator, np.concatenate([inside, near], axis=1))
        values = values[np.isfinite(values)]
        slack = 1e-9 * np.abs(values)
        assert (bound.lo <= values + slack).all(), parts
        assert (values - slack <= bound.hi).all(), parts


@pytest.mark.parametrize("operator", ENTRIES, ids=lambda operator: operator.name)
def test_numbers_and_arrays_have_the_same_functions(operator, wider):
    """Schedules are computed on Python floats, everything else on arrays."""
    text = f"{operator.name}({', '.join(['0.3*c', 'c'][: operator.arity])})"
    rule = UpdateRule.parse(f"{text} + 0*w where c = 0.7")
    array = call(operator, np.array([[0.3 * 0.7], [0.7]][: operator.arity]))
    assert rule.evaluate([1.0], [1.0]) == pytest.approx(array, rel=1e-15)
    assert UpdateRule.parse(str(rule)) == rule
    assert latex(applied(operator, "g", "m")).count("{") == latex(applied(operator, "g", "m")).count("}")


@pytest.mark.parametrize("name", NAMES)
def test_symmetries_of_names_are_confirmed_by_probes(name):
    rule = UpdateRule(symbol(name), {"T": 30, "eps": 0})
    odd, degree = parity(rule.expression, STANDARD), scaling_degree(rule.expression, STANDARD)
    assert odd in (0, probed_parity(rule))
    assert degree is None or float(degree) == probed_scaling_degree(rule)
    if name not in ("b_norm", "ds", "w_gap"):  # with wd*w, where wd is 0
        assert odd == probed_parity(rule)
        assert (degree is None) == (probed_scaling_degree(rule) is None)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_of_names_contain_their_values(name):
    rule = UpdateRule(symbol(name), {"T": 12})
    g = 3 * np.random.default_rng(1).uniform(-1, 1, size=(12, 50))
    values = rule.evaluate(g, 0.0, 12)
    low, high = value_ranges(rule, 3.0, steps=12).bounds["phi"]
    assert low - 1e-9 <= values.min() <= values.max() <= high + 1e-9


def test_one_entry_is_all_that_a_new_function_needs(wider):
    rule = UpdateRule.parse("2*sinh(0.5*m) + arctan(g)*ld where T = 4")
    assert str(rule) == "ld*arctan(g) + 2*sinh(0.5*m) where T = 4"
    assert UpdateRule.from_json(rule.to_json()) == rule
    g = np.array([[0.5], [-2.0]])
    m = [0.05, 0.9 * 0.05 - 0.2]
    expected = [2 * math.sinh(0.5 * m[i]) + math.atan(g[i, 0]) * (0.75, 0.5)[i] for i in range(2)]
    np.testing.assert_allclose(rule.evaluate(g)[:, 0], expected, rtol=1e-15)
    fast = evaluator(rule, hoist=True)
    np.testing.assert_allclose(fast(g[0], fast.init(g[0]), g[0], 1)[0], expected[:1], rtol=1e-15)
    assert parity(rule.expression, STANDARD) == probed_parity(rule) == -1
    assert scaling_degree(rule.expression, STANDARD) is probed_scaling_degree(rule) is None
    low, high = value_ranges(UpdateRule.parse("arctan(g) + sinh(g)"), 2.0).bounds["phi"]
    assert (low, high) == (-math.atan(2) - math.sinh(2), math.atan(2) + math.sinh(2))
    assert rule.latex() == r"\ell_t \operatorname{atan}{\left(g_t \right)} + 2 \sinh{\left(0.5 m_t \right)}"
    with pytest.raises(RuleError, match="'sinh' cannot name a constant"):
        UpdateRule.parse("g*sinh(g) where sinh = 1")


def test_without_their_entries_these_functions_are_unknown():
    with pytest.raises(RuleError, match="'sinh' cannot be called"):
        UpdateRule.parse("sinh(g)")
    with pytest.raises(RuleError, match="'sinh' cannot be called"):
        UpdateRule(sympy.sinh(symbol("g")))


def test_an_operator_has_a_function_in_numpy_or_a_definition(monkeypatch):
    facts = {"parity": "odd", "degree": "none", "bounds": increasing(math.erf)}
    monkeypatch.setitem(table._OPERATORS, "erf", Operator("erf", 1, sympy.erf, "error function", **facts))
    with pytest.raises(RuleError, match="arrays have no function 'erf': name the operator as NumPy"):
        UpdateRule.parse("erf(g)").evaluate([1.0])


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "is a new function: state its parity, degree, bounds"),
        ({"parity": "odd", "bounds": increasing(math.sinh)}, "state its degree$"),
    ],
)
def test_a_new_function_without_its_facts_is_refused(facts, message):
    with pytest.raises(TypeError, match=message):
        Operator("sinh", 1, sympy.sinh, "", **facts)


@pytest.mark.parametrize("facts", [{"parity": "odd"}, {"degree": 1}, {"latex": "x"}, {"c_source": "x"}])
def test_facts_that_follow_are_not_stated(facts):
    with pytest.raises(TypeError, match="is composed of others"):
        Operator("double", 1, lambda x: 2 * x, "", **facts)


def test_every_function_of_a_composed_operator_has_an_operator():
    softplus = Operator("softplus", 1, lambda x: sympy.log(1 + sympy.exp(x)), "")
    assert {*table._table(softplus, OPERATORS["exp"], OPERATORS["log"])} == {"softplus", "exp", "log"}
    with pytest.raises(TypeError, match="operator 'softplus' uses functions that have no operator: exp, log"):
        table._table(softplus)
