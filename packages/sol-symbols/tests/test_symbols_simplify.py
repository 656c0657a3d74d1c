"""Simplification: never longer, never different, and quick on what networks are read out as."""

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from sol_symbols import OPERATORS, STANDARD, ZOO, RuleError, UpdateRule, round_constants, simplify

CASES = [
    ("0.5*(g + m) + 0.25*g", "0.75*g + 0.5*m"),
    ("0.5*(g + m) - 0.5*g", "0.5*m"),
    ("(g + m)**2 - g**2 - m**2 - 2*g*m", "0"),
    ("(g + m)*(g - m) + m**2", "g**2"),
    ("sign(g)*abs(g)", "g"),
    ("sign(g)*g", "abs(g)"),
    ("sign(g)*g*sign(g)", "g"),
    ("sign(g)**2*abs(g)", "abs(g)"),
    ("sign(g)**3*m", "m*sign(g)"),
    ("sign(g)*abs(g)**3", "g**3"),
    ("abs(g)*abs(m)", "abs(g*m)"),
    ("sign(0.3*g - 0.3*m)", "sign(g - m)"),
    ("sign(-2*g)", "-sign(g)"),
    ("abs(v_hat)*sign(sqrt(v_hat) + eps)", "v_hat"),
    ("abs(ld)*m + min(cd, 1)*g + min(t, -1) where T = 9", "ld*m + cd*g - 1 where T = 9"),
    ("0.5*m_hat/(sqrt(v_hat) + eps)*ld where T = 9", "0.5*ad*ld where T = 9"),
    ("beta1*m_hat + (1 - beta1)*g", "la"),
    ("log(t)*m/bc1", "lt*m_hat"),
    ("min(cd, 1 - min(t/T, 1)) where T = 4", "min(cd, ld) where T = 4"),
    ("(0.5*g + 0.5*m)*(0.25*m + 0.25*b)", "(0.125*b + 0.125*m)*(g + m)"),
    ("exp(0.5*(g + m) - 0.5*g)*sign(g)*abs(g)", "exp(0.5*m)*g"),
]
# What looks like one of the identities and is none, at 0 or elsewhere.
KEPT = [
    "sign(g)**2",
    "sign(g)*sign(m)",
    "g/abs(g)",
    "sign(g)/abs(g)",
    "sign(ld)*g where T = 5",
    "sign(v_hat)",
    "abs(m)",
]
KEPT += ["min(ld, 0.5)*g where T = 5", "sqrt(g**2 + m**2)", "sign(0.3*g - 0.2*m)", "m_hat/(sqrt(v_hat) + 2*eps)"]


@pytest.mark.parametrize(("text", "short"), CASES)
def test_what_can_be_shorter_is(text, short):
    rule = UpdateRule.parse(text)
    done = simplify(rule)
    assert done.rule == UpdateRule.parse(short)
    assert done.change < 1e-12
    assert done.probes > 1000


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_identity_stays(text):
    rule = UpdateRule.parse(text)
    assert simplify(rule).rule == rule


def agree(rule, short, rng, tolerance=1e-6):
    """Both rules have one value on gradients of all sizes, relative to the sum of their terms' sizes."""
    g = rng.choice([0.0, 1e-30, 1e-3, 1.0, 1e8], size=(12, 40)) * rng.normal(size=(12, 40))
    w = rng.normal(size=g.shape)
    before, after = rule.evaluate(g, w, 9), short.evaluate(g, w, 9)
    terms = [UpdateRule(term, rule.values).evaluate(g, w, 9) for term in sympy.Add.make_args(rule.expression)]
    size = np.abs(terms).sum(0)
    usable = np.isfinite(before) & np.isfinite(size)
    with np.errstate(all="ignore"):
        np.testing.assert_array_less(np.abs(after - before)[usable], tolerance * size[usable] + 1e-300)


def expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["g", "m", "v_hat", "ad", "ld", "w", "bc1", "2", "0.5", "0.3", "3.7"])
    unary = [name for name, operator in OPERATORS.items() if operator.arity == 1 and name not in ("log", "sqrt")]
    binary = [name for name, operator in OPERATORS.items() if operator.arity == 2]
    return st.recursive(
        leaves,
        lambda smaller: st.one_of(
            st.builds("({} {} {})".format, smaller, st.sampled_from(["+", "-", "*"]), smaller),
            st.builds("({})**{}".format, smaller, st.integers(2, 3)),
            st.builds("{}({})".format, st.sampled_from(unary), smaller),
            st.builds("{}({}, {})".format, st.sampled_from(binary), smaller, smaller),
        ),
        max_leaves=10,
    )


@settings(max_examples=120, deadline=None)
@given(expressions(), st.integers(0, 2**31))
def test_values_stay_and_rules_get_no_longer(text, seed):
    try:
        rule = UpdateRule.parse(text, name="kept", provenance={"seed": 1})
    except RuleError:
        return
    done = simplify(rule)
    assert done.rule.complexity.nodes <= rule.complexity.nodes
    assert len(str(done.rule)) <= len(str(rule))
    assert done.change <= 1e-9
    assert (done.rule.name, done.rule.provenance) == ("kept", {"seed": 1})
    assert simplify(done.rule).rule == done.rule
    assert set(done.rule.states) <= set(rule.states)
    if "sign" not in text:  # at a jump, the last bit of an argument decides
        agree(rule, done.rule, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(expressions(), st.integers(1, 6))
def test_rounded_rules_are_as_far_off_as_is_said(text, digits):
    try:
        rule = UpdateRule.parse(text + " + 0.123456*g + 0.0345678*m")
    except RuleError:
        return
    done = simplify(rule, digits)
    assert done.rule.complexity.nodes <= rule.complexity.nodes
    for number in done.rule.expression.atoms(sympy.Float):
        # Numbers are rounded; what the identities make of rounded numbers need not be.
        assert (
            done.rule.expression != round_constants(rule, digits).expression or float(f"{number:.{digits}g}") == number
        )


def test_the_change_that_rounding_makes_is_told():
    done = simplify(UpdateRule.parse("0.1234*g + c*m where c = 0.5678, lr = 0.12345, beta1 = 0.8765"), 2)
    assert str(done.rule) == "c*m + 0.12*g where lr = 0.12345, beta1 = 0.8765, c = 0.57"
    assert 0.01 < done.change <= 0.0034 / 0.1234 + 1e-9
    with pytest.raises(RuleError, match="digits must be at least 1, got 0"):
        simplify(ZOO["adam"], 0)


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("addsign")])
def test_the_zoo_is_short_already(name):
    assert simplify(ZOO[name]).rule == ZOO[name]


def read_out(seed, density=0.3):
    """What a network of 14 features and two hidden layers of 10 units, 30 % of its weights alive, is read out as."""
    rng = np.random.default_rng(seed)
    features = ("g", "g2", "g3", "ag", "m_hat", "sqrt(v_hat)", "sign(g)", "sign(m)", "ad", "rs", "ld", "cd", "1", "2")
    units = ("identity", "identity", "square", "mul", "mul", "sign", "exp", "sigmoid", "identity", "square")
    h = [STANDARD.parse(feature) for feature in features]

    def combination():
        return sympy.Add(*(sympy.Float(0.1 * rng.normal()) * x for x in h if rng.random() < density))

    for _ in range(2):
        h = [OPERATORS[unit](*(combination() for _ in range(OPERATORS[unit].arity))) for unit in units]
    return UpdateRule(sympy.Add(*(sympy.Float(rng.normal()) * x for x in h)), {"T": 100})


@pytest.mark.parametrize("seed", range(4))
def test_read_outs_are_simplified(seed):  # how long it takes: benchmarks/simplify_readout.py
    rule = read_out(seed)
    done = simplify(rule)
    assert done.rule.complexity.nodes < rule.complexity.nodes
    assert done.change < 1e-9
