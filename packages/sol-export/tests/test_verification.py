"""Verification finds what is wrong, in third-party exporters too."""

import pytest

from sol_export import Executable, export_rule, exporters, load_exporter, verify_source
from sol_symbols import ZOO, SolError, UpdateRule
from sol_symbols.cli import main

EDGES = [
    "log(ld)*g + m/ld",
    "exp(cd/ld)*g",
    "g*sqrt(ld - 0.5)",
    "sign(ld - 0.5)*g",
    "0.1*min(g, 0.5) + 0.1*min(m, v) + min(min(g, ld), min(m, cd))",
    "exp(g)",
    "sign(m/v)*g",
    "1/m",
    "log(g) + sqrt(m)",
    "m_fast_hat + m_long_hat*lt + la*li",
    "g*w**2",
    "2**g + g**0.5 + m**(-2)",
    "1",
    "0",
    "w",
    "0.1*w**2 + 0.001*T",
    "tanh(m_prev)*b + s/(1 + v) + ag",
]
RULES = {**ZOO, **{text[:20]: UpdateRule.parse(text) for text in EDGES}}
LANGUAGES = {"torch": "torch", "optax": "optax"}


@pytest.mark.parametrize("to", LANGUAGES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_is_emitted_is_the_rule(rule, to):
    pytest.importorskip(LANGUAGES[to])
    differences = verify_source(rule, export_rule(rule, to), to)
    assert differences["float64"] < 1e-13
    assert differences["float32"] < (1e-6 if to == "torch" else 1e-4)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("v.mul_(beta2)", "v.mul_(beta1)"),  # another constant
        ("eps + torch.sqrt(v_hat)", "torch.sqrt(v_hat + eps**2)"),  # epsilon elsewhere: only tiny gradients tell
        ("bc1 = 1 - beta1**t", "bc1 = 1 - beta1 ** (t + 1)"),
        ("m_hat = inv_bc1 * m", "m_hat = torch.nan_to_num(inv_bc1 * m)[:3]"),  # fails
        ("g = (-g if maximize else g)", "g = torch.clamp(-g if maximize else g, max=1e3)"),  # only huge gradients tell
        ("one_minus_beta2 * g**2", "one_minus_beta2 * (g**2 + (g == 0))"),  # only zeros tell
        (".to(_precision(p))", ".to(p.dtype).to(_precision(p)) * (1 + (p.dtype == torch.bfloat16))"),
    ],
)
def test_what_is_not_the_rule_is_found(right, wrong):
    pytest.importorskip("torch")
    rule = UpdateRule.parse("ad + 0.5*m")
    source = export_rule(rule, "torch")
    assert right in source
    with pytest.raises(SolError, match=r"the emitted source (does not match the rule|fails)"):
        verify_source(rule, source.replace(right, wrong), "torch")


def test_a_third_party_adds_a_language(plugin, capsys):
    assert "numpy" in exporters()
    assert isinstance(load_exporter("numpy"), Executable)
    for rule in RULES.values():
        assert verify_source(rule, export_rule(rule, "numpy"), "numpy")["float64"] < 1e-13
    assert main(["export", "adam", "--to", "numpy", "-o", str(plugin / "adam.py")]) == 0
    assert "verified against the rule" in capsys.readouterr().out


def test_its_mistakes_are_found_too(plugin):
    rule = ZOO["adam"]
    source = export_rule(rule, "numpy").replace("sqrt(v_hat)", "sqrt(v)")
    with pytest.raises(SolError, match="does not match the rule ad: in float64, step 1 moves a parameter from"):
        verify_source(rule, source, "numpy")
