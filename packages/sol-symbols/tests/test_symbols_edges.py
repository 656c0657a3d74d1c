"""Edges of evaluation, reading, files and the command line."""

import json
import os
import subprocess
import sys
import warnings
from importlib import metadata

import numpy as np
import pytest

from sol_symbols import (
    STANDARD,
    ZOO,
    Feature,
    Hyperparameter,
    Recurrence,
    RuleError,
    SolError,
    UpdateRule,
    cli,
    evaluator,
    format_expression,
    resolve_rule,
    scaling_degree,
    write_atomically,
)
from sol_symbols.cli import main

G = np.array([1.0, -2.0, 0.5])


def value(text, t, g=G, w=None):
    phi = evaluator(UpdateRule.parse(text))
    with np.errstate(all="ignore"):
        return phi(g, phi.init(g), w, t)[0]


def test_constants_do_not_collide_with_schedules_computed_ahead():
    np.testing.assert_allclose(value("s1*g*exp(ld) + s2*exp(cd) where s1 = 3, s2 = 2, T = 10", 10), 3 * G + 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(ld)*g where T = 10", [-np.inf, np.inf, -np.inf]),
        ("sqrt(ld - 0.5)*g where T = 10", [np.nan] * 3),
        ("(cd - 1)**0.3*g where T = 10", [np.nan] * 3),
        ("g/ld where T = 10", [np.inf, -np.inf, np.inf]),
        ("(1 + 1/ld)*g where T = 10", [np.inf, -np.inf, np.inf]),
        ("1/ld where T = 10", [np.inf] * 3),
        ("(beta2 - 1e200)**2*g", [np.inf, -np.inf, np.inf]),
        ("c**2*g where c = 1e200", [np.inf, -np.inf, np.inf]),
        ("g/c**2 where c = 1e200", [0.0, 0.0, 0.0]),
        ("exp(c)*g where c = 1000", [np.inf, -np.inf, np.inf]),
    ],
)
def test_schedules_outside_of_the_reals_are_what_numpy_says(text, expected):
    np.testing.assert_array_equal(value(text, 10), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("min(g, 0.25)", np.minimum(G, 0.25)),
        ("min(min(g, ld), min(cd, 0.4)) where T = 4", np.minimum(G, 0.4)),
        ("min(g, 0.25)*min(ld, 0.3) where T = 4", np.minimum(G, 0.25) * 0.3),
        ("min(g, min(w, 0.1*g))", np.minimum(np.minimum(G, -G), 0.1 * G)),
    ],
)
def test_minima_of_several_numbers_and_arrays(text, expected):
    rule = UpdateRule.parse(text)
    assert UpdateRule.parse(str(rule)) == rule
    np.testing.assert_allclose(value(text, 1, w=-G), expected, rtol=1e-15)
    single = value(text, 1, g=G.astype(np.float32), w=-G.astype(np.float32))
    assert single.dtype == np.float32


def test_rmsprop_is_torchs():
    rng = np.random.default_rng(3)
    phi, v = evaluator(ZOO["rmsprop"]), np.zeros(6)
    state = phi.init(v)
    for t in range(1, 51):
        g = rng.normal(size=6)
        v = 0.99 * v + 0.01 * g**2
        update, state = phi(g, state, None, t)
        np.testing.assert_allclose(update, g / (np.sqrt(v) + 1e-8), rtol=1e-12)


def test_states_have_the_shape_of_the_parameter_and_inputs_are_not_written_to():
    for shape in [(), (0,), (2, 3, 4)]:
        g = np.full(shape, 0.5)
        phi = evaluator(ZOO["adam"])
        first = phi.init(g)
        update, second = phi(g, first, g, 1)
        assert {array.shape for array in (*second.values(), update)} == {shape}
        assert all((array == 0).all() for array in first.values())


def test_scaling_of_what_is_infinite_without_eps_is_not_recognised():
    assert scaling_degree(STANDARD.parse("min(ad, log(eps))"), STANDARD) is None
    assert scaling_degree(STANDARD.parse("min(g, 2/eps)"), STANDARD) is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([Feature("m_prev", "g")], "defined twice"),
        ([Feature("z_prev", "g"), Recurrence("z", "g")], "defined twice"),
        ([Hyperparameter("ad", 0.5, 0, 1, "")], "defined twice"),
        ([Feature("g", "m")], "defined twice"),
        ([Feature("lr", "g")], "cannot be a name"),
        ([Feature("if", "g")], "cannot be a name"),
        ([Recurrence("q", "q + g")], "q -> q"),
        ([Recurrence("q", "r + g"), Recurrence("r", "q + g")], "refers to itself"),
        ([Feature("x", "y"), Feature("y", "x")], "refers to itself"),
        ([Feature("x", "import os")], "not an expression"),
        ([Feature("x", "")], "empty expression"),
    ],
)
def test_extending_refuses(entries, message):
    with pytest.raises(RuleError, match=message):
        STANDARD.extended(*entries)


def test_states_may_need_each_others_past():
    wider = STANDARD.extended(Recurrence("p", "q_prev + g"), Recurrence("q", "p_prev - g"), Feature("twice", "2*p"))
    rule = UpdateRule.parse("twice", wider)
    assert set(rule.states) == {"p", "q"}
    phi, state, (p, q) = evaluator(rule), {"p": G * 0, "q": G * 0}, (G * 0, G * 0)
    for t in range(1, 6):
        update, state = phi(G * t, state, None, t)
        p, q = q + G * t, p - G * t
        np.testing.assert_array_equal(update, 2 * p)


def test_numbers_are_printed_in_full():
    rule = UpdateRule.parse("0.1*g + 0.30000000000000004*m + g/3")
    assert "0.30000000000000004" in str(rule)
    assert "0.43333333333333335*g" in format_expression(rule.expression)


@pytest.mark.parametrize("content", ["text ∂", b"\x00\xff"])
def test_files_are_replaced_whole(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SolError, match=r"cannot write .*: No space left on device"):
        write_atomically(path, "new")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_faults_in_rule_files_name_the_file(tmp_path):
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(SolError, match=r"large\.txt is larger than 10,000,000 bytes"):
        resolve_rule(str(large))
    (tmp_path / "bad.txt").write_text("ad + foo")
    with pytest.raises(SolError, match=r"bad\.txt: unknown name 'foo'"):
        resolve_rule(str(tmp_path / "bad.txt"))


def test_a_path_may_follow_its_short_option(tmp_path, capsys):
    pytest.importorskip("sol_export")
    assert main(["export", "sgd", "--to", "markdown", f"-o{tmp_path}/x.md"]) == 0
    assert (tmp_path / "x.md").is_file()


@pytest.mark.parametrize("text", ["-g", "-ad", "-2/3*g", "-max(g,w)", "-0.5*ad+g", "-orth(m)", "-ad where lr = 0.1"])
def test_a_formula_can_begin_with_a_minus(text, capsys):
    main(["show", text])
    assert capsys.readouterr().out.split("\n")[0] == f"update      {UpdateRule.parse(text)}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shwo", "adam"], "no command 'shwo'; did you mean 'show'?"),
        (["qqq"], "no command 'qqq'. Commands: "),
        (["show"], "the following arguments are required: RULE"),
        (["show", "adam", "--nope"], "unrecognized arguments: --nope"),
        (["show", "ad + foo"], "unknown name 'foo'"),
        (["show", "__import__('os').system('x')"], "'attribute' cannot be called"),
        (["show", "none.json"], "no such run folder or rule file: none.json"),
        (["show", "-z"], "unknown name 'z'"),
        (["show", "adam", "-o"], "unrecognized arguments: -o"),
    ],
)
def test_mistakes_on_the_command_line_are_said_in_a_line(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sol: error: ")
    assert message in err.split("\n")[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1e308*g",
            "g + 1e308",
            "5e-324*g",
            "1e308*m - 1e308*v",
            "1e308*inv0(rms(g))*g",
            "1e308*g*inv0(v)",
            "-1e308*ad",
        ),
        *("1e200*ad + 1e200*sign(m)", "5e-324*g/v", "1e308*t*T*g where T = 1e308"),
        *("exp(exp(t))", "exp(exp(t))*g", "exp(exp(exp(t)))*m_hat", "exp(exp(m))*exp(-exp(m))*g"),
        *(
            "exp(sign(bc2))*g",
            "cos(sign(bc1))*g",
            "tanh(exp(sign(bc1)))*m",
            "log(1 - sign(bc1))*g",
            "g/(1 - sign(bc1))",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_show_takes_every_formula(text, capsys):
    """Numbers at the limits of float64, and functions of signs that are known."""
    assert main(["show", "--", text]) == 0, capsys.readouterr().err
    assert "range       phi in [" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["-h"]])
def test_the_overview_lists_the_commands(words, capsys):
    assert main(words) == 0
    assert "show" in capsys.readouterr().out


def test_the_process_exits_with_the_status_and_no_traceback():
    done = subprocess.run([sys.executable, "-m", "sol_symbols.cli", "show", "ad +"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sol: error: not an expression")
    assert "Traceback" not in done.stderr


def test_a_broken_package_leaves_the_overview_whole(capsys, monkeypatch):
    broken = metadata.EntryPoint("broken", "no_such_module:Command", "sol.commands")
    found = {**cli.find_plugins("sol.commands"), "broken": broken}
    monkeypatch.setattr(cli, "find_plugins", lambda group: found)
    assert main(["--help"]) == 0
    assert "cannot be loaded: No module named 'no_such_module'" in capsys.readouterr().out
    assert main(["broken"]) == 2
    assert "sol: error: 'broken' in sol.commands" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["x" * 9000, "exp" * 3000, "x" * 9000 + "(g)", "g where " + "x" * 9000 + " = 1", "g where lr = " + "x" * 9000],
)
def test_long_words_are_quoted_shortly(text):
    with pytest.raises(RuleError) as caught:
        UpdateRule.parse(text)
    assert len(str(caught.value).partition("\n")[0]) < 400
    record = ZOO["adam"].to_json().replace('"expression": "ad"', f'"expression": "{text[:9000]}"')
    with pytest.raises(RuleError) as caught:
        UpdateRule.from_json(record)
    assert len(str(caught.value).partition("\n")[0]) < 400


def test_sums_beyond_the_readers_reach_are_refused():
    with pytest.raises(RuleError, match="a sum of too many terms"):
        UpdateRule.parse(" + ".join(f"g*{i}.5" for i in range(12_000)))


@pytest.mark.parametrize("text", ["1if g else m", "0x1for", "exp(1)or 2"])
def test_reading_warns_of_nothing(text):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuleError):
            UpdateRule.parse(text)
    assert caught == []


@pytest.mark.parametrize(
    "text", ["(1 - beta2)*(g + 1)*2", "1.0*g + g**2.0", "g/3*3.0", "0.5*(g + m)*4", "exp(g)*exp(m)"]
)
def test_definitions_survive_the_json_form_exactly(text):
    wider = STANDARD.extended(Recurrence("k", f"0.5*k_prev + {text}"), Feature("z", f"k - {text}"))
    rule = UpdateRule.parse("z", wider)
    twin = UpdateRule.from_json(rule.to_json())
    assert (twin, twin.to_json()) == (rule, rule.to_json())
    assert wider.extended().definitions == wider.definitions


def test_an_expression_is_text_or_sympy():
    for wrong in (None, 3, ["ad"]):
        with pytest.raises(RuleError, match="text or a SymPy expression"):
            UpdateRule(wrong)


def test_the_choice_on_a_front_holds_elsewhere_if_one_does(tmp_path):
    rows = [("ad", 3.0, True), ("ad + rs", 1.0, False), ("ad + rs + sign(g)", 2.0, True)]
    front = [
        {"terms": n, "loss": loss, "holds": holds, "rule": json.loads(UpdateRule.parse(text).to_json())}
        for n, (text, loss, holds) in enumerate(rows, 1)
    ]
    (tmp_path / "front.json").write_text(json.dumps(front))
    assert [str(resolve_rule(str(tmp_path), n)) for n in (1, 2, 3)] == ["ad", "ad", "ad + rs + sign(g)"]
    (tmp_path / "front.json").write_text(json.dumps([{**row, "holds": False} for row in front]))
    assert str(resolve_rule(str(tmp_path), 3)) == "ad + rs"


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1e4, 1e6, 1e20])
def test_a_trust_ratio_is_exact_at_any_size_in_float32(size):
    x, y = np.float32([0.01, 0.0, 0.01]), np.float32([size, size, 0.0])
    found = value("trust(g, w)", 1, g=x, w=y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.where((x > 0) & (y > 0), x / np.where(y > 0, y, 1), 1), rtol=1e-6)
