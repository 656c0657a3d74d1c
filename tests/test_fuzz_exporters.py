"""A small part of the fuzz run of exporters, and what it must notice."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from sol_symbols import UpdateRule

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_exporters.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_exporters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_rules_have_one_value_in_every_form(fuzz, tmp_path):
    found = fuzz.run(3_000_000, 40, tmp_path)
    assert found["failures"] == []
    assert found["counts"]["equal"] > 30


def test_generated_rules_have_one_value_in_every_printer(fuzz, tmp_path):
    """More of them, without emitted files."""
    assert fuzz.run(4_000_000, 200, tmp_path, files=())["failures"] == []


@pytest.mark.parametrize(
    "text",
    [
        *("(g**3)**0.3", "((g**3)**c)**(1/3)", "g**(2**3)", "(t/T)**(g**2)", "-(g**2)**(1/3)"),  # powers of powers
        *("1/g", "g**-2", "min(1, 1/t)*g", "exp(1/g)", "1/(1 + exp(-g))", "1/(1/(1 + g**2) + 1)", "-1/g", "g**(-1/3)"),
        *("t*g", "min(t, g)", "abs(g)**t", "tanh(t*g)", "t", "t/T", "g**(1/t)", "max(t, T)*g"),  # the step with tensors
        *("trust(w, 3)", "inv0(w)", "inv0(c)*g", "step(c - g)", "max(c, 3)*g", "clip(c, 2)*g", "trust(c, g)"),
        *("(-2)**c*g", "(-T)**(1/3)*g + w", "(t - T)**0.5*g", "sqrt(c - 1)*g"),  # nan, not complex numbers
        *(
            "((1 - min(t/T, 1))**3)**(1/3)*g",
            "g*(1 - min(t/T, 1))**0.5",
            "c*(1/c)*g",
            "tanh(g)**2",
            "log(abs(g))**-2",
            "abs(g)**3",
        ),
    ],
)
def test_reported_forms(fuzz, text, tmp_path):
    constant = ", c = 0.7" if re.search(r"\bc\b", text) else ""
    outcome, rule = fuzz.check(f"{text} where T = 4{constant}", tmp_path)
    assert outcome in ("equal", "nothing to compare")
    assert rule is not None


def test_a_wrong_form_is_noticed(fuzz, tmp_path, monkeypatch):
    text = "(g**2)**0.3*w where T = 4"
    fuzz.check(text, tmp_path, files=())
    monkeypatch.setattr(UpdateRule, "latex", lambda rule, digits=None: "g_t^{2^{0.3}} \\theta_{t-1}")
    with pytest.raises(AssertionError, match="latex differs"):
        fuzz.check(text, tmp_path, files=())
    monkeypatch.undo()
    real = fuzz.by_file
    monkeypatch.setattr(fuzz, "by_file", lambda *x: real(*x) * (1 + 1e-3))
    with pytest.raises(AssertionError, match="torch differs"):
        fuzz.check(text, tmp_path, files=("torch",))


def test_cancellation_is_no_difference(fuzz):
    """Values that rounding errors dominate are not compared."""
    _, kept = fuzz.expected("(g + 1e10) - 1e10 - g")
    assert not kept.any()
    _, kept = fuzz.expected("g*w")
    assert kept.all()
    assert fuzz.difference(np.array([1.0, 2.0]), np.array([1.0, 2.2]), np.array([True, False])) == 0
