"""Fixtures shared by the tests of several modules."""

import sys
import textwrap

import pytest

from sol_symbols import ZOO, UpdateRule

TEXTS = [
    "0.391*ad + 0.115*sign(g) + 0.0287*sign(m) + 0.362*cd*sign(g) + 105.0*m_hat - 4.72*ld*m_hat where lr = 0.038",
    "0.5*exp(ld)*g - 0.1*tanh(rs) + ag*g where lr = 0.01, T = 30",
    "1",
    "0.3*ad*ld evaluate w + 0.5*(w_avg - w)*min(1, t/9)",
    "c1*ad + (rs + c2)**2*sign(m_prev) where beta1 = 0.8, c1 = 0.3, c2 = 0.5",
]
RULES = [*ZOO.values(), *(UpdateRule.parse(text) for text in TEXTS)]


@pytest.fixture(params=RULES, ids=lambda rule: rule.name or str(rule)[:25])
def rule(request):
    return request.param


PLUGIN = '''
import numpy as np

from sol_symbols import format_expression, lower


class NumPyExporter:
    """One function of plain NumPy."""

    filename = "rule_numpy.py"

    description = "NumPy source"
    dtypes = ("float64",)

    def export(self, rule, name):
        program = lower(rule)
        state = {a: f"np.zeros_like(g) + {init}" for a, init in program.states.items()}
        lines = [f"# {rule.digest}", f"# {' '.join(str(rule).split())}", "import numpy as np", "from numpy import *"]
        lines += ["min, max = minimum, maximum", f"def {name}(g, w, t, state, T=None):"]
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
