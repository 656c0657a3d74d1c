"""The command writes or prints a file, after verification unless that is disabled."""

import sys

import pytest

from sol_symbols.cli import main


def test_the_command_writes_or_prints(tmp_path, capsys):
    assert main(["export", "adam", "--to", "torch", "-o", str(tmp_path / "adam.py"), "--name", "Mine"]) == 0
    assert "class Mine(torch.optim.Optimizer)" in (tmp_path / "adam.py").read_text()
    capsys.readouterr()
    assert main(["export", "adam", "--to", "torch", "--name", "Mine"]) == 0
    assert capsys.readouterr().out == (tmp_path / "adam.py").read_text()


def test_the_command_verifies_unless_told_not_to(tmp_path, capsys):
    pytest.importorskip("torch")
    assert main(["export", "lion", "--to", "torch", "-o", str(tmp_path / "lion.py")]) == 0
    assert "verified against the rule; largest relative difference per step: 0 in float64" in capsys.readouterr().out
    assert main(["export", "lion", "--to", "torch", "--no-verify"]) == 0
    assert capsys.readouterr().err == "not verified\n"
    assert main(["export", "lion", "--to", "latex"]) == 0
    assert "not verified: latex is not executable" in capsys.readouterr().err


def test_a_missing_library_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", "lion", "--to", "torch", "-o", str(tmp_path / "lion.py")]) == 0
    assert "not verified: torch is not installed" in capsys.readouterr().out


def test_nothing_is_written_that_is_not_the_rule(plugin, capsys):
    module = plugin / "sol_numpy.py"
    module.write_text(module.read_text().replace("format_expression(a.value)", "format_expression(2 * a.value)"))
    assert main(["export", "adam", "--to", "numpy", "-o", str(plugin / "adam.py")]) == 2
    assert "the emitted source does not match the rule" in capsys.readouterr().err
    assert not (plugin / "adam.py").exists()
