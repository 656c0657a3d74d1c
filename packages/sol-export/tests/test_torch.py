"""The emitted PyTorch source is complete and computes no number twice. (That it computes the rule: tests/.)"""

import ast
import re

import pytest

from sol_export import export_rule
from sol_symbols import UpdateRule, resolve_rule


def constructor(source):
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    (definition,) = [node for node in classes if not node.name.startswith("_")]
    (init,) = [node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return init.args


def test_the_signature_holds_every_number_of_the_rule(rule):
    arguments = constructor(export_rule(rule, "torch"))
    names = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    first = len(arguments.args) - len(arguments.defaults)
    given = [*zip(names[first:], arguments.defaults), *zip(names[len(arguments.args) :], arguments.kw_defaults)]
    defaults = {name: ast.literal_eval(value) for name, value in given if value is not None}
    assert defaults["lr"] == (rule.lr or 1e-3)
    if "betas" in defaults:
        betas = [name for name in ("beta1", "beta2") if name in rule.values]
        defaults |= dict(zip(betas, defaults["betas"], strict=True))
    for name, value in rule.with_numbered_constants().values.items():
        name = {"T": "horizon", "wd": "weight_decay", "mu": "momentum"}.get(name, name)
        if value is None and name not in defaults:  # required, as by a rule that uses T apart from t/T
            assert name in names
        else:
            assert defaults[name] == value


@pytest.mark.parametrize("text", ["sol-general", "ld*g where lr = 0.1, T = 50", "ld*g", "ad"])
def test_the_learning_rate_comes_first_and_the_horizon_by_its_name(text):
    found = constructor(export_rule(resolve_rule(text), "torch"))
    assert [argument.arg for argument in found.args[:3]] == ["self", "params", "lr"]
    assert ("horizon" in [argument.arg for argument in found.kwonlyargs]) == (text != "ad")


def test_the_source_imports_torch_and_executes_no_text(rule):
    tree = ast.parse(export_rule(rule, "torch"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    to_compile = {"concurrent.futures", "ctypes", "os", "shlex", "subprocess", "tempfile"}
    assert imported <= {"torch", "math", "warnings"} | to_compile
    parts = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert parts <= {"torch.distributed.tensor"}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "compile", "__import__"}


def test_the_documentation_says_what_each_constant_multiplies():
    source = export_rule(UpdateRule.parse("0.5*ad - 0.25*ld*sign(g) + tanh(0.3*g)"), "torch")
    for line in ("c1: Coefficient of ad.", "c2: Coefficient of -ld*sign(g).", "c3: Constant of the formula."):
        assert line in source


def test_only_live_states_are_allocated(rule):
    source = export_rule(rule, "torch")
    assert set(re.findall(r'state\["(\w+)"\] = torch\.(?:zeros_like|full_like|full)\(', source)) == set(rule.states)


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


def test_numbers_are_calculated_once_a_step():
    """What is elementwise multiplies by names, and each tensor of a sum once."""
    source = export_rule(UpdateRule.parse("0.5*cd*ad + 0.7*ld*ad - 0.3*ad where T = 9"), "torch")
    once, elementwise = source[source.index("def _numbers") :].split("def _advance(")
    for line in ("one_minus_beta1 = 1 - beta1", "inv_bc1 = 1 / bc1", "k1 = c1 * cd + c2 * ld - c3"):
        assert f"    {line}\n" in once
    for line in ("m.mul_(beta1).add_(one_minus_beta1 * g)", "m_hat = inv_bc1 * m", "phi = k1 * ad"):
        assert f"    {line}\n" in elementwise
