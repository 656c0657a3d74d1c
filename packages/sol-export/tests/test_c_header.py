"""The emitted C header: what it refuses, and that it stands on its own."""

import re
import subprocess

import pytest

from sol_export import Executable, export_rule, load_exporter, verify_source
from sol_symbols import ZOO, SolError, UpdateRule
from sol_symbols.c_compiler import find_compiler
from sol_symbols.cli import main

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g*inv0(rms(g))", "C source is elementwise, and the rule calls rms; export it to torch or optax"),
        ("lamb", "and the rule calls norm; export"),
        ("g*fan_in", "and the rule has values per tensor; export"),
        ("c*g*double where c = 2, double = 3", r"C source reserves the name\(s\) double"),
        ("n*g where n = 2", r"C source reserves the name\(s\) n"),
        ("schedule*g where schedule = 2", r"C source reserves the name\(s\) schedule"),
        ("NAN*g + fabs*abs(g) where NAN = 2, fabs = 1", r"C source reserves the name\(s\) NAN, fabs"),
        ("learned_step*g where learned_step = 2", r"C source reserves the name\(s\) learned_step"),
    ],
)
def test_what_c_cannot_say_is_refused(text, message):
    rule = ZOO[text] if text in ZOO else UpdateRule.parse(text)
    with pytest.raises(SolError, match=message):
        export_rule(rule, "c")


@needs_compiler
def test_strict_compilers_have_no_remarks(rule, tmp_path):
    """In C99 and C11, with float and double, and with the headers of two rules in one file."""
    try:
        text = export_rule(rule, "c")
    except SolError:
        pytest.skip("not elementwise")
    (tmp_path / "one.h").write_text(text)
    (tmp_path / "two.h").write_text(export_rule(UpdateRule.parse("0.1*sign(g) + min(g, m)", name="two"), "c"))
    (tmp_path / "all.c").write_text('#include "one.h"\n#include "two.h"\nint main(void) { return 0; }\n')
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-unused-function", "-Wno-parentheses"]
    for flags in (["-std=c99"], ["-std=c11", "-DSOL_REAL=double"]):
        command = [*find_compiler(), *flags, *strict, "-fsyntax-only", "all.c"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@needs_compiler
def test_a_program_that_includes_it_trains(tmp_path):
    """The defaults are the rule's, and states start where they should."""
    (tmp_path / "adam.h").write_text(export_rule(ZOO["adam"], "c"))
    (tmp_path / "main.c").write_text(
        """#define SOL_REAL double
#include <stdio.h>
#include "adam.h"
int main(void)
{
    adam_settings settings = ADAM_DEFAULTS;
    double w[3] = {1.0, -2.0, 0.5}, g[3], m[3], v[3];
    settings.lr = 0.1;
    adam_init(3, m, v);
    for (int t = 1; t <= 5; ++t) {
        for (int i = 0; i < 3; ++i) g[i] = w[i] * t;
        adam_step(&settings, t, 3, w, g, m, v);
    }
    printf("%.15g %.15g %.15g", w[0], w[1], w[2]);
    return 0;
}
"""
    )
    subprocess.run([*find_compiler(), "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True)
    found = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    w, m, v = [1.0, -2.0, 0.5], [0.0] * 3, [0.0] * 3
    for t in range(1, 6):
        for i in range(3):
            g = w[i] * t
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            w[i] -= 0.1 * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)) ** 0.5 + 1e-8)
    assert [float(x) for x in found] == pytest.approx(w, rel=1e-12)


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("1 - pow(d_beta1, d_t)", "1 - pow(d_beta1, d_t + 1)"),
        ("m[i] = v_m;", ""),
        ("v[i] = 0.0;", "v[i] = 1.0;"),
        ("v_w - v_lr*", "v_w + v_lr*"),
        ("w[i] = v_w", "no C"),
    ],
)
def test_faults_are_found(right, wrong):
    source = export_rule(ZOO["adam"], "c")
    assert right in source
    with pytest.raises(SolError, match=r"does not match the rule|the C compiler refuses it"):
        verify_source(ZOO["adam"], source.replace(right, wrong), "c")


def test_without_a_compiler_it_is_not_verified(monkeypatch, tmp_path, capsys):
    assert isinstance(load_exporter("c"), Executable)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["export", "adam", "--to", "c", "-o", str(tmp_path / "adam.h")]) == 0
    assert "not verified: a C compiler is not installed" in capsys.readouterr().out
    assert re.search(r"static inline void adam_step\(", (tmp_path / "adam.h").read_text())


@needs_compiler
def test_a_header_is_verified_against_its_own_formula(tmp_path, capsys):
    text = export_rule(UpdateRule.parse("0.25*ad*ld + 0.5*sign(m) evaluate ema_weights where lr = 0.02"), "c", "Mine")
    (tmp_path / "mine.h").write_text(text)
    assert main(["verify", str(tmp_path / "mine.h")]) == 0
    assert "verified against the rule" in capsys.readouterr().out
    (tmp_path / "mine.h").write_text(text.replace("w_avg[i] = v_w_avg;", ""))
    assert main(["verify", str(tmp_path / "mine.h")]) == 2
