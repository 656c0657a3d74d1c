"""The command writes or prints a file, after verification unless that is disabled."""

import re
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


def outcome(capsys, *words):
    """The status, and what the command says."""
    status = main(["verify", *map(str, words)])
    said = capsys.readouterr()
    return status, (said.out + said.err).strip()


@pytest.fixture
def adam(tmp_path, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "adam.py"
    assert main(["export", "adam", "--to", "torch", "-o", str(path)]) == 0
    assert "equal over 24 steps" in capsys.readouterr().out
    return path


def test_a_changed_file_is_not_a_bug_of_the_exporter(adam, capsys):
    status, said = outcome(capsys, adam)
    assert (status, "equal over 24 steps" in said) == (0, True)
    text = adam.read_text()
    assert "betas=(0.9, 0.999)" in text
    for source, rule in ((text, ["sgd"]), (text.replace("betas=(0.9, 0.999)", "betas=(0.9, 0.99)"), [])):
        adam.write_text(source)
        status, said = outcome(capsys, adam, *rule)
        assert status == 2
        assert re.search(
            r"in float64, step \d moves a parameter from .* \(in tensor 1 of 1, of shape \[100\], with", said
        )
        assert said.endswith("The file was changed, or is of another rule")
        assert "exporter" not in said
        assert "--no-verify" not in said
        assert "\n" not in said


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "class Adam",
            "class Other",
            "the emitted source cannot be loaded: AttributeError: .* has no attribute 'Adam'",
        ),
        ("import torch", "import torch =", "the emitted source cannot be loaded: SyntaxError: "),
        ("m.mul_(beta1)", "m.mul_(beta7)", "the emitted source fails in float64: NameError: name 'beta7'"),
    ],
)
def test_a_file_that_was_broken_is_no_traceback(adam, capsys, right, wrong, message):
    assert right in adam.read_text()
    adam.write_text(adam.read_text().replace(right, wrong, 1))
    status, said = outcome(capsys, adam)
    assert status == 2
    assert re.search(message, said)


MINE = """
import torch
from beside import BETA

class MyMomentum(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.m = {}

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.m.setdefault(p, torch.zeros_like(p))
                m.mul_(BETA).add_(p.grad, alpha=1 - BETA)
                p.sub_(group["lr"] * m)

class MyDecay(torch.optim.Optimizer):
    def __init__(self, params, lr, horizon):
        super().__init__(params, {"lr": lr})
        self.horizon, self.t = horizon, 0

    @torch.no_grad()
    def step(self):
        self.t += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * max(1 - self.t / self.horizon, 0) * p.grad)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (tmp_path / "beside.py").write_text("BETA = 0.9\n")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_a_class_of_a_file_is_verified(mine, capsys):
    status, said = outcome(capsys, f"{mine}:MyMomentum", "m where beta1 = 0.9")
    assert status == 0
    assert "verified against the rule" in said
    assert "equal over 24 steps" in said
    assert outcome(capsys, f"{mine}:MyDecay", "max(1 - t/T, 0)*g")[0] == 0
    status, said = outcome(capsys, f"{mine}:MyMomentum", "m where beta1 = 0.95")
    assert status == 2
    assert re.search(r"mine.py:MyMomentum does not match the rule m .*: in float64, step 1 moves a parameter", said)
    assert re.search(r"relative difference \S+, at most \S+ in this step\)$", said)


def test_a_tensor_where_a_class_and_a_formula_part_is_named(mine, capsys):
    status, said = outcome(capsys, f"{mine}:MyMomentum", "m*step(rms(w) - 100) + m*is_vector where beta1 = 0.9")
    assert status == 2
    assert "(in tensor 1 of 9, of shape [4, 6], with the gradient " in said


@pytest.mark.parametrize(("name", "rule"), [("torch:Adam", "adam"), ("torch:adamw", "adamw"), ("torch:SGD", "sgd")])
def test_a_class_of_pytorch_is_verified(name, rule, capsys):
    pytest.importorskip("torch")
    status, said = outcome(capsys, name, rule)
    assert (status, said.partition(":")[0]) == (0, "torch")
    assert "equal over 24 steps" in said


def test_what_is_no_class_to_verify_is_said(mine, capsys):
    for words, message in [
        (["torch:Adam"], "torch:Adam has no formula of its own; give one as RULE: sol verify torch:Adam RULE"),
        (["torch:Admam", "adam"], "no optimizer 'Admam' in torch; available: .*Adam, AdamW"),
        ([f"{mine}:Theirs", "adam"], "no optimizer 'Theirs' in .*mine.py; available: MyDecay, MyMomentum"),
        (
            [mine, "adam"],
            "is not a file that sol export wrote: .*; for an optimizer class in it, write .*mine.py:CLASS",
        ),
        ([f"{mine}x.py:Theirs", "adam"], "cannot read .*mine.pyx.py: no such file"),
        (["torch:LBFGS", "sgd"], "torch:LBFGS fails in float64: TypeError: .*'closure'"),
        ([f"{mine}:MyMomentum", "ld*g"], "MyMomentum fails in float64: TypeError: .*'horizon'"),
    ]:
        status, said = outcome(capsys, *words)
        assert status == 2
        assert re.search(message, said), said
        assert "\n" not in said
    mine.write_text("import nothing_of_that_name\n")
    status, said = outcome(capsys, f"{mine}:MyAdam", "adam")
    assert status == 2
    assert "mine.py: ModuleNotFoundError: No module named 'nothing_of_that_name'" in said
