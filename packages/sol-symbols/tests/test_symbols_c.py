"""Expressions in C: the values of the operator table, and compilers that fail or hang."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sympy

from sol_symbols import OPERATORS, Operator, c_compiler, symbol
from sol_symbols import operators as table
from sol_symbols.c_compiler import compile_library, find_compiler
from sol_symbols.c_printer import C_INCLUDES, c_functions, format_c
from sol_symbols.evaluation import array_function
from sol_symbols.intervals import increasing

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


def new_functions():
    """sinh, which C's library has, and erf under another name, with the entry's own code."""
    sinh = Operator("sinh", 1, sympy.sinh, "", parity="odd", degree="none", bounds=increasing(math.sinh))
    source = "INLINE real my_erf(real x) { return erf(x); }\n"
    named = {"c_name": "my_erf", "c_source": source}
    erf = Operator("erf", 1, sympy.erf, "", parity="odd", degree="none", bounds=increasing(math.erf), **named)
    return sinh, erf


@needs_compiler
@pytest.mark.parametrize("real", ["float", "double"])
def test_every_operator_has_its_value_in_c(real, monkeypatch):
    for operator in new_functions():
        monkeypatch.setitem(table._OPERATORS, operator.name, operator)
    lines = [f"typedef {real} real;", C_INCLUDES + c_functions()]
    for name, operator in OPERATORS.items():
        arguments = [symbol("x"), symbol("y")][: operator.arity]
        body = format_c(operator(*arguments))
        lines += [
            f"void f_{name}(const real *x, const real *y, real *out, long n) {{",
            f"  for (long i = 0; i < n; ++i) {{ const real v_x = x[i], v_y = y[i]; (void)v_y; out[i] = {body}; }}",
            "}",
        ]
    library = compile_library("\n".join(lines) + "\n")
    assert isinstance(library, ctypes.CDLL), library
    x, y = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32 if real == "float" else np.float64)
    x[:4], y[:4] = [0, 0, np.nan, 1], [0, 1, 1, np.nan]
    for name, operator in OPERATORS.items():
        out = np.empty_like(x)
        library[f"f_{name}"](*(ctypes.c_void_p(a.ctypes.data) for a in (x, y, out)), ctypes.c_long(len(x)))
        if name == "erf":
            np.testing.assert_allclose(out[4], math.erf(x[4]), rtol=1e-6)
            continue
        with np.errstate(all="ignore"):
            expected = array_function(operator, np)(*(x, y)[: operator.arity])
        kept = (
            slice(None) if name not in ("sign", "min", "max", "clip", "step", "inv0", "trust") else slice(4, None)
        )  # nan differs, as it always did
        tolerance = 1e-5 if real == "float" else 1e-12
        np.testing.assert_allclose(out[kept], expected[kept], rtol=tolerance, atol=tolerance, err_msg=name)


def test_minima_of_several_and_derivatives():
    x, y, z = map(symbol, "xyz")
    assert format_c(sympy.Min(x, y, z)) == "smaller(smaller(v_x, v_y), v_z)"
    assert format_c(sympy.diff(sympy.Min(x, y), x)) == "step_at_0(-v_x + v_y)"
    text = format_c(x**3 / sympy.sqrt(y) + x**17 + 0.5)
    assert text == "pow(v_x, 17) + ((v_x)*(v_x)*(v_x))/sqrt(v_y) + ((real)0.5)"


@pytest.mark.parametrize(
    ("command", "reason"),
    [("no-such-compiler", "no C compiler"), ("false", "false failed: status 1"), ("cc '-DX", "no C compiler")],
)
def test_compilers_that_fail_are_reported(command, reason, monkeypatch):
    monkeypatch.setenv("CC", command)
    assert compile_library("") == reason


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


@pytest.fixture
def hanging(tmp_path):
    """The command of a compiler that hangs, and a function that checks that it and its child end."""
    script, pids = tmp_path / "hangs.py", tmp_path / "pids"
    script.write_text(
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'part')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.replace({str(tmp_path / 'part')!r}, {str(pids)!r})\n"
        "child.wait()\n"
    )

    def check():
        for pid in pids.read_text().split():
            deadline = time.monotonic() + 10  # until whoever adopted the child has noticed its end
            while (state := state_of(pid)) not in ("", "Z") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert state in ("", "Z"), pid

    return f"{sys.executable} {script}", pids, check


@needs_proc
def test_a_compiler_that_hangs_is_killed_with_its_children(hanging, monkeypatch):
    command, _, check = hanging
    monkeypatch.setenv("CC", command)
    monkeypatch.setattr(c_compiler, "TIME_LIMIT", 3.0)
    start = time.monotonic()
    assert compile_library("") == f"{command} did not finish in 3 s"
    assert time.monotonic() - start < 60
    check()


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_compiler_does_not_outlive_us(number, hanging):
    command, pids, check = hanging
    code = "from sol_symbols.c_compiler import compile_library; compile_library('')"
    ours = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "CC": command})
    deadline = time.monotonic() + 60
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ours.send_signal(number)
    ours.wait()
    check()


def test_compilers_leave_no_process_behind(monkeypatch):
    monkeypatch.setenv("CC", "true")
    assert "cannot load" in compile_library("")
    if hasattr(os, "waitid"):
        with pytest.raises(ChildProcessError):  # no child, not even a dead one
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
