"""Verification finds what is wrong, in third-party exporters too."""

import pytest

from sol_export import Executable, export_rule, exporters, load_exporter, verify_source
from sol_symbols import ZOO, SolError, UpdateRule, lower
from sol_symbols.c_compiler import find_compiler
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
REDUCING = [
    "g*inv0(rms(g))",
    "(ad + 0.01*w)*norm(w)*inv0(norm(ad + 0.01*w))",
    "m*step(m*g)*inv0(mean(step(m*g)))",
    "g*dot(g, m_prev)*inv0(all_rms(g))",
    "clip(g, all_rms(m))*max(rms(w), 0.001) + fan_in**(-0.5)*g_prev*(1 - is_vector)",
    "sign(g)*gmean(rms(g)) + all_dot(g, w) + norm(w)",
    "g*norm(matrices(m_prev)) + m*rms(vectors(g)) + 0.1*mean(matrices(g))*g",
    "(0.3*la*inv0(rms_v) + 0.1*sign(g))*tensor_rate*exp(0.4*log_spread)*(fan_in/100)**(-0.3)*exp(-0.7*is_vector)",
    "fan_in*ld + is_vector*g",
    "all_rms(g)*rms(g)",
    "max(g, m) + clip(m, 0.1)*step(t - 2)*inv0(v)",
    "max(1/t, t/T - 2)*g*inv0(rms(g))",
    "exp(min(log(t), T/8))*g*inv0(rms(g))",
    "matrices(orth(g + mu*b) + wd*w) + vectors(ad + 0.1*w)",
    "ld*matrices(orth(m_prev)) + vectors(sign(g)*rms_v)",
    "ld*(matrices(m_prev + g_prev) + 2*vectors(ad)) + 0.1*m",
    "matrices(g*inv0(rms(g))) + vectors(m)",
    "matrices(orth(g + mu*b) + 0.1*rms(w)*g) + vectors(ad + 0.01*w) + matrices(w)*norm(vectors(g))",
    "g*min(1, loss*inv0(all_dot(g, g)))",
    "tanh(loss)*sign(g)*ld + 0.1*loss",
    "matrices(orth(m)*min(loss, 1)) + vectors(ad*loss)",
]
AVERAGING = [
    "ad evaluate ema_weights where beta_avg = 0.9",
    "ld*m + 0.01*w evaluate mean_weights",
    "loss*sign(m) evaluate mean_weights",
    "g*inv0(rms(g)) evaluate mean_weights + lr*m",
    "0.1*sign(m) evaluate w + c*(w_avg - w)*min(1, t/7)*step(t - 2) + log(1 + v)/mu where c = 0.3",
]
RULES = {**ZOO, **{text[:20]: UpdateRule.parse(text) for text in EDGES + REDUCING + AVERAGING}}
LANGUAGES = ("torch", "optax", "c")


def require(to):
    """Skip where the language cannot run."""
    if to != "c":
        pytest.importorskip(to)
    elif find_compiler() is None:
        pytest.skip("no C compiler")


@pytest.mark.parametrize("to", LANGUAGES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_is_emitted_is_the_rule(rule, to):
    require(to)
    if to == "c" and lower(rule).reduces:
        with pytest.raises(SolError, match=r"C source is elementwise, and the rule (calls|has values per tensor)"):
            export_rule(rule, to)
        return
    differences = verify_source(rule, export_rule(rule, to), to)
    amplifies = "orth" in {operator.name for operator in rule.calls}  # small singular values, up to 485 times
    assert differences["float64"] < (1e-11 if amplifies else 1e-13)
    rough = 1e-3 if rule.name == "radam" else 1e-4  # 2000 - 1995, from 1 - beta2**t in float32
    limits = {"torch": 2e-6, "optax": rough, "c": 1e-4}  # C has fused multiply-adds
    assert differences["float32"] < (2e-3 if amplifies else limits[to])


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


@pytest.mark.parametrize("to", LANGUAGES)
@pytest.mark.parametrize(
    "text",
    [
        *("m_hat - g", "la - g", "cos(m_long_prev - v_hat)", "v_hat - g**2", "sign(m_hat - g)", "norm(m_hat - g)*g"),
        *("exp(30*tanh(m_hat - g))*(m_hat - g)", "sign(m_hat - g) + 0.1*sign(g)", "(m_hat - g)/sqrt(v_hat - g**2)"),
    ],
)
def test_rules_that_amplify_rounding_are_no_faults(text, to, tmp_path, capsys):
    """m_hat is g at the first step, up to rounding, of which huge gradients make much; the command notes it."""
    require(to)
    if to == "c" and "norm" in text:
        pytest.skip("C source is elementwise")
    assert main(["export", text, "--to", to, "-o", str(tmp_path / "emitted.py")]) == 0
    assert "verified against the rule" in capsys.readouterr().out


def test_amplified_rounding_is_noted(tmp_path, capsys):
    pytest.importorskip("torch")
    for text, noted in (("m_hat - g", True), ("ad", False)):
        assert main(["export", text, "--to", "torch", "-o", str(tmp_path / "emitted.py")]) == 0
        assert ("amplifies rounding errors" in capsys.readouterr().out) == noted


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("m_hat = inv_bc1 * m", "m_hat = inv_bc1 * m + 0.001 * g"),
        ("bc1 = 1 - beta1**t", "bc1 = 1 - beta1 ** (t + 1)"),
    ],
)
@pytest.mark.parametrize("text", ["m_hat - g", "cos(0.01*(m_hat - g))", "0.1*sign(m_hat - g) + m_hat - g"])
def test_faults_of_rules_that_amplify_rounding_are_found(right, wrong, text):
    pytest.importorskip("torch")
    rule = UpdateRule.parse(text)
    source = export_rule(rule, "torch")
    assert right in source
    verify_source(rule, source, "torch")
    with pytest.raises(SolError, match="does not match the rule"):
        verify_source(rule, source.replace(right, wrong), "torch")


def test_a_third_party_adds_a_language(plugin, capsys):
    assert "numpy" in exporters()
    assert isinstance(load_exporter("numpy"), Executable)
    for rule in RULES.values():
        if lower(rule).reduces:
            continue
        if rule.evaluation is not None:
            with pytest.raises(
                SolError, match="the parameters and the evaluation weights after each step are of shape"
            ):
                verify_source(rule, export_rule(rule, "numpy"), "numpy")
        else:
            assert verify_source(rule, export_rule(rule, "numpy"), "numpy")["float64"] < 1e-13
    assert main(["export", "adam", "--to", "numpy", "-o", str(plugin / "adam.py")]) == 0
    assert "verified against the rule" in capsys.readouterr().out


def test_its_mistakes_are_found_too(plugin):
    rule = ZOO["adam"]
    source = export_rule(rule, "numpy").replace("sqrt(v_hat)", "sqrt(v)")
    with pytest.raises(
        SolError, match="does not match the rule ad: in float64, step 1 moves a parameter from"
    ) as raised:
        verify_source(rule, source, "numpy")
    assert str(raised.value).endswith("The exporter has a bug; --no-verify skips this check")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("yield g, m_prev, w, (", "yield g, w, m_prev, ("),
        ("torch.clamp(x, min=1e-30)", "x"),  # 0/0 where all is 0
        ("max(g.numel(), 1)", "max(g.numel(), 2)"),
        ("norms = iter(norms)", "norms = reversed(norms)"),
        ("float(p.dim() < 2)", "float(p.dim() < 1)"),
        (".sum(0)", "[0]"),
    ],
)
def test_faults_of_reductions_are_found(right, wrong):
    pytest.importorskip("torch")
    rule = UpdateRule.parse("g*norm(w)*inv0(norm(g))*tensor_rate + (1 + is_vector)*mean(g)*g*all_rms(g)")
    source = export_rule(rule, "torch")
    assert right in source
    with pytest.raises(SolError, match=r"the emitted source (does not match the rule|fails)"):
        verify_source(rule, source.replace(right, wrong), "torch")


@pytest.mark.parametrize(
    ("to", "right", "wrong"),
    [
        ("torch", "w = p.to(_precision(p))\n    ema", "w = 2 * p.to(_precision(p))\n    ema"),
        ("torch", "p.copy_(_weights(", "p.add_(_weights("),
        ("torch", 'p.copy_(state.pop("trained"))', 'state.pop("trained")'),
        ("torch", "w_avg.mul_(beta_avg)", "w_avg.mul_(beta2)"),
        ("torch", "return weights", "return weights * (1 - 1e-6)"),
        ("optax", "weights.astype(", "w.astype("),
        ("optax", "jnp.where(state.count == 0, p", "jnp.where(state.count == 1, p"),
    ],
)
def test_faults_of_evaluation_weights_are_found(to, right, wrong):
    pytest.importorskip(to)
    rule = UpdateRule.parse("ad evaluate 0.5*ema_weights + 0.5*w where beta_avg = 0.9")
    source = export_rule(rule, to)
    assert right in source
    with pytest.raises(SolError, match="does not match the rule"):
        verify_source(rule, source.replace(right, wrong), to)
