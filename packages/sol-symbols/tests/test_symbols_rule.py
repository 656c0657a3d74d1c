"""The update rule: a value that survives text, JSON and pickle exactly, and refuses what it cannot mean."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sol_symbols import (
    STANDARD,
    ZOO,
    Feature,
    Hyperparameter,
    Recurrence,
    RuleError,
    UpdateRule,
    evaluator,
    format_expression,
    symbol,
)

TEXTS = [
    "g",
    "1",
    "0.81*ad + 0.12*ld*sign(g) where lr = 0.0123, T = 100",
    "c1*ad - c1*rs*cd + a*g**3 where lr = 1e-05, beta1 = 0.8, T = 250, c1 = 0.30000000000000004, a = -2",
    "exp(-0.5*ad)*tanh(3*m_hat)/(abs(g) + 1e-12)",
    "min(ag, min(m, 0.25*b))*w + sigmoid(m_slow_prev)",
    "(g + 0.3)**2 + 0.6*g",
    "1e-300*g + 1.7976931348623157e+308*m + 5e-324*v",
]
WIDER = STANDARD.extended(
    Hyperparameter("rho", 0.5, 0.0, 1.0, "decay rate"),
    Recurrence("z", "rho*z_prev + (1 - rho)*abs(g)", init=0.25),
    Recurrence("peak", "-min(-peak_prev, -z)"),
    Feature("dz", "z - z_prev", "change"),
    Feature("twice", "2*dz", inline=True),
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ad where wd = 0.1", r"the rule does not use 'wd'; add \+ wd\*w for decoupled weight decay\n.*\n +\^"),
        ("g where beta1 = 0.5", "the rule does not use 'beta1'"),
        ("matrices: orth(m); vectors: g where mu = 0.1", "the rule does not use 'mu'"),
    ],
)
def test_a_value_that_the_rule_does_not_use_is_refused(text, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.parse(text)


@pytest.mark.parametrize("text", [*TEXTS, *map(str, ZOO.values())])
def test_round_trips(text):
    rule = UpdateRule.parse(text, name="a name", provenance={"seed": 3, "list": [1, 2.5, None]})
    for twin in (
        UpdateRule.parse(str(rule)),
        UpdateRule.from_json(rule.to_json()),
        pickle.loads(pickle.dumps(rule)),
        copy.deepcopy(rule),
        UpdateRule(rule.expression, rule.values, rule.lr, evaluation=rule.evaluation),
        UpdateRule(format_expression(rule.expression), rule.values, rule.lr, evaluation=rule.evaluation),
    ):
        assert twin == rule
        assert hash(twin) == hash(rule)
        assert (str(twin), dict(twin.values), twin.lr, twin.digest) == (
            str(rule),
            dict(rule.values),
            rule.lr,
            rule.digest,
        )
    assert UpdateRule.from_json(rule.to_json()).name == "a name"
    assert UpdateRule.from_json(rule.to_json()).provenance == rule.provenance
    assert UpdateRule.from_json(rule.to_json()).to_json() == rule.to_json()


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(1e-12, 1e6), st.floats(1, 1e9), st.floats(0, 0.9999999))
def test_numbers_survive_bit_for_bit(constant, lr, horizon, beta1):
    rule = UpdateRule("c*ad*ld", {"c": constant, "T": horizon, "beta1": beta1}, lr)
    for twin in (UpdateRule.parse(str(rule)), UpdateRule.from_json(rule.to_json())):
        assert (twin.values["c"], twin.lr, twin.horizon, twin.values["beta1"]) == (constant, lr, horizon, beta1)


@pytest.mark.parametrize("text", ["dz", "twice + g", "peak*rho + 0.1*dz", "c*z_prev where c = 2, rho = 0.75"])
def test_custom_definitions_survive_without_the_vocabulary(text):
    rule = UpdateRule.parse(text, vocabulary=WIDER)
    twin = UpdateRule.from_json(rule.to_json())
    assert twin == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    g = np.random.default_rng(0).normal(size=(20, 5))
    values = []
    for phi in map(evaluator, (rule, twin)):
        state, history = phi.init(g[0]), []
        for t, gradient in enumerate(g, 1):
            value, state = phi(gradient, state, g[0], t)
            history.append(value)
        values.append(history)
    np.testing.assert_array_equal(*values)


def test_a_changed_standard_definition_survives():
    changed = STANDARD.extended(Recurrence("m", "beta1*m_prev + g"))
    rule = UpdateRule.parse("m", vocabulary=changed)
    assert rule != UpdateRule.parse("m")
    assert UpdateRule.from_json(rule.to_json()) == rule


def record(**changes):
    rule = UpdateRule.parse("c*ad + ld*g where lr = 0.1, T = 10, c = 2.5", name="x", provenance={"a": 1})
    return json.loads(rule.to_json()) | changes


BAD = [None, True, 1.5, "text", [], {}, [1], {"a": 1}, math.nan, 10**400]


def replacements():
    fitting = {
        "schema": (),
        "expression": (str,),
        "lr": (int, float, type(None)),
        "values": (dict,),
        "states": (dict,),
        "features": (dict,),
        "name": (str,),
        "provenance": (dict,),
    }
    for key, kinds in fitting.items():
        for value in BAD:
            valid = isinstance(value, kinds) and not isinstance(value, bool)
            if not valid or (key == "lr" and value is not None and not value < 1e300):
                yield key, value


@pytest.mark.parametrize(("key", "value"), list(replacements()), ids=lambda value: str(value)[:12])
def test_wrong_types_in_json_are_refused(key, value):
    with pytest.raises(RuleError):
        UpdateRule.from_json(json.dumps(record(**{key: value})))


@pytest.mark.parametrize("key", record())
def test_missing_keys_in_json_are_refused(key):
    damaged = record()
    del damaged[key]
    with pytest.raises(RuleError, match=f"not a rule.*{key}"):
        UpdateRule.from_json(json.dumps(damaged))


@pytest.mark.parametrize(
    ("key", "name", "value", "message"),
    [
        ("values", "c", None, "not a finite number"),
        ("values", "c", True, "value of 'c'"),
        ("values", "c", "1", "value of 'c'"),
        ("values", "c", 10**400, "beyond the range"),
        ("values", "c", math.inf, "not a finite number"),
        ("values", "T", 0, "number of steps, at least 1"),
        ("values", "T", math.nan, "number of steps, at least 1"),
        ("values", "beta1", 1, "must be in"),
        ("values", "beta1", None, "has no value"),
        ("values", "g", 1, "cannot name a constant"),
        ("values", "exp", 1, "cannot name a constant"),
        ("values", "x y", 1, "cannot name a constant"),
        ("states", "m", "g", "state 'm'"),
        ("states", "m", {"init": 0}, "state 'm'"),
        ("states", "m", {"init": None, "update": "g"}, "starts at None"),
        ("states", "m", {"init": True, "update": "g"}, "starts at True"),
        ("states", "m", {"init": math.nan, "update": "g"}, "not a finite"),
        ("states", "m", {"init": 10**400, "update": "g"}, "beyond the range"),
        ("states", "m", {"init": 0, "update": "m"}, "refers to itself"),
        ("states", "m", {"init": 0, "update": "import os"}, "not an expression"),
        ("states", "ad", {"init": 0, "update": "g"}, "defined twice"),
        ("features", "ad", 1, "feature 'ad'"),
        ("features", "ad", "zzz", "unknown name"),
        ("features", "ad", "ad", "refers to itself"),
        ("features", "g", "m", "defined twice"),
        ("features", "m_prev", "g", "defined twice"),
        ("features", "lambda", "g", "cannot be a name"),
        ("features", "a b", "g", "cannot be a name"),
        ("features", "exp", "g", "cannot be a name"),
        ("features", "lr", "g", "cannot be a name"),
    ],
)
def test_bad_entries_in_json_are_refused(key, name, value, message):
    damaged = record()
    damaged[key][name] = value
    with pytest.raises(RuleError, match=message):
        UpdateRule.from_json(json.dumps(damaged))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("null", "JSON object"),
        ("[]", "JSON object"),
        ("{}", "JSON object"),
        (json.dumps(record(schema=6)), "rule of schema 6; this release reads schemas 1 to 5.*Upgrade"),
        (json.dumps(record(schema="1")), "rule of schema '1'"),
        (json.dumps(record(expression="system('x')")), "cannot be called"),
        (
            json.dumps(
                record(expression="z899", features={f"z{i}": f"z{i - 1} + g" if i else "g" for i in range(900)})
            ),
            "nested deeper than 100",
        ),
    ],
    ids=range(10),
)
def test_what_is_no_rule_file_is_refused(text, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ad where beta1 = 1", r"beta1 must be in \[0.0, 1.0\), got 1.0"),
        ("ad where beta2 = -0.1", "beta2 must be in .*, got -0.1"),
        ("ad where eps = -1", "eps must be in .*, got -1.0"),
        ("wd*w where wd = -1", "wd must be in"),
        ("ld*g where T = 0.5", "horizon T must be .* got 0.5"),
        ("g where lr = 0", "lr must be a positive number, got 0.0"),
        ("g where lr = -1", "must be a positive number"),
        ("g where lr = nan", "'nan' is not a number"),
        ("g where lr = inf", "'inf' is not a number"),
        ("g where lr = 1e999", "is not a number"),
        ("g where lr = abc", "'abc' is not a number"),
        ("g where lr =", "'' is not a number"),
        ("g where lr", "expected one NAME = NUMBER"),
        ("g where lr = 1, lr = 2", "expected one NAME = NUMBER"),
        ("g where lr = 1,", "expected one NAME = NUMBER"),
        ("g where lr == 1", "expected one NAME = NUMBER"),
        ("g where lr = 1 where T = 2", "expected one NAME = NUMBER"),
        ("g where beta_1 = 0.5", "'beta_1' does not occur"),
        ("g*m where bb = 1", "'bb' does not occur"),
        ("g where g = 1", "'g' cannot name a constant"),
        ("t*g where t = 1", "'t' cannot name a constant"),
        ("bc1*g where bc1 = 1", "'bc1' cannot name a constant"),
        ("m_prev*g where m_prev = 1", "'m_prev' cannot name a constant"),
        ("exp*exp(g) where exp = 1", "'exp' cannot name a constant|is an operator"),
        ("lr*g where lr = 1", "lr multiplies the whole formula: leave it out here"),
        ("c*g", "unknown name 'c'"),
    ],
)
def test_values_out_of_range_are_refused(text, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.parse(text)


def test_the_caret_of_a_value_is_under_it():
    text = "c*g where c = 2, lr = 0.1, d = 3"
    with pytest.raises(RuleError) as caught:
        UpdateRule.parse(text)
    assert caught.value.offset == text.index("d = 3")


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\n  "])
def test_any_blank_may_surround_where(space):
    assert UpdateRule.parse(f"ad{space}where{space}lr = 0.5") == UpdateRule("ad", lr=0.5)


def test_huge_integers_are_refused():
    for attempt in ({"lr": 10**400}, {"values": {"beta1": 10**400}}):
        with pytest.raises(RuleError, match="beyond the range"):
            UpdateRule("ad", **attempt)


def test_equality_is_of_meaning():
    rule = UpdateRule.parse("ad + 0.5*g where lr = 0.1")
    same = UpdateRule.parse("0.5*g + ad where lr = 0.1", name="other", provenance={"x": 1})
    assert (rule == same, hash(rule) == hash(same), len({rule, same})) == (True, True, 1)
    others = ["ad + 0.5*g", "ad + 0.5*g where lr = 0.2", "ad + 0.5*g where lr = 0.1, eps = 1e-7", "ad + 0.6*g"]
    assert all(UpdateRule.parse(other) != rule for other in others)
    assert rule != "ad + 0.5*g where lr = 0.1"


def test_rules_are_immutable():
    rule = UpdateRule.parse("ad where lr = 0.1")
    with pytest.raises(FrozenInstanceError):
        rule.lr = 0.2
    with pytest.raises(TypeError):
        rule.values["beta1"] = 0.5


@pytest.mark.parametrize(
    ("text", "states", "values"),
    [
        ("g", (), set()),
        ("1", (), set()),
        ("sign(m)", ("m",), {"beta1"}),
        ("ad", ("m", "v"), {"beta1", "beta2", "eps"}),
        ("rs", ("v",), {"beta2", "eps"}),
        ("m_slow_prev", ("m_slow",), {"beta2"}),
        ("b*mu", ("b",), {"mu"}),
        ("ld*g", (), {"T"}),
        ("ad - ad + g", (), set()),
        ("wd*w", (), {"wd"}),
    ],
)
def test_only_what_is_used_is_live(text, states, values):
    rule = UpdateRule.parse(text)
    assert set(rule.states) == set(states)
    assert set(rule.values) == values
    assert rule.complexity.states == len(states)
    # Each definition comes after those that it needs.
    seen = {"g", "w", "t", "T", *rule.values, *(f"{state}_prev" for state in rule.states)}
    for name in rule.live:
        assert {free.name for free in rule.vocabulary.definitions[name].free_symbols} <= seen
        seen.add(name)


@pytest.mark.parametrize("text", TEXTS)
def test_numbered_constants_keep_the_value(text):
    rule = UpdateRule.parse(text.replace("c1", "k").replace("308", "30"))
    numbered = rule.with_numbered_constants()
    assert not any(atom.is_Float for atom in numbered.expression.atoms())
    rng = np.random.default_rng(1)
    phi, psi = evaluator(rule, horizon=20), evaluator(numbered, horizon=20)
    w = rng.normal(size=4)
    a, b = phi.init(w), psi.init(w)
    for t in range(1, 21):
        g = rng.normal(size=4)
        x, a = phi(g, a, w, t)
        y, b = psi(g, b, w, t)
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-300)
    assert UpdateRule.parse(str(numbered)) == numbered


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("539*cd*m_hat - 6.5*ad where T = 9", "-ad*c1 + c2*cd*m_hat where T = 9, c1 = 6.5, c2 = 539"),
        ("2*tanh(-3*g**2) + 0.1*g", "c1*g - c2*tanh(c3*g**2) where c1 = 0.1, c2 = 2, c3 = 3"),
        ("(0.5 - 2*g)**2 + m/3 - 1", "(c1 - c2*g)**2 + m/3 - 1 where c1 = 0.5, c2 = 2"),
        ("2*g - m", "2*g - m"),
    ],
)
def test_integers_that_multiply_are_constants_beside_floats(text, named):
    assert str(UpdateRule.parse(text).with_numbered_constants()) == str(UpdateRule.parse(named))


def test_numbered_constants_leave_out_names_that_are_taken():
    values = UpdateRule.parse("c1*g + 0.5*m + 0.25*c3*w where c1 = 1, c3 = 4").with_numbered_constants().values
    assert {name: values[name] for name in ("c1", "c2", "c3", "c4")} == {"c1": 1, "c2": 0.25, "c3": 4, "c4": 0.5}
    assert "k1" in UpdateRule.parse("c1*g + 0.5*m where c1 = 1").with_numbered_constants("k").values


def test_weight_decay_is_added_or_set():
    rule = UpdateRule.parse("ld*ad where lr = 0.01, T = 9", name="n").with_weight_decay(0.1)
    assert rule == UpdateRule.parse("ld*ad + w*wd where lr = 0.01, T = 9, wd = 0.1")
    assert rule.name == "n"
    assert rule.with_weight_decay(0.2).values["wd"] == 0.2
    falling = UpdateRule.parse("ad").with_weight_decay(0.1, symbol("ld"))
    assert falling == UpdateRule.parse("ad + w*wd*ld where wd = 0.1")
    assert ZOO["adamw"].with_weight_decay(0.3).expression == ZOO["adamw"].expression
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(RuleError, match="wd must be in"):
            rule.with_weight_decay(bad)


def test_horizon():
    rule = UpdateRule.parse("ld*g", name="n", provenance={"a": 1})
    assert (rule.needs_horizon, rule.horizon) == (True, None)
    fixed = rule.with_horizon(50)
    assert (fixed.horizon, fixed.name, dict(fixed.provenance)) == (50, "n", {"a": 1})
    assert fixed == UpdateRule.parse("ld*g where T = 50")
    assert fixed.with_horizon(20).horizon == 20
    plain = UpdateRule.parse("ad")
    assert plain.with_horizon(50) is plain
    for bad in (0, 0.5, math.nan, math.inf):
        with pytest.raises(RuleError, match="horizon"):
            rule.with_horizon(bad)


@pytest.mark.parametrize(
    ("text", "terms", "nodes"),
    [("g", 1, 1), ("g + m", 2, 3), ("(g + m)*(ad + rs)", 4, 7), ("exp(g + m)", 1, 4), ("(g + m)**2", 3, 5)],
)
def test_complexity(text, terms, nodes):
    size = UpdateRule.parse(text).complexity
    assert (size.terms, size.nodes) == (terms, nodes)


def test_complexity_of_huge_powers_is_bounded():
    assert UpdateRule.parse("(g + ad + rs + w + b + s)**64").complexity.terms == 1


def test_save_and_read(tmp_path):
    rule = ZOO["adam"]
    rule.save(tmp_path / "rule.json")
    assert UpdateRule.from_json((tmp_path / "rule.json").read_text()) == rule
    assert [path.name for path in tmp_path.iterdir()] == ["rule.json"]


def test_minus_zero_is_zero():
    rule = UpdateRule.parse("k1*g where k1 = -0")
    assert str(rule) == "g*k1 where k1 = 0"
    assert UpdateRule.parse(str(rule)) == rule == UpdateRule.from_json(rule.to_json())
