"""Weights to evaluate with: the second formula of a rule."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from sol_symbols import ZOO, RuleError, UpdateRule, evaluator, latex, lower, lower_evaluation, resolve_rule

RULES = [
    "ad evaluate ema_weights where lr = 0.01, beta_avg = 0.9",
    "sign(g)*ld evaluate mean_weights where T = 20",
    "c*m evaluate w - c*lr*m_hat + 0.5*(w_avg - w)*min(1, t/7) where c = 0.25",
    str(ZOO["schedule-free-adamw"]),
]


def steps(rule, count=12, seed=0):
    """Parameters and weights after each step."""
    g = np.random.default_rng(seed).normal(size=(count, 5))
    phi, w = evaluator(rule), np.linspace(-1, 1, 5)
    state, found = phi.init(w), []
    for t in range(1, count + 1):
        update, state = phi(g[t - 1], state, w, t)
        w = w - 0.1 * update
        found.append((w, phi.weights(state, w, t, 0.1)))
    return [np.array(column) for column in zip(*found)]


@pytest.mark.parametrize("text", RULES)
def test_both_forms_keep_them(text):
    rule = UpdateRule.parse(text)
    for again in (UpdateRule.parse(str(rule)), UpdateRule.from_json(rule.to_json()), pickle.loads(pickle.dumps(rule))):
        assert again == rule
        assert str(again) == str(rule)
        np.testing.assert_array_equal(steps(again), steps(rule))
    assert json.loads(rule.to_json())["schema"] == 3
    assert replace(rule, evaluation=None) != rule


def test_rules_without_them_are_stored_as_before():
    record = json.loads(UpdateRule.parse("ad").to_json())
    assert record["schema"] == 1
    assert "evaluation" not in record


@pytest.mark.parametrize("text", RULES)
def test_updates_do_not_depend_on_them(text):
    rule = UpdateRule.parse(text)
    np.testing.assert_array_equal(steps(rule)[0], steps(replace(rule, evaluation=None))[0])
    assert {*rule.states} >= {*replace(rule, evaluation=None).states}


def test_their_values_are_the_averages_that_they_are_named_after():
    start = np.linspace(-1, 1, 5)
    w, ema = steps(UpdateRule.parse("m evaluate ema_weights where beta_avg = 0.7"))
    average = start
    for row, found in zip(w, ema):
        average = 0.7 * average + 0.3 * row
        np.testing.assert_allclose(found, average, rtol=1e-13, atol=1e-15)
    w, mean = steps(UpdateRule.parse("m evaluate mean_weights"))
    np.testing.assert_allclose(mean, np.cumsum(w, 0) / np.arange(1, 13)[:, None], rtol=1e-13, atol=1e-15)


def test_states_that_only_they_use_are_states():
    rule = UpdateRule.parse("sign(g) evaluate ema_weights")
    assert rule.states == ("w_avg",)
    assert rule.averages == ("ema_weights",)
    assert lower(rule).states == {"w_avg": 0.0}
    assert [a.name for a in lower_evaluation(rule).body] == ["w_avg", "ema_weights"]
    assert rule.values == {"beta_avg": 0.98}
    assert rule.complexity.states == 1


def test_before_the_first_step_they_are_the_parameters():
    phi = evaluator(UpdateRule.parse(RULES[0]))
    w = np.arange(3.0)
    np.testing.assert_array_equal(phi.weights(phi.init(w), w, 0), w)


def test_without_them_the_parameters_are_evaluated():
    phi = evaluator(UpdateRule.parse("ad"))
    w = np.arange(3.0)
    assert phi.weights(phi.init(w), w, 5) is w
    with pytest.raises(RuleError, match="the rule ad has no evaluation weights"):
        lower_evaluation(UpdateRule.parse("ad"))


def test_a_learning_rate_that_they_use_is_asked_for():
    phi = evaluator(ZOO["schedule-free-adamw"])
    w = np.arange(3.0)
    with pytest.raises(RuleError, match="the evaluation weights use the learning rate: pass lr"):
        phi.weights(phi.init(w), w, 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("w - g", "evaluation weights cannot use g: use w, states, t, lr and hyperparameters"),
        ("rs + m", "evaluation weights cannot use g"),
        ("m_prev", "evaluation weights cannot use m_prev"),
        ("li + w", "evaluation weights cannot use g"),
        ("ld*m", "evaluation weights cannot use T"),
        ("m*rms(w)", "evaluation weights cannot use whole tensors"),
        ("m*fan_in", "evaluation weights cannot use whole tensors"),
        ("w*log_rate", "evaluation weights cannot use whole tensors"),
        ("m + orth(m)", "evaluation weights cannot use whole tensors"),
        ("w", "evaluation weights must use a state"),
        ("0.5*w + lr", "evaluation weights must use a state"),
        ("", "empty expression"),
        ("foo", "unknown name 'foo'"),
        ("m evaluate w", "not an expression"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(weights, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.parse(f"ad evaluate {weights} where lr = 0.1")


@pytest.mark.parametrize("value", [True, 1.5, [], {}, "m -", "g", "w"])
def test_bad_ones_in_json_are_refused(value):
    record = json.loads(UpdateRule.parse("ad").to_json()) | {"schema": 3, "evaluation": value}
    with pytest.raises(RuleError):
        UpdateRule.from_json(json.dumps(record))


def test_only_they_can_use_the_learning_rate():
    with pytest.raises(RuleError, match="lr multiplies the whole formula"):
        UpdateRule.parse("lr*g evaluate ema_weights")


def test_constants_of_both_formulas_are_kept():
    rule = UpdateRule.parse("c*g evaluate w + d*m where c = 2, d = 3, beta1 = 0.5")
    assert rule.values == {"beta1": 0.5, "c": 2.0, "d": 3.0}


def test_the_parameter_is_the_one_after_the_step():
    rule = UpdateRule.parse("ad evaluate ema_weights")
    definition = rule.vocabulary.definitions["ema_weights"]
    assert latex(definition, after=True).endswith(r"\theta_t")
    assert latex(definition).endswith(r"\theta_{t-1}")
    assert latex(ZOO["schedule-free-adamw"].evaluation, after=True).startswith(r"\theta_t + \frac{")


def test_commands_take_such_formulas():
    assert resolve_rule("ad evaluate ema_weights").states == ("m", "v", "w_avg")
