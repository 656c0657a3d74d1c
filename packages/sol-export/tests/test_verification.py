"""Verification finds what is wrong; and a language of somebody else's is exported and verified like our own."""

import sys
import textwrap

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
    with pytest.raises(SolError, match=r"the emitted source (is not the rule|fails)"):
        verify_source(rule, source.replace(right, wrong), "torch")


def test_the_command_verifies_unless_told_not_to(tmp_path, capsys):
    pytest.importorskip("torch")
    assert main(["export", "lion", "--to", "torch", "-o", str(tmp_path / "lion.py")]) == 0
    assert "verified against the rule: largest relative difference in a step 0 in float64" in capsys.readouterr().out
    assert main(["export", "lion", "--to", "torch", "--no-verify"]) == 0
    assert capsys.readouterr().err == "not verified\n"
    assert main(["export", "lion", "--to", "latex"]) == 0
    assert "nothing to verify" in capsys.readouterr().err


def test_a_missing_library_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", "lion", "--to", "torch", "-o", str(tmp_path / "lion.py")]) == 0
    assert "not verified, because torch is not installed" in capsys.readouterr().out


# -- an exporter of somebody else's, found by its entry point ----------------------------------------------------

PLUGIN = '''
import numpy as np

from sol_symbols import format_expression, lower


class NumPyExporter:
    """One function of plain NumPy."""

    filename = "rule_numpy.py"
    dtypes = ("float64",)

    def export(self, rule, name):
        program = lower(rule)
        state = {a: f"np.zeros_like(g) + {init}" for a, init in program.states.items()}
        lines = [f"# {rule.digest}", f"# {' '.join(str(rule).split())}", "import numpy as np", "from numpy import *"]
        lines += ["min = minimum", f"def {name}(g, w, t, state, T=None):"]
        lines += [f"    {key} = {value!r}" for key, value in rule.values.items() if key != "T"]
        lines += ["    t = np.float64(t)"]
        lines += [f"    {key}_prev = state[{key!r}] if state else {start}" for key, start in state.items()]
        lines += [f"    {a.name} = {format_expression(a.value)}" for a in (*program.scalars, *program.body)]
        lines += [f"    return {format_expression(program.outputs[0])}, dict({', '.join(f'{s}={s}' for s in state)})"]
        return "\\n".join(lines) + "\\n"

    def load(self, path, name):
        import importlib.util

        spec = importlib.util.spec_from_file_location("rule_numpy", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        phi = getattr(module, name)

        def run(trajectory):
            state, found = {}, []
            with np.errstate(all="ignore"):
                rows = zip(trajectory.parameters, trajectory.gradients)
                for t, (w, g) in enumerate(rows, start=1):
                    update, state = phi(g, w, t, state, trajectory.horizon)
                    found.append(w - trajectory.lr * update)
            return np.array(found)

        return run
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed distribution with one exporter, ``numpy``."""
    (tmp_path / "sol_numpy.py").write_text(textwrap.dedent(PLUGIN))
    info = tmp_path / "sol_numpy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sol-numpy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sol.exporters]\nnumpy = sol_numpy:NumPyExporter\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("sol_numpy", None)


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
    with pytest.raises(SolError, match="is not the rule ad: in float64, step 1 takes a parameter from"):
        verify_source(rule, source, "numpy")


def test_nothing_is_written_that_is_not_the_rule(plugin, capsys):
    module = plugin / "sol_numpy.py"
    module.write_text(module.read_text().replace("format_expression(a.value)", "format_expression(2 * a.value)"))
    assert main(["export", "adam", "--to", "numpy", "-o", str(plugin / "adam.py")]) == 2
    assert "the emitted source is not the rule" in capsys.readouterr().err
    assert not (plugin / "adam.py").exists()
