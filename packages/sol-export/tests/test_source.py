"""Emitted Python source passes linters and a formatter unchanged."""

import importlib.util
import subprocess
import sys

import pytest

from sol_export import export_rule


@pytest.mark.skipif(not importlib.util.find_spec("ruff"), reason="ruff is not installed")
@pytest.mark.parametrize("language", ["torch", "optax"])
def test_the_source_is_clean(rule, language, tmp_path):
    """As it is for ruff's own rules, for stricter ones and for its formatter."""
    (tmp_path / "emitted.py").write_text(export_rule(rule, language))
    strict = ["--select", "B,C4,D1,E,F,I,N,PT,RUF,SIM,UP,W", "--ignore", "D105,D107,B905", "--line-length", "120"]
    for words in (["check"], ["check", *strict], ["format", "--check", "--line-length", "120"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--target-version", "py310", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
