"""What rules compute, how they answer to sign and scale, and where they are found."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sympy

from sol_symbols import (
    INPUTS,
    OPERATORS,
    STANDARD,
    ZOO,
    Evaluator,
    Feature,
    Recurrence,
    RuleError,
    SolError,
    UpdateRule,
    evaluator,
    hoisted,
    lower,
    lower_features,
    parity,
    plot,
    probed_parity,
    probed_scaling_degree,
    resolve_rule,
    scaling_degree,
    simplify,
    symbol,
    value_ranges,
    write_atomically,
)
from sol_symbols.cli import main
from sol_symbols.glossary import glossary_markdown, zoo_markdown


def history(steps=50, count=40, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return (10 ** generator.uniform(-3, 1, count) * generator.normal(size=(steps, count))).astype(dtype)


def run(rule, gradients, horizon=None):
    return rule.evaluate(gradients, np.zeros_like(gradients[0]), horizon)


def reference(name, gradients, horizon):
    """Each published rule written out by hand."""
    m = v = b = s = np.zeros_like(gradients[0])
    slow = res = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        before = slow
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        b, s, slow = 0.9 * b + g, s + g**2, 0.99 * slow + 0.01 * g
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        res = 0.999 * res + 0.001 * (g - m) ** 2 + 1e-16
        linear, cosine = 1 - min(t / horizon, 1), (1 + np.cos(np.pi * min(t / horizon, 1))) / 2
        agree = np.sign(g) * np.sign(m)
        yield {
            "sgd": g,
            "momentum": b,
            "nesterov": g + 0.9 * b,
            "adagrad": g / (np.sqrt(s) + 1e-10),
            "adam": m_hat / (np.sqrt(v_hat) + 1e-8),
            "adamw": m_hat / (np.sqrt(v_hat) + 1e-8),
            "nadam": (0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)) / (np.sqrt(v_hat) + 1e-8),
            "nadamw": (0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)) / (np.sqrt(v_hat) + 1e-8),
            "adabelief": m_hat / (np.sqrt(res / (1 - 0.999**t)) + 1e-16),
            "signsgd": np.sign(g),
            "signum": np.sign(m),
            "lion": np.sign(0.9 * before + 0.1 * g),
            "powersign-ld": np.exp(linear * agree) * g,
            "powersign-cd": np.exp(cosine * agree) * g,
            "addsign-ld": (1 + linear * agree) * g,
            "addsign-cd": (1 + cosine * agree) * g,
        }[name]


# Those since 2018 are compared in tests/test_zoo.py.
CLASSIC = [*[*ZOO][: [*ZOO].index("amsgrad")], "lion", *(name for name in ZOO if "sign-" in name)]


@pytest.mark.parametrize("name", [name for name in CLASSIC if name != "rmsprop"])
def test_zoo_rules_are_what_was_published(name):
    gradients = history()
    expected = np.stack(list(reference(name, gradients, 30)))  # the horizon ends before the run does
    np.testing.assert_allclose(run(ZOO[name], gradients, 30), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ZOO)
def test_float32_stays_float32(name):
    updates = run(ZOO[name], history(dtype=np.float32), 30)
    assert updates.dtype == np.float32


@pytest.mark.parametrize("text", ["1", "ld", "exp(ld)*g + cd**2", "sqrt(ld)*sign(m)", "g/(1 + ld)", "abs(ld - cd)"])
def test_rules_with_schedules_keep_shape_and_type(text):
    rule = UpdateRule.parse(text)
    for shape in [(), (0,), (2, 3, 4)]:
        for dtype in (np.float32, np.float64):
            g = np.ones(shape, dtype)
            phi = evaluator(rule, np, 10)
            update, _ = phi(g, phi.init(g), g, 3)
            assert (update.shape, update.dtype) == (shape, dtype)


@pytest.mark.parametrize(("beta2", "first"), [(0.999, 6), (0.9, 6), (0.7, 10), (0.6, None), (0.0, None)])
def test_radam_is_momentum_until_v_averages_five_gradients(beta2, first):
    """Also where it never does, and for beta2 = 0, where the formula's roots are of negative numbers."""
    longest = 2 / (1 - beta2) - 1
    expected, m, v = [], 0.0, 0.0
    for t in range(1, 21):
        g = 1.0 + t % 3
        m, v = 0.9 * m + 0.1 * g, beta2 * v + (1 - beta2) * g**2
        length, size = longest - 2 * t * beta2**t / (1 - beta2**t), 1.0
        if length > 5:
            ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            size = np.sqrt(ratio) * np.sqrt(1 - beta2**t) / (np.sqrt(v) + 1e-8)
        expected.append(m / (1 - 0.9**t) * size)
        assert (length > 5) == (first is not None and t >= first), (t, length)
    rule = replace(ZOO["radam"], values={"beta2": beta2})
    found = rule.evaluate([1.0 + t % 3 for t in range(1, 21)])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


LONG = "1.5*ad*cd + 2*ad*ld - 0.5*rs*cd + rs + sign(m)*ld - 3*sign(m) + w*cd + sqrt(ld)*g*ad - g*ad"


@pytest.mark.parametrize("rule", [*ZOO.values(), UpdateRule.parse(LONG)], ids=str)
def test_hoisted_code_is_the_rule(rule):
    plain, fast = (Evaluator(program) for program in (lower(rule), hoisted(lower(rule))))
    values = rule.with_horizon(50).values
    states = [plain.init(np.zeros(40)), fast.init(np.zeros(40))]
    for t, g in enumerate(history(), start=1):
        w = np.cos(g)
        ((expected,), states[0]), ((found,), states[1]) = (
            code.step(g, state, w, t, values) for code, state in zip((plain, fast), states)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_hoisted_code_collects_like_terms_and_calculates_nothing_twice():
    program = hoisted(lower(UpdateRule.parse(LONG)))
    (phi,) = program.outputs
    assert len(phi.args) == 5  # ad, rs, sign(m), w and g*ad
    code = [*(a.value for a in program.body), phi]
    assert [a.name for a in program.body][-3:] == ["denom", "ad", "rs"]
    nodes = [node for value in code for node in sympy.preorder_traversal(value) if not node.is_Atom]
    assert sorted(map(str, (n for n in {*nodes} if nodes.count(n) > 1))) == ["1/denom"]
    names = ("g", "w", "m_prev", "v_prev", *(a.name for a in program.body))
    elementwise = [symbol(name) for name in names]
    for node in nodes:
        if node.is_Add or node.is_Mul:  # no arithmetic among numbers
            assert sum(not arg.has(*elementwise) for arg in node.args) <= 1


def test_what_several_outputs_share_is_calculated_ahead_of_all():
    features = [STANDARD.parse(text) for text in ("g", "sign(g)*ad", "exp(abs(g))", "abs(g)*rs")]
    program = lower_features(tuple(features), STANDARD)
    found = hoisted(program)
    assert found.outputs[0] == symbol("g")
    assert [a.name for a in found.body if not a.name] == []
    g = np.random.default_rng(0).normal(size=20)
    plain, fast = Evaluator(program), Evaluator(found)
    values = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    for value, expected in zip(*(code.step(g, code.init(g), g, 1, values)[0] for code in (fast, plain)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_momenta_of_other_speeds():
    gradients = history()
    m = fast = long = slow = np.zeros_like(gradients[0])
    expected = []
    for t, g in enumerate(gradients, start=1):
        before, m, slow = slow, 0.9 * m + 0.1 * g, 0.999 * slow + 0.001 * g
        fast, long = 0.5 * fast + 0.5 * g, 0.99 * long + 0.01 * g
        ahead = 0.9 * m / (1 - 0.9**t) + 0.1 * g
        expected.append([ahead, 0.9 * before + 0.1 * g, fast / (1 - 0.5**t), long / (1 - 0.99**t), 0 * g + np.log(t)])
    for index, name in enumerate(("la", "li", "m_fast_hat", "m_long_hat", "lt")):
        found = run(UpdateRule.parse(name), gradients)
        np.testing.assert_allclose(found, np.stack(expected)[:, index], rtol=1e-12, atol=1e-15, err_msg=name)


def test_schedules_end_with_the_horizon():
    ld = run(UpdateRule.parse("ld where T = 4"), history(steps=8, count=1))[:, 0]
    assert ld.tolist() == [0.75, 0.5, 0.25, 0, 0, 0, 0, 0]


def test_an_open_horizon_is_asked_for():
    with pytest.raises(RuleError, match="has a schedule: set its horizon T"):
        evaluator(ZOO["powersign-ld"])


def test_evaluate_is_the_evaluator_along_a_trajectory():
    rule, g, w = ZOO["adamw"], history(9, 5), history(9, 5, seed=1)
    phi = evaluator(rule)
    state = phi.init(w[0])
    for t, update in enumerate(rule.evaluate(g, w), start=1):
        expected, state = phi(g[t - 1], state, w[t - 1], t)
        np.testing.assert_array_equal(update, expected)
    np.testing.assert_array_equal(rule.evaluate(g, w[0]), rule.evaluate(g, np.broadcast_to(w[0], g.shape)))
    np.testing.assert_array_equal(ZOO["adam"].evaluate(g), np.stack([*ZOO["adam"].evaluate(g[:, :, None])])[..., 0])


@pytest.mark.parametrize(
    ("gradients", "shape", "dtype"),
    [
        ([1, 2], (2,), np.float64),
        (np.ones((3, 2), np.float32), (3, 2), np.float32),
        (np.ones((3, 0)), (3, 0), np.float64),
        (np.ones((0, 3)), (0, 3), np.float64),
    ],
)
def test_updates_have_the_shape_and_type_of_the_gradients(gradients, shape, dtype):
    updates = UpdateRule.parse("ad + ld + w*wd where T = 3").evaluate(gradients, 1.0)
    assert (updates.shape, updates.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("text", "gradients", "parameters", "message"),
    [
        ("g", 1.0, None, r"shape \[steps, ...\], got float64 of shape \[\]"),
        ("g", ["a"], None, "real numbers"),
        ("g", [1j], None, "got complex128"),
        ("g", [True], None, "got bool"),
        ("ad + wd*w where wd = 1", [1.0], None, "value w: pass parameters"),
        (
            "ad + wd*w where wd = 1",
            np.ones((4, 3)),
            np.ones(2),
            r"shape \[2\] do not broadcast to gradients of shape \[4, 3\]",
        ),
        ("ld", [1.0], None, "set its horizon"),
    ],
)
def test_what_cannot_be_evaluated_is_said(text, gradients, parameters, message):
    with pytest.raises(RuleError, match=message):
        UpdateRule.parse(text).evaluate(gradients, parameters)


def test_every_standard_name_has_its_latex_symbol():
    replaced = {name for name, feature in STANDARD.features.items() if feature.inline}
    assert {*STANDARD.latex} == STANDARD.names - replaced
    assert len({*STANDARD.latex.values()}) == len(STANDARD.latex)
    assert STANDARD.latex["m_slow_prev"] == r"m^{\mathrm{slow}}_{t-1}"


def test_steps_are_smaller_where_gradients_have_vanished():
    """As on data that is fitted; not where they shrink to a thirtieth, nor for scales; a peak is forgotten."""
    sizes = np.concatenate([np.ones(5), np.full(5, 0.05), np.full(10, 1e-3), np.zeros(2), np.ones(3)])
    for scale in (1e-9, 1.0, 1e9):
        gradients = scale * sizes[:, None] * np.array([1.0, -1.0, 1.0])
        calm = UpdateRule.parse("calm*g/abs(g + 1e-300)").evaluate(gradients, horizon=1000)[:, 0]
        assert (calm[:10] == 1).all()
        np.testing.assert_allclose(calm[10:20], 33e-3 / (1 - 3 / 1000) ** np.arange(6, 16), rtol=1e-6)
        assert (calm[20:22] == 0).all()
        assert (calm[22:] == 1).all()
    spike = np.ones((400, 2))
    spike[0] = 1e3
    calm = UpdateRule.parse("calm*g").evaluate(spike, horizon=400)[:, 0]
    assert calm[1] < 0.04
    assert calm[-1] == pytest.approx(33e-3 / (1 - 3 / 400) ** 399, rel=1e-6)


def test_symbols_of_ones_own_names():
    wider = STANDARD.extended(
        Recurrence("k", "0.5*k_prev + abs(g)", latex=r"\kappa_{1,t}"), Feature("cold", "g/k", latex="q_t")
    )
    rule = UpdateRule.parse("cold + k_prev + m + foo where foo = 2", wider)
    assert rule.latex() == r"q_t + \mathrm{foo} + \kappa_{1,t-1} + m_t"
    again = UpdateRule.from_json(rule.to_json())  # files have no symbols
    assert again == rule
    assert again.latex() == r"\mathrm{cold} + \mathrm{foo} + \mathrm{k\_prev} + m_t"
    changed = STANDARD.extended(Recurrence("m", "beta1*m_prev + g"))
    assert changed.latex == STANDARD.latex
    assert changed.recurrences["m"] != STANDARD.recurrences["m"]
    with pytest.raises(RuleError, match="the LaTeX of state 'k', 'k', has no index t"):
        STANDARD.extended(Recurrence("k", "g", latex="k"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/m", r"\frac{1}{m_t}"),
        ("g/sqrt(v)", r"\frac{g_t}{\sqrt{v_t}}"),
        ("1/(abs(g) + m)", r"\frac{1}{m_t + \left|{g_t}\right|}"),
        ("1/sqrt(v)", r"\frac{1}{\sqrt{v_t}}"),
        ("sign(g)**3", r"\operatorname{sign}^{3}\left(g_t\right)"),
        ("min(g, m)", r"\min\left(g_t, m_t\right)"),
    ],
)
def test_latex_of_quotients_and_functions(text, expected):
    assert UpdateRule.parse(text).latex() == expected


def test_values_that_are_not_finite_come_out():
    g = np.array([np.nan, np.inf, -np.inf, 0.0])
    phi = evaluator(UpdateRule.parse("sign(g) + 0*m + g"))
    with np.errstate(invalid="ignore"):
        update, _ = phi(g, phi.init(g), g, 1)
    np.testing.assert_array_equal(update, [np.nan, np.inf, -np.inf, 0.0])
    assert np.isnan(evaluator(ZOO["signum"])(g, evaluator(ZOO["signum"]).init(g), g, 1)[0][0])


PROBED = (
    "ad, ld*sign(g), g**3, ag*g, exp(ad), rs*ad, ag, sign(ld + g), lion, tanh(m)*sqrt(v), g + ad, m_hat*sqrt(v_hat), "
    "1, abs(g)*sign(m), cd*b"
)


@pytest.mark.parametrize("text", PROBED.split(", "))
def test_parity_and_scaling_degree_are_confirmed_by_probes(text):
    rule = ZOO.get(text) or UpdateRule.parse(text)
    gradients = history()
    value, mirrored = run(rule, gradients, 20), run(rule, -gradients, 20)
    found = parity(rule.expression, rule.vocabulary)
    assert found == (-1 if np.allclose(mirrored, -value) else 1 if np.allclose(mirrored, value) else 0)
    degree = scaling_degree(rule.expression, rule.vocabulary)
    scaled = run(rule, 64 * gradients, 20)
    degrees = [k for k in range(4) if np.allclose(scaled, 64.0**k * value, rtol=1e-4)]
    assert degrees == ([] if degree is None else [degree])


@pytest.mark.parametrize("name", ZOO)
def test_symmetries_of_the_zoo_are_confirmed_by_probes(name):
    rule = ZOO[name]
    rule = replace(rule, values={**rule.values, "eps": 1e-16}) if "eps" in rule.values else rule  # it counts as 0
    assert probed_parity(rule) == parity(rule.expression, rule.vocabulary) == -1
    degree = scaling_degree(rule.expression, rule.vocabulary)
    if name not in ("novograd", "schedule-free-adamw"):  # with wd*w, where wd is 0
        assert probed_scaling_degree(rule) == (None if degree is None else float(degree))


@pytest.mark.parametrize(
    ("text", "odd", "degree"),
    [
        ("g**3", -1, 3), ("sqrt(abs(g))", 1, 0.5), ("1/m_hat", -1, -1), ("1", 1, 0), ("exp(g)", 0, None),
        ("g + ad", -1, None), ("0", 1, None), ("g*abs(w)", -1, None), ("g - g*sign(g)**2", -1, None),
        ("g/(abs(g) + eps) where eps = 0.1", -1, 0), ("g*min(1, rms(w))", -1, None), ("loss*g", -1, 2),
        ("v_res", 1, 2), ("1/g_max", 1, -1),
        # what limits large gradients, in all tensors or in one, leaves small ones alone
        ("g*min(1, inv0(all_rms(g)))", -1, None), ("g*min(1, loss*inv0(all_dot(g, g)))", -1, None),
        ("g*min(1, 1e6*inv0(rms(g)))", -1, None), ("g*min(1, 1e-4*inv0(rms(g)))", -1, None),
        ("g*min(1, 1e6*inv0(norm(m)))", -1, None), ("clip(g, 1e7)", -1, None),
        ("g*g*step(1 - all_rms(g)) + g*step(all_rms(g) - 1)", 0, None),
    ],
)  # fmt: skip
def test_symmetries_are_found_by_probes_alone(text, odd, degree):
    rule = UpdateRule.parse(text)
    assert probed_scaling_degree(rule) == degree
    values = rule.evaluate(history(5), 1.0, losses=np.ones(5))
    assert probed_parity(rule) == (1 if not values.any() else odd)


def test_vocabularies_refuse_what_cannot_be():
    for entry, message in [
        (Feature("m", "g"), "defined twice"),
        (Feature("loop", "loop + 1"), "refers to itself"),
        (Feature("bad", "foo + 1"), "unknown name 'foo'"),
        (Feature("exp", "g"), "cannot be a name"),
        (Feature("two words", "g"), "cannot be a name"),
    ]:
        with pytest.raises(RuleError, match=message):
            STANDARD.extended(entry)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STANDARD.extended("g/2"), "a vocabulary is a Hyperparameter, a Recurrence or a Feature, got 'g/2'"),
        (lambda: Feature("q", 1), "the definition of a Feature must be text, got 1"),
        (lambda: Recurrence("q", None), "the update of a Recurrence must be text, got None"),
        (
            lambda: Recurrence("q", "g", kind="tensor"),
            "the kind of state 'q' must be one of Kind.RUN, .*, got 'tensor'",
        ),
        (lambda: Recurrence("q", "g", "0"), "the init of state 'q' must be an int or a float, got '0'"),
        (lambda: Recurrence("q", "g", math.nan), "the init of state 'q' = nan is not a finite number"),
        (lambda: Recurrence("q", "g", 10**400), "the init of state 'q' is beyond the range of float64"),
        (
            lambda: UpdateRule.by_shape("g", ZOO["adam"]),
            "rule must be an UpdateRule, got 'g': resolve_rule reads texts",
        ),
        *(
            (partial(function, "ad"), "rule must be an UpdateRule, got 'ad': resolve_rule reads texts and paths")
            for function in (evaluator, simplify, value_ranges, plot, probed_parity, probed_scaling_degree)
        ),
    ],
)
def test_arguments_of_another_type_are_refused_at_the_door(make, message):
    with pytest.raises(RuleError, match=message):
        make()


def test_a_feature_of_ones_own_travels_with_the_rule():
    wider = STANDARD.extended(
        Recurrence("k", "0.5*k_prev + 0.5*abs(g)", init=1.0), Feature("cold", "g/(k + eps)", "gradient by its size")
    )
    rule = UpdateRule.parse("0.1*cold*ld where T = 9", wider)
    again = UpdateRule.from_json(rule.to_json())
    assert again == rule
    np.testing.assert_array_equal(run(again, history()), run(rule, history()))
    assert again.states == ("k",)
    with pytest.raises(RuleError, match="unknown name 'cold'"):
        UpdateRule.parse(str(rule))


def test_live_names_come_after_what_they_need():
    order = STANDARD.live(STANDARD.parse("ad*ld + m_slow_prev + ag"))
    for position, name in enumerate(order):
        needed = {free.name for free in STANDARD.definitions[name].free_symbols} & {*STANDARD.definitions} - {name}
        assert needed <= {*order[:position]}
    assert {"m", "v", "ad", "ld", "ag", "m_slow"} <= {*order}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    write_atomically(target, "old")
    with pytest.raises(SolError, match="cannot write"):
        write_atomically(tmp_path / "nowhere" / "file", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SolError, match="cannot write"):
        write_atomically(tmp_path / "folder", "new")
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_rules_are_found_wherever_a_person_keeps_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = UpdateRule.parse("0.5*ad where lr = 0.1", name="mine")
    (tmp_path / "run").mkdir()
    rule.save("run/rule.json")
    (tmp_path / "rule.txt").write_text("0.5*ad\n  where lr = 0.1\n")
    (tmp_path / "adam").write_text("sign(g)")
    for text in ("run", "run/rule.json", "rule.txt", "0.5*ad where lr = 0.1"):
        assert resolve_rule(text) == rule
    assert resolve_rule("run").name == "mine"
    assert resolve_rule("adam") is ZOO["adam"]
    assert str(resolve_rule("adam where lr = 0.1, beta1 = 0.5")) == "ad where lr = 0.1, beta1 = 0.5"
    assert str(resolve_rule("vectors: sgd; matrices: run")) == "matrices(0.5*ad) + vectors(g) where lr = 0.1"
    with pytest.raises(RuleError, match="adam has no 'beta3'; it has lr, beta1, beta2, eps"):
        resolve_rule("adam where beta3 = 1")
    assert str(resolve_rule("./adam")) == "sign(g)"


@pytest.mark.parametrize(
    "text", ["g/(abs(g)+eps)", "m/v", "-g/2", "1/g", "g/" + "2/" * 90 + "3", "+".join(["m*g"] * 300)]
)
def test_a_formula_is_a_formula_with_and_without_blanks(text, tmp_path, monkeypatch):
    """A slash or a length that no file name has makes no path of it; a file of that name is read."""
    monkeypatch.chdir(tmp_path)
    assert resolve_rule(text) == UpdateRule.parse(text)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "v").write_text("sign(g)")
    assert str(resolve_rule("m/v")) == "sign(g)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs/none", "no such run folder or rule file: runs/none$"),
        ("runs/2025-01-2b", "no such run folder or rule file: runs/2025-01-2b$"),
        ("none.json", r"no such run folder or rule file: none\.json$"),
        ("rule.py", r"no such run folder or rule file: rule\.py$"),
        ("./none", r"no such run folder or rule file: \./none$"),
        ("/home/g/x", "no such run folder or rule file: /home/g/x$"),
        ("g/x", "no such run folder or rule file: g/x; as a formula: unknown name 'x'"),
        ("mhat/vhat", r"no such .*: mhat/vhat; as a formula: unknown name 'mhat'; did you mean 'm_hat'\?$"),
        ("/x" * 3000, r"no such run folder or rule file: '/x/x.*\.\.\..*/x'$"),
        ("g/(abs(g)+x)", "(?s)^unknown name 'x'.*one of: sgd"),
        ("0.8*sg + m", r"'sg' of the SOL paper is sign\(g\) here; its m and v are m_hat and sqrt\(v_hat\)"),
        ("g*sm", r"'sm' of the SOL paper is sign\(m_hat\) here"),
        ("empty", "empty has no rule.json"),
        ("binary", "binary is not a text file"),
        ("cut", "cut: not JSON"),
        ("newer", "schema 6; this release reads schemas 1 to 5"),
        ("ad + foo", "(?s)unknown name 'foo'.*or one of: sgd"),
        ("", "empty expression"),
        ("x" * 5000, "unknown name"),
        ("a\0b", "not an expression|cannot be read"),
    ],
)
def test_what_is_not_a_rule_is_said(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "cut").write_text(ZOO["adam"].to_json()[:100])
    (tmp_path / "newer").write_text(json.dumps({**json.loads(ZOO["adam"].to_json()), "schema": 6}))
    with pytest.raises(SolError, match=message):
        resolve_rule(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sol-genral", "sol-general"),
        ("sol-genral where lr = 0.1", "sol-general"),
        ("matrices: sgd; vectors: sol-genral", "sol-general"),
        ("SOL-General", "sol-general"),
        ("sol_general", "sol-general"),
        ("sol general", "sol-general"),
        ("powersgn-ld", "powersign-ld"),
        ("sign-sgd", "signsgd"),
        ("adam-w", "adamw"),
        ("lino", "lion"),
    ],
)
def test_a_misspelt_name_gets_the_right_one(text, name):
    with pytest.raises(SolError, match=f"^no rule '[^']*'; did you mean '{name}'\\?$"):
        resolve_rule(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ad-foo", "unknown name 'foo'"),
        ("m-lion", "unknown name 'lion'; did you mean 'li'"),
        ("foo-bar", "unknown name 'foo'"),
        ("adam - w*wd", "unknown name 'adam'"),
        ("mhat", "unknown name 'mhat'; did you mean 'm_hat'"),
        ("sg", "'sg' of the SOL paper"),
    ],
)
def test_a_formula_with_an_error_is_no_misspelt_name(text, message):
    with pytest.raises(SolError, match=f"(?s)^{message}.*one of: sgd"):
        resolve_rule(text)
    assert resolve_rule("ad-g") == UpdateRule.parse("ad - g")


def test_a_path_of_nothing_gets_the_rules_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("halves", "mnistnet", *(f"seed{i}" for i in range(9)), "\x1b[2J"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        ZOO["adam"].save(tmp_path / "runs" / name / "rule.json")
    (tmp_path / "runs" / "halvs-unfinished").mkdir()
    (tmp_path / "runs" / "halve.json").write_text("[]")
    ZOO["adam"].save(tmp_path / "runs" / "tuned.json")
    ZOO["adam"].save(tmp_path / "mine.json")
    for text in ("runs/halvs", "./runs/halvs", Path("runs", "halvs"), "runs/halvs/"):
        with pytest.raises(SolError, match=r"halvs/?; runs holds 'halves'(, '\w+'){4}$"):
            resolve_rule(text)
    with pytest.raises(SolError, match=r"tune\.json; runs holds 'tuned\.json', "):
        resolve_rule("runs/tune.json")
    with pytest.raises(SolError, match=r"runs/t; runs holds "):  # t is the step in formulas
        resolve_rule("runs/t")
    with pytest.raises(SolError, match=r"runs/lr=0\.1, new; runs holds "):
        resolve_rule("runs/lr=0.1, new")
    with pytest.raises(SolError, match=r"runs/\[2J; runs holds '\\x1b\[2J', "):
        resolve_rule("runs/[2J")
    with pytest.raises(SolError, match=r": min\.json; this folder holds 'mine\.json'$"):
        resolve_rule("min.json")


def test_a_path_is_a_folder_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = UpdateRule.parse("0.5*ad where lr = 0.1", name="mine")
    rule.save("rule.json")
    (tmp_path / "adam").write_text("sign(g)")
    assert resolve_rule(tmp_path) == resolve_rule(tmp_path / "rule.json") == resolve_rule(rule) == rule
    assert str(resolve_rule(Path("adam"))) == "sign(g)"
    for none in ("lion", "ad + g"):
        with pytest.raises(SolError, match=f"^no such run folder or rule file: {re.escape(none)}; this folder holds"):
            resolve_rule(Path(none))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SolError, match=r"^empty has no rule\.json"):
        resolve_rule(Path("empty"))
    (tmp_path / "front.json").write_text(json.dumps([{"terms": 1, "loss": 1, "rule": json.loads(rule.to_json())}]))
    assert resolve_rule(tmp_path, 1) == rule
    with pytest.raises(SolError, match="--complexity needs the folder of a finished run"):
        resolve_rule(rule, 1)


@pytest.mark.parametrize("rule", [None, 3, b"ad", ["ad"]])
def test_what_is_neither_text_nor_path_is_refused(rule):
    for complexity in (None, 3):
        message = f"^rule must be text, a path or an UpdateRule, got {type(rule).__name__}$"
        with pytest.raises(SolError, match=message):
            resolve_rule(rule, complexity)


def test_a_rule_file_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    ZOO["adam"].save(tmp_path / "rule.json")
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(SolError, match=r"^cannot read .*rule\.json: Permission denied$"):
        resolve_rule(str(tmp_path))


def test_notebooks_show_the_formula():
    assert UpdateRule.parse("0.123456*ad")._repr_latex_() == r"$\displaystyle \phi_t = 0.1235 a_t$"


def test_show_spells_a_rule_out(capsys):
    assert main(["show", "adamw"]) == 0
    shown = capsys.readouterr().out
    for part in ("ad + w*wd where wd = 0.01", "m_hat", "m/bc1", "beta2 = 0.999", "lr = open", "Loshchilov"):
        assert part in shown


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["addsign-ld"],
            ["shorter     g + ld*abs(g)*sign(m)", "symmetry    odd; scaling degree 1", "phi in [-199, 199]"],
        ),
        (["exp(g)"], ["neither odd nor even; no scaling degree", "warning   exp(g) in phi can reach 2.69e+43, above"]),
        (["g - g*sign(g)**2"], ["odd by its form, even by probes"]),
        (["v", "--gradient", "1e4"], ["for |g| <= 10000", "g**2 in v can reach 1e+08, above float16"]),
    ],
)
def test_show_tells_of_symmetry_size_and_overflow(words, parts, capsys):
    assert main(["show", *words]) == 0
    shown = capsys.readouterr().out
    assert [part for part in parts if part not in shown] == []


@pytest.mark.parametrize("option", ["--gradient", "--scale"])
@pytest.mark.parametrize("value", ["x", "0", "-1", "inf", "nan"])
def test_show_refuses_sizes_that_are_none(option, value, capsys):
    assert main(["show", "adam", f"{option}={value}"]) == 2
    assert f"{value!r} is not a positive number" in capsys.readouterr().err


def test_the_glossary_names_everything_and_can_be_written(tmp_path, capsys):
    text = glossary_markdown()
    tables = [*OPERATORS, *INPUTS, *STANDARD.hyperparameters, *STANDARD.recurrences, *STANDARD.features]
    assert [name for name in tables if f"| `{name}`" not in text and f"| `{name}(" not in text] == []
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(re.sub(r"\\\|", "", row).count("|") >= 3 and "\n" not in row for row in rows)
    assert main(["glossary", "-o", str(tmp_path / "g.md")]) == 0
    capsys.readouterr()
    assert main(["glossary"]) == 0
    assert capsys.readouterr().out == (tmp_path / "g.md").read_text() == text


def test_the_zoos_page_has_every_rule_with_its_memory_and_use(capsys):
    text = zoo_markdown()
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert [*sections] == [*ZOO]
    for name, section in sections.items():
        rule = ZOO[name]
        for fact in (f"`{rule}`", "- source: ", rule.provenance["use"], r"\phi_t &= "):
            assert fact in section, (name, fact)
        assert rule.provenance["use"] in text.split("\n## ")[0]
    assert "- states: `m`, `v`; 8 bytes per parameter" in sections["adam"]
    assert "- states: `m`, `v_mean` (per tensor); 4 bytes per parameter" in sections["adam-mini"]
    assert "- states: none" in sections["sgd"]
    assert main(["glossary", "--zoo"]) == 0
    assert capsys.readouterr().out == text


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, sol_symbols.cli; print({'torch', 'matplotlib', 'scipy', 'jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
