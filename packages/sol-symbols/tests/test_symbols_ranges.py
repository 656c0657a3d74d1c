"""Bounds hold for every trajectory, are tight where it matters, and the warnings are about what happens."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sol_symbols import FORMATS, STANDARD, ZOO, Recurrence, RuleError, UpdateRule, symbol, value_ranges
from sol_symbols.bounds import enclose
from sol_symbols.intervals import Bound

TEXTS = ["exp(ad)", "rs*ld + cd*sign(m)", "g**3 - b", "min(g, w)*tanh(m)", "sqrt(v_hat) + ag", "la/(sqrt(v_hat) + eps)"]
TEXTS += ["cos(g)*abs(m)", "(g - m)**2/(1 + v)", "beta1**t*g", "log(abs(g) + 1)*lt", "m_fast_hat - m_long_hat", "ad**3"]
STEPS = 12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
@pytest.mark.parametrize("text", [*ZOO, *TEXTS])
def test_no_trajectory_leaves_the_bounds(text, seed, size):
    rule = (ZOO.get(text) or UpdateRule.parse(text)).with_horizon(STEPS)
    ranges = value_ranges(rule, size, 2.0, STEPS)
    rng = np.random.default_rng(seed)
    shape = (STEPS, 30)
    g = size * rng.choice([-1.0, 0.0, 1.0, 1e-3], size=shape) * np.where(rng.random(30) < 0.5, 1.0, rng.random(shape))
    w = rng.uniform(-2, 2, shape)
    for name, (lowest, highest) in ranges.bounds.items():
        values = (rule if name == "phi" else UpdateRule(symbol(name), {**rule.values})).evaluate(g, w, STEPS)
        slack = 1e-9 * max(abs(lowest), abs(highest))
        if math.isfinite(slack):
            assert values.min() >= lowest - slack, name
            assert values.max() <= highest + slack, name


@pytest.mark.parametrize(("text", "beta2"), [("ad", 0.999), ("ad", 0.9), ("rs", 0.999), ("adagrad", None)])
def test_bounds_of_normalised_directions_are_reached(text, beta2):
    """By the gradients for which the Cauchy-Schwarz inequality is an equation."""
    rule = ZOO[text] if text in ZOO else UpdateRule(text, {"beta2": beta2})
    steps = 50
    i = np.arange(1, steps + 1)
    g = np.where(i == steps, 1.0, 0.0) if text != "ad" else (0.9 / beta2) ** (steps - i)
    g = 1e3 * g / g.max()
    _, highest = value_ranges(rule, 1e3, steps=steps).bounds["phi"]
    assert rule.evaluate(g[:, None])[-1, 0] == pytest.approx(highest, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "gradient", "said"),
    [
        ("g", 1e4, []),
        ("g", 1e39, []),
        ("ad", 1.0, ["eps = 1e-08 is 0 in float16"]),
        ("exp(g)", 10, []),
        ("exp(g)", 12, ["exp(g) in phi can reach 1.63e+05, above float16"]),
        ("exp(g)", 90, ["exp(g) in phi can reach 1.22e+39, above float32 (3.4e+38), bfloat16 (3.39e+38), float16"]),
        ("exp(g)", 800, ["exp(g) in phi overflows float64"]),
        ("g**3", 40, []),
        ("g**3", 41, ["g**3 in phi can reach 6.89e+04, above float16"]),
        ("v", 300, ["g**2 in v can reach 9e+04, above float16"]),
        ("g/m", 1, ["g/m in phi has no bound: its divisor"]),
        ("g/(1 + abs(m))", 1, []),
        ("1/g", 1, ["1/g in phi has no bound"]),
        ("log(abs(g))", 1, ["log(abs(g)) in phi has no bound"]),
        ("exp(20*tanh(g))", 1, ["exp(20*tanh(g)) in phi can reach 4.12e+06, above float16"]),
        ("exp(ad)*m", 1e4, ["g**2 in v can reach 1e+08", "eps = 1e-08 is 0 in float16"]),
        ("1e-50*g", 1, ["1e-50 is 0 in float32, bfloat16, float16"]),
    ],
)
def test_warnings_are_about_what_can_happen(text, gradient, said):
    warnings = value_ranges(UpdateRule.parse(text), gradient).warnings
    assert [any(line.startswith(start) for line in warnings) for start in said] == [True] * len(said)
    assert len(warnings) >= len(said)
    assert said or not warnings


@pytest.mark.parametrize("gradient", [10.0, 100.0, 1e5])
@pytest.mark.parametrize("text", ["exp(g)", "g**3", "v", "exp(0.5*rs)", "exp(0.1*b)"])
def test_float16_overflows_only_where_it_was_said(text, gradient):
    rule = UpdateRule.parse(text)
    g = np.full((60, 1), gradient, np.float16) if gradient < 6e4 else np.full((60, 1), np.inf, np.float16)
    said = any("float16 (" in line or "float64" in line for line in value_ranges(rule, gradient, steps=60).warnings)
    assert said or np.isfinite(rule.evaluate(g)).all() or gradient > 65504


def test_formats_are_those_of_the_hardware():
    single = np.finfo(np.float32)
    half = np.finfo(np.float16)
    assert [(f.name, f.largest) for f in FORMATS[::2]] == [("float32", single.max), ("float16", half.max)]
    assert [f.smallest for f in FORMATS[::2]] == [single.smallest_subnormal, half.smallest_subnormal]


@pytest.mark.parametrize("arguments", [{"gradient": 0}, {"gradient": math.nan}, {"parameter": -1}, {"steps": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(RuleError, match="must be"):
        value_ranges(ZOO["adam"], **arguments)


def test_states_that_do_not_start_at_zero_are_bounded_too():
    wider = STANDARD.extended(Recurrence("peak", "-min(-peak_prev, -abs(g))", init=0.25))
    ranges = value_ranges(UpdateRule.parse("g/peak", wider), 4.0)
    assert ranges.bounds["peak"] == (0.25, 4.0)
    assert ranges.bounds["phi"] == (-16.0, 16.0)


@pytest.mark.parametrize(
    "text", ["g*w", "g/w", "g**-3", "g**0.5", "w**2*g", "tanh(g)/(2 + cos(w))", "min(g, -w)", "w**-2"]
)
def test_intervals_contain_the_values(text):
    rng = np.random.default_rng(0)
    rule = UpdateRule.parse(text)
    for _ in range(50):
        g, w = np.sort(rng.normal(size=(2, 2)) * rng.choice([0.0, 1.0, 5.0], size=(2, 2)) + 0.0, axis=1)
        bound = enclose(rule.expression, {"g": Bound(*g), "w": Bound(*w)})
        values = rule.evaluate(rng.uniform(*g, size=(200, 1)), rng.uniform(*w, size=(200, 1)))
        values = values[np.isfinite(values)]
        assert ((bound.lo - 1e-9 <= values) & (values <= bound.hi + 1e-9)).all()
