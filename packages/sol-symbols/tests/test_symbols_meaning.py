"""What rules compute, how they answer to sign and scale, and where they are found."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sol_symbols import (
    STANDARD,
    ZOO,
    Feature,
    Recurrence,
    RuleError,
    SolError,
    UpdateRule,
    evaluator,
    parity,
    resolve_rule,
    scaling_degree,
    write_atomically,
)
from sol_symbols.cli import main


def history(steps=50, count=40, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return (10 ** generator.uniform(-3, 1, count) * generator.normal(size=(steps, count))).astype(dtype)


def run(rule, gradients, horizon=None):
    phi = evaluator(rule, np, horizon)
    w = np.zeros_like(gradients[0])
    state, updates = phi.init(w), []
    for t, g in enumerate(gradients, start=1):
        update, state = phi(g, state, w, t)
        updates.append(update)
    return np.stack(updates)


def reference(name, gradients, horizon):
    """Each published rule written out by hand."""
    m = v = b = s = np.zeros_like(gradients[0])
    slow = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        before = slow
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        b, s, slow = 0.9 * b + g, s + g**2, 0.99 * slow + 0.01 * g
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        linear, cosine = 1 - min(t / horizon, 1), (1 + np.cos(np.pi * min(t / horizon, 1))) / 2
        agree = np.sign(g) * np.sign(m)
        yield {
            "sgd": g,
            "momentum": b,
            "nesterov": g + 0.9 * b,
            "adagrad": g / (np.sqrt(s) + 1e-10),
            "adam": m_hat / (np.sqrt(v_hat) + 1e-8),
            "adamw": m_hat / (np.sqrt(v_hat) + 1e-8),
            "signum": np.sign(m),
            "lion": np.sign(0.9 * before + 0.1 * g),
            "powersign-ld": np.exp(linear * agree) * g,
            "powersign-cd": np.exp(cosine * agree) * g,
            "addsign-ld": (1 + linear * agree) * g,
            "addsign-cd": (1 + cosine * agree) * g,
            "rmsprop": None,
        }[name]


@pytest.mark.parametrize("name", [name for name in ZOO if name != "rmsprop"])
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
    with pytest.raises(RuleError, match="needs its horizon T"):
        evaluator(ZOO["powersign-ld"])


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


def test_a_feature_of_ones_own_travels_with_the_rule():
    wider = STANDARD.extended(
        Recurrence("k", "0.5*k_prev + 0.5*abs(g)", init=1.0), Feature("calm", "g/(k + eps)", "gradient by its size")
    )
    rule = UpdateRule.parse("0.1*calm*ld where T = 9", wider)
    again = UpdateRule.from_json(rule.to_json())
    assert again == rule
    np.testing.assert_array_equal(run(again, history()), run(rule, history()))
    assert again.states == ("k",)
    with pytest.raises(RuleError, match="unknown name 'calm'"):
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
    assert str(resolve_rule("./adam")) == "sign(g)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs/none", "no such run folder or rule file: runs/none"),
        ("none.json", "no such run folder or rule file"),
        ("empty", "empty holds no rule.json"),
        ("binary", "binary is not a text file"),
        ("cut", "cut: not JSON"),
        ("newer", "schema 2; this release reads schema 1"),
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
    (tmp_path / "newer").write_text(json.dumps({**json.loads(ZOO["adam"].to_json()), "schema": 2}))
    with pytest.raises(SolError, match=message):
        resolve_rule(text)


def test_notebooks_show_the_formula():
    assert UpdateRule.parse("0.123456*ad")._repr_latex_() == r"$\displaystyle \phi_t = 0.1235 a_t$"


def test_show_spells_a_rule_out(capsys):
    assert main(["show", "adamw"]) == 0
    shown = capsys.readouterr().out
    for part in ("ad + w*wd where wd = 0.01", "m_hat", "m/bc1", "beta2 = 0.999", "lr = open", "Loshchilov"):
        assert part in shown


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, sol_symbols.cli; print({'torch', 'matplotlib', 'scipy', 'jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
