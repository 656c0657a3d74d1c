"""One table in truth: what an entry states, and what follows from it, is what its values do."""

import itertools
import math

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from sol_symbols import (
    OPERATORS,
    STANDARD,
    ZOO,
    Feature,
    Hyperparameter,
    Operator,
    Recurrence,
    UpdateRule,
    latex,
    parity,
    probed_parity,
    probed_scaling_degree,
    scaling_degree,
    symbol,
    value_ranges,
)
from sol_symbols.bounds import Bound, enclose
from sol_symbols.c_compiler import compile_library, find_compiler
from sol_symbols.c_printer import C_FUNCTIONS, CPrinter
from sol_symbols.evaluation import array_function
from sol_symbols.intervals import monotone
from sol_symbols.operators import Function, Parity, Scaling, function_of

X = [symbol("x0"), symbol("x1")]
PRIMITIVES = [operator for operator in OPERATORS.values() if operator.primitive is not None]
numbers = st.floats(-20, 20, allow_subnormal=False)


def value(operator, *arguments):
    with np.errstate(all="ignore"):
        return array_function(operator, np)(*(np.float64(x) for x in arguments))


def test_functions_are_those_that_no_arithmetic_makes():
    assert {o.name for o in PRIMITIVES} == {"exp", "sign", "abs", "log", "tanh", "cos", "min"}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
@given(x=st.tuples(numbers, numbers), c=st.floats(0.1, 10))
def test_an_operators_facts_are_those_of_its_values(operator, x, c):
    x = x[: operator.arity]
    here, mirrored, scaled = (
        value(operator, *x),
        value(operator, *(-a for a in x)),
        value(operator, *(c * a for a in x)),
    )
    assert_enclosed(operator, x, here)
    if operator.function is None or not np.isfinite([here, mirrored, scaled]).all():
        return
    facts = operator.function
    if facts.parity is not Parity.NEITHER:
        assert math.isclose(mirrored, facts.parity.value * here)
    if facts.scaling is not Scaling.NEITHER:
        assert math.isclose(scaled, here if facts.scaling is Scaling.INVARIANT else c * here)


def assert_enclosed(operator, x, here):
    known = {f"x{i}": Bound(min(a, a / 2), max(a, a + 1)) for i, a in enumerate(x)}
    bound = enclose(operator(*X[: operator.arity]), known)
    if not math.isnan(here):
        assert bound.lo - 1e-9 * abs(here) <= here <= bound.hi + 1e-9 * abs(here)


@pytest.mark.parametrize("operator", PRIMITIVES, ids=lambda operator: operator.name)
def test_a_function_without_parity_or_scaling_has_none(operator):
    """What NEITHER says is true as well: a fact that is forgotten shows."""
    points = [-7.3, -2.0, -0.4, 0.3, 1.0, 2.5, 6.0]
    pairs = [x for x in itertools.product(points, repeat=operator.arity) if np.isfinite(value(operator, *x))]
    mirrored = [(value(operator, *x), value(operator, *(-a for a in x))) for x in pairs]
    mirrored = [(a, b) for a, b in mirrored if np.isfinite(b)]
    scaled = [(value(operator, *x), value(operator, *(3 * a for a in x))) for x in pairs]
    if operator.function.parity is Parity.NEITHER:
        assert not all(math.isclose(b, sign * a) for sign in (1, -1) for a, b in mirrored) or not mirrored
    if operator.function.scaling is Scaling.NEITHER:
        assert any(not math.isclose(b, a) for a, b in scaled)
        assert any(not math.isclose(b, 3 * a) for a, b in scaled)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
def test_every_operator_has_latex(operator):
    text = latex(operator(*X[: operator.arity]))
    assert "operator" not in text or r"\operatorname{" in text
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
def test_every_operator_and_its_derivative_are_the_same_in_c():
    """The derivative too, because the learner's kernel differentiates."""
    lines, functions = [], []
    for name, operator in OPERATORS.items():
        arguments = X[: operator.arity]
        meaning = operator(*arguments)
        slope = sympy.diff(meaning, X[0]).replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)
        for kind, expression in (("value", meaning), ("slope", slope)):
            text = CPrinter().doprint(expression)
            assert "Not supported" not in text
            lines.append(f"real {name}_{kind}(real v_x0, real v_x1) {{ return {text}; }}")
            functions.append((f"{name}_{kind}", expression))
    library = compile_library(
        "\n".join(["#include <math.h>", "#include <tgmath.h>", "typedef double real;", C_FUNCTIONS, *lines, ""])
    )
    assert not isinstance(library, str), library
    import ctypes

    for name, expression in functions:
        function = library[name]
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double, ctypes.c_double]
        for x in ((0.7, 1.9), (2.2, -0.4)):
            expected = complex(expression.subs({X[0]: x[0], X[1]: x[1]}).evalf())
            assert expected.imag == 0
            assert math.isclose(function(*x), expected.real, rel_tol=1e-12), name


NAMES = [*STANDARD.recurrences, *(name for name, f in STANDARD.features.items() if not f.inline)]


@pytest.mark.parametrize("name", NAMES)
def test_facts_of_features_and_states_are_those_of_their_values(name):
    values = {name: h.default or 0.01 for name, h in STANDARD.hyperparameters.items()}
    rule = UpdateRule(symbol(name), values | {"T": 16.0})
    found = parity(rule.expression, STANDARD)
    probed = probed_parity(rule)
    assert found == probed or (found == 0 and name == "ag_in")
    degree, seen = scaling_degree(rule.expression, STANDARD), probed_scaling_degree(rule)
    if degree is not None and seen is not None:  # a schedule that is 0 throughout has none
        assert float(degree) == seen
    gradients = np.random.default_rng(0).normal(size=(16, 50)).clip(-3, 3)
    low, high = value_ranges(rule, gradient=3.0, steps=16).bounds["phi"]
    phi = rule.evaluate(gradients, 0.0)
    assert low - 1e-9 * abs(low) <= phi.min() <= phi.max() <= high + 1e-9 * abs(high)


def test_every_entry_of_the_vocabulary_has_a_symbol_that_latex_uses():
    for entry in (*STANDARD.hyperparameters.values(), *STANDARD.recurrences.values(), *STANDARD.features.values()):
        if not getattr(entry, "inline", False):
            assert entry.latex
            assert latex(entry.name) == entry.latex
    assert latex("m_prev") == "m_{t-1}"
    assert latex("stranger") == r"\mathrm{stranger}"


def test_entries_of_a_users_own_have_symbols():
    wider = STANDARD.extended(
        Hyperparameter("rho", 0.9, 0.0, 1.0, "", latex=r"\rho"),
        Recurrence("u", "rho*u_prev + abs(g)", latex="u_t"),
        Feature("ud", "m/(u + u_prev)", latex="d_t"),
    )
    assert latex(wider.definitions["ud"], vocabulary=wider) == r"\frac{m_t}{u_t + u_{t-1}}"
    assert UpdateRule.parse("ud*rho", wider).latex() == r"\rho d_t"


def test_the_standard_vocabulary_can_be_read():
    STANDARD.check()


def test_every_rule_of_the_zoo_can_be_read():
    assert [ZOO[name].name for name in ZOO] == [*ZOO]
    with pytest.raises(KeyError):
        ZOO["nothing"]


@pytest.mark.parametrize("function", [sympy.sinh, sympy.atan])
def test_a_new_function_needs_its_facts(function):
    name = function.__name__
    with pytest.raises(TypeError, match=f"operator {name!r} is {name}: state its facts"):
        Operator(name, 1, function, "")
    facts = Function(Parity.ODD, Scaling.NEITHER, monotone(getattr(math, name)))
    assert Operator(name, 1, function, "", facts).primitive is function
    with pytest.raises(KeyError, match=f"no operator is {name}"):
        function_of(function(X[0]))


@pytest.mark.parametrize("function", [sympy.sinh, sympy.atan])
def test_one_entry_is_all_that_a_new_function_needs(function, monkeypatch):
    from sol_symbols import operators

    name = function.__name__
    facts = Function(Parity.ODD, Scaling.NEITHER, monotone(getattr(math, name)), rf"\operatorname{{{name}}}")
    entry = Operator(name, 1, function, "", facts)
    monkeypatch.setattr(operators, "_FUNCTIONS", operators.functions_in([*OPERATORS.values(), entry]))
    expression = 2 * entry(symbol("ad"))
    assert parity(entry(symbol("g")), STANDARD) == -1
    assert parity(entry(symbol("v_hat")), STANDARD) == 1
    assert scaling_degree(expression, STANDARD) == 0
    assert scaling_degree(entry(symbol("g")), STANDARD) is None
    bound = enclose(expression, {"ad": Bound(-1.0, 1.0)})
    assert (bound.lo, bound.hi) == (-2 * getattr(math, name)(1.0), 2 * getattr(math, name)(1.0))
    assert latex(expression) == rf"2 \operatorname{{{name}}}\left(a_t\right)"
    assert name in CPrinter().doprint(expression)


def test_facts_are_not_stated_twice():
    facts = Function(Parity.ODD, Scaling.NEITHER, monotone(math.tanh))
    with pytest.raises(TypeError, match="operator 'double' is composed of others"):
        Operator("double", 1, lambda x: 2 * x, "", facts)


def test_bounds_of_what_overflows_are_infinite():
    assert monotone(math.exp)(Bound(-1e9, 1e9)) == Bound(0.0, math.inf)
    assert monotone(math.sinh)(Bound(-1e9, 1e9)) == Bound(-math.inf, math.inf)
