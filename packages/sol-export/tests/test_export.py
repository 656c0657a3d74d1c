"""The emitted source: complete, clean, and honest about where it is from. (That it computes the rule: tests/.)"""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from sol_export import export_rule, exporters
from sol_symbols import STANDARD, ZOO, Feature, SolError, UpdateRule
from sol_symbols.cli import main

TEXTS = [
    "0.391*ad + 0.115*sign(g) + 0.0287*sign(m) + 0.362*cd*sign(g) + 105.0*m_hat - 4.72*ld*m_hat where lr = 0.038",
    "0.5*exp(ld)*g - 0.1*tanh(rs) + ag*g where lr = 0.01, T = 30",
    "1",
    "c1*ad + (rs + c2)**2*sign(m_prev) where beta1 = 0.8, c1 = 0.3, c2 = 0.5",
]
RULES = [*ZOO.values(), *(UpdateRule.parse(text) for text in TEXTS)]


@pytest.fixture(params=RULES, ids=lambda rule: rule.name or str(rule)[:25])
def rule(request):
    return request.param


def constructor(source):
    (definition,) = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    (init,) = [node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return init.args


def test_the_signature_holds_every_number_of_the_rule(rule):
    arguments = constructor(export_rule(rule, "torch"))
    names = [argument.arg for argument in arguments.args]
    first = len(names) - len(arguments.defaults)
    defaults = {name: ast.literal_eval(value) for name, value in zip(names[first:], arguments.defaults)}
    assert defaults["lr"] == (rule.lr or 1e-3)
    if "betas" in defaults:
        defaults["beta1"], defaults["beta2"] = defaults["betas"]
    for name, value in rule.with_numbered_constants().values.items():
        name = {"T": "horizon", "wd": "weight_decay", "mu": "momentum"}.get(name, name)
        assert (defaults[name] == value) if value is not None else (name in names and name not in defaults)


def test_the_source_imports_torch_and_executes_no_text(rule):
    tree = ast.parse(export_rule(rule, "torch"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {"torch", "math", "warnings"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "compile", "__import__"}


def test_the_documentation_says_what_each_constant_multiplies():
    source = export_rule(UpdateRule.parse("0.5*ad - 0.25*ld*sign(g) + tanh(0.3*g)"), "torch")
    for line in ("c1: Coefficient of ad.", "c2: Coefficient of -ld*sign(g).", "c3: Constant of the formula."):
        assert line in source


def test_only_live_states_are_allocated(rule):
    source = export_rule(rule, "torch")
    assert set(re.findall(r'state\["(\w+)"\] = torch\.(?:zeros|full)_like', source)) == set(rule.states)


def test_every_file_says_where_it_is_from(rule):
    for language in exporters():
        source = export_rule(rule, language)
        assert rule.digest in source
        assert str(rule) in re.sub(r"[\s%]+", " ", source)
    assert UpdateRule.parse(str(rule)).digest == rule.digest


@pytest.mark.parametrize("language", ["torch", "latex", "markdown"])
def test_the_line_that_it_names_generates_it_again(language, capsys):
    digits = None if language == "torch" else 2
    source = export_rule(UpdateRule.parse("-0.53217*ad + 0.21*sign(g)"), language, "Mine", digits)
    (line,) = [text.strip("% ") for text in source.splitlines() if "sol export --to" in text]
    assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out == source


def test_latex_is_balanced(rule):
    source = export_rule(rule, "latex")
    assert source.count("{") == source.count("}")
    assert sorted(re.findall(r"\\begin{(.+?)}", source)) == sorted(re.findall(r"\\end{(.+?)}", source))
    assert source.count(r"\left") == source.count(r"\right")
    rows = source.partition(r"\begin{align*}")[2].partition(r"\end{align*}")[0]
    assert rows.count("&=") == len(rule.live) + 2


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("powersign-ld", "PowersignLd"),
        ("mnistnet-optimizer", "MnistnetOptimizer"),
        ("", "Learned"),
        ("3d", "Learned"),
        ("none", "Learned"),
    ],
)
def test_class_names_are_made_from_rule_names(name, expected):
    rule = UpdateRule.parse("g", name=name)
    assert rule.class_name == expected
    assert f"class {expected}(torch.optim.Optimizer)" in export_rule(rule, "torch")


def test_what_cannot_be_emitted_is_said():
    with pytest.raises(SolError, match="no exporter 'cobol'; installed: latex, markdown, mathml, optax, torch"):
        export_rule(ZOO["adam"], "cobol")
    with pytest.raises(SolError, match="torch source cannot have the name 'class'"):
        export_rule(ZOO["adam"], "torch", "class")
    for language, name in (("torch", "torch"), ("torch", "_Mine"), ("optax", "Optax"), ("optax", "Lambda")):
        with pytest.raises(SolError, match=f"(?i){language} source cannot have the name '{name}'"):
            export_rule(ZOO["adam"], language, name)
    with pytest.raises(SolError, match=r"cannot use the name\(s\) group"):
        export_rule(UpdateRule.parse("group*g where group = 2.5"), "torch")
    with pytest.raises(SolError, match=r"name\(s\) state"):
        export_rule(UpdateRule.parse("state", STANDARD.extended(Feature("state", "2*g"))), "torch")


def test_the_command_writes_or_prints(tmp_path, capsys):
    assert main(["export", "adam", "--to", "torch", "-o", str(tmp_path / "adam.py"), "--name", "Mine"]) == 0
    assert "class Mine(torch.optim.Optimizer)" in (tmp_path / "adam.py").read_text()
    capsys.readouterr()
    assert main(["export", "adam", "--to", "torch", "--name", "Mine"]) == 0
    assert capsys.readouterr().out == (tmp_path / "adam.py").read_text()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("min(g, 2)", "torch.clamp(g, max=2)"),
        ("min(g, m)", "torch.minimum(g, m)"),
        ("min(min(g, ld), min(m, cd))", "torch.clamp(torch.clamp(torch.minimum(g, m), max=cd), max=ld)"),
    ],
)
def test_minima_with_numbers_are_emitted_as_torch_takes_them(text, code):
    assert f"phi = {code}\n" in export_rule(UpdateRule.parse(text), "torch")


@pytest.mark.parametrize("to", exporters())
def test_names_of_ones_own_vocabulary_are_exported_with_their_definitions(to):
    vocabulary = STANDARD.extended(Feature("half", "m_hat/2", "half of the momentum"))
    source = export_rule(UpdateRule.parse("half", vocabulary), to)
    assert "half" in source
    assert "RULE" in source  # the command that makes it again needs the rule's file: its text does not say it all


def test_numbers_are_calculated_once_a_step():
    """What is elementwise multiplies by names, and each tensor of a sum once."""
    source = export_rule(UpdateRule.parse("0.5*cd*ad + 0.7*ld*ad - 0.3*ad where T = 9"), "torch")
    once, elementwise = source[source.index("def _numbers") :].split("def _advance(")
    for line in ("one_minus_beta1 = 1 - beta1", "inv_bc1 = 1 / bc1", "k1 = c1 * cd + c2 * ld - c3"):
        assert f"    {line}\n" in once
    for line in ("m.mul_(beta1).add_(one_minus_beta1 * g)", "m_hat = inv_bc1 * m", "phi = k1 * ad"):
        assert f"    {line}\n" in elementwise
