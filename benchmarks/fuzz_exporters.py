"""Generated rules through every exporter and printer, value against value: text, NumPy, C, PyTorch, Optax, LaTeX.

    python benchmarks/fuzz_exporters.py --cases 10000 --json benchmarks/fuzz_exporters.json

A rule is a random expression over g, w, t, T and a constant: every operator in every position, nested, negative and
reciprocal, with integer, rational and float powers. What it is worth follows from its text alone, by Python's own
arithmetic on NumPy arrays. Every form must have this value wherever rounding errors are not amplified, be refused with
a SolError, and never fail otherwise. Markdown must hold the LaTeX, and MathML be well-formed. Case ``i`` depends on
``i`` alone: ``--start i --cases 1`` runs it again.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sol_export import export_rule, load_exporter
from sol_export.verification import Executable, Trajectory
from sol_export.web import MathMLExporter
from sol_symbols import OPERATORS, SolError, UpdateRule, c_compiler, format_expression, write_atomically
from sol_symbols.c_compiler import compile_library, find_compiler
from sol_symbols.c_printer import C_INCLUDES, c_functions, format_c
from sol_symbols.evaluation import array_function

STEPS, HORIZON, CONSTANT = 5, 4, 0.7
FUNCTIONS = {name: array_function(operator, np) for name, operator in OPERATORS.items()}
NUMBER = re.compile(r"(?<![\w.])\d+(\.\d+)?(e[-+]?\d+)?")
POWERS = ("2", "3", "-1", "-2", "(1/2)", "(1/3)", "(-1/2)", "(-2/3)", "0.3", "(-0.7)", "2.5", "c", "(-c)", "(t/T)")
Value = np.ndarray | float


def grown(rng: random.Random, depth: int) -> str:
    """A random expression in the grammar."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice(("g", "g", "g", "w", "w", "t", "T", "c", "t/T", "1", "2", "3", "0.5", "1.5", "1e-8"))
    kind = rng.random()
    if kind < 0.15:
        return f"(-{grown(rng, depth - 1)})"
    if kind < 0.3:
        return f"1/({grown(rng, depth - 1)})"
    if kind < 0.5:
        return f"({grown(rng, depth - 1)})**{rng.choice(POWERS)}"
    if kind < 0.75:
        return f"({grown(rng, depth - 1)}) {rng.choice('+-**//')} ({grown(rng, depth - 1)})"
    operator = OPERATORS[rng.choice(list(OPERATORS))]
    return f"{operator.name}({', '.join(grown(rng, depth - 1) for _ in range(operator.arity))})"


def case(index: int) -> str:
    """The text of a rule."""
    rng = random.Random(index)
    text = grown(rng, rng.choice((2, 3, 3, 4)))
    constant = f", c = {CONSTANT}" if re.search(r"\bc\b", text) else ""
    return f"{text} where T = {HORIZON}{constant}"


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Gradients and parameters, [STEPS, coordinates]: of both signs, and around 1."""
    random = np.random.default_rng(0)
    return random.normal(size=(STEPS, 12)), random.normal(size=(STEPS, 12))


def values_of(text: str, g: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What ``text`` is worth at every step, by Python's operators alone."""
    rows = []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in range(STEPS):
            real = g.dtype.type
            names = {"g": g[t], "w": w[t], "t": real(t + 1), "T": real(HORIZON), "c": real(CONSTANT)}
            whole = NUMBER.sub(r"float64(\g<0>)", text)
            rows.append(np.broadcast_to(eval(whole, {**FUNCTIONS, "float64": np.float64, **names}), g[t].shape))
    return np.array(rows, dtype=float)


def expected(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The values, and where they can be compared: finite, and not much changed by
    a small change of the inputs or by more digits."""
    g, w = inputs()
    value = values_of(text, g, w)
    kept = np.isfinite(value) & (abs(value) < 1e12)
    wide = values_of(text, g.astype(np.longdouble), w.astype(np.longdouble))
    nearby = [wide, *(values_of(text, g * (1 + change), w * (1 - change)) for change in (1e-11, -1e-11))]
    with np.errstate(all="ignore"):
        for near in nearby:
            kept &= abs(near - value) <= 1e-7 * abs(value)
    return value, kept


class LatexReader:
    """The value of a formula in LaTeX: a subset of it, read as a person would."""

    def __init__(self, text: str, names: dict[str, Value]) -> None:
        text = text.replace(r"\theta_{t-1}", " w ").replace("g_t", " g ").replace(r"\mathrm{c}", " c ")
        text = re.sub(r"\\operatorname\{(\w+)\}(_0|_\{0\})?", lambda m: f" \\{m[1]}{'zero' if m[2] else ''} ", text)
        text = re.sub(r"\\(left|right) *", "", text).replace(r"\,", " ")
        self.tokens = re.findall(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|[a-zA-Z]|[-+^{}(),|]|\S", text)
        self.at, self.names = 0, names
        self.functions = FUNCTIONS | {"invzero": FUNCTIONS["inv0"]}

    def read(self) -> Value:
        value = self.total()
        assert self.at == len(self.tokens), f"not read: {self.tokens[self.at :]}"
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        assert token, "more expected"
        assert not wanted or token == wanted, f"{wanted} expected, not {token!r}"
        self.at += 1
        return token

    def total(self) -> Value:
        sign = -1 if self.peek() == "-" and self.take() else 1
        value = sign * self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> Value:
        value = self.power()
        while self.peek() not in ("", "+", "-", ")", "}", ",", "|") or (self.peek() == "|" and not self.open):
            if self.peek() == r"\cdot":
                self.take()
            value = value * self.power()
        return value

    open = 0  # bars that are not closed

    def power(self) -> Value:
        value = self.atom()
        return value ** self.exponent() if self.peek() == "^" else value

    def exponent(self) -> Value:
        self.take("^")
        return self.braced() if self.peek() == "{" else self.atom()

    def braced(self) -> Value:
        self.take("{")
        held, self.open = self.open, 0
        value = self.total()
        self.open = held
        self.take("}")
        return value

    def atom(self) -> Value:
        token = self.take()
        if token[0].isdigit():
            return np.float64(token)
        if token == "e":
            return np.exp(self.exponent())
        if token == "|":
            self.open += 1
            value: Value = np.abs(self.total())
            self.open -= 1
            self.take("|")
            return value
        if token in "({":
            held, self.open = self.open, 0
            value = self.total()
            self.open = held
            self.take({"(": ")", "{": "}"}[token])
            return value
        if token == r"\frac":
            return self.braced() / self.braced()
        if token == r"\sqrt":
            root = 2.0
            if self.peek() == "[":
                self.take()
                root = float(self.take())
                self.take("]")
            return self.braced() ** (1 / root)
        if token == r"\pi":
            return np.pi
        if token.startswith("\\"):
            return self.call(self.functions[token[1:]])
        return self.names[token]

    def call(self, function: Callable[..., Value]) -> Value:
        power = self.exponent() if self.peek() == "^" else 1
        wrapped = self.peek() == "{" and self.take()
        held, self.open = self.open, 0
        self.take("(")
        values = [self.total()]
        while self.peek() == ",":
            self.take()
            values.append(self.total())
        self.take(")")
        if wrapped:
            self.take("}")
        self.open = held
        value = values[0] if len(values) > 1 else function(*values)
        for other in values[1:]:  # min and max of many
            value = function(value, other)
        return value**power


def by_latex(rule: UpdateRule) -> np.ndarray:
    """The rule's values by its LaTeX."""
    g, w = inputs()
    rows = []
    with np.errstate(all="ignore"):
        for t in range(STEPS):
            names = {"g": g[t], "w": w[t], "t": np.float64(t + 1), "T": np.float64(HORIZON), "c": np.float64(CONSTANT)}
            rows.append(np.broadcast_to(LatexReader(rule.latex(), names).read(), g[t].shape))
    return np.array(rows, dtype=float)


def by_file(rule: UpdateRule, to: str, folder: Path) -> np.ndarray:
    """The rule's values by the steps of an emitted file."""
    exporter = load_exporter(to)
    assert isinstance(exporter, Executable), to
    path = folder / f"emitted_{to}.py"
    path.write_text(export_rule(rule, to, "Emitted"), encoding="utf-8")
    g, w = inputs()
    lr = 2.0**-10
    moved = exporter.load(path, "Emitted")(Trajectory(w, g, lr, rule.horizon, "float64"))
    with np.errstate(all="ignore"):
        return (w - moved) / lr


def by_c(rules: list[UpdateRule]) -> list[np.ndarray]:
    """The values of many rules by one C library."""
    lines = ["typedef double real;", C_INCLUDES + c_functions()]
    for i, rule in enumerate(rules):
        lines += [
            f"void f_{i}(const real *g, const real *w, real v_t, real *out, long n) {{",
            f"  const real v_T = {HORIZON}, v_c = {CONSTANT}; (void)v_T; (void)v_c; (void)v_t;",
            "  for (long i = 0; i < n; ++i) { const real v_g = g[i], v_w = w[i]; (void)v_g; (void)v_w;",
            f"    out[i] = {format_c(rule.expression)}; }}",
            "}",
        ]
    library = compile_library("\n".join(lines) + "\n")
    assert isinstance(library, ctypes.CDLL), library
    found = []
    for i in range(len(rules)):
        g, w = inputs()
        out = np.empty_like(g)
        for t in range(STEPS):
            arrays = [ctypes.c_void_p(x[t].ctypes.data) for x in (g, w, out)]
            library[f"f_{i}"](*arrays[:2], ctypes.c_double(t + 1), arrays[2], ctypes.c_long(g.shape[1]))
        found.append(out)
    return found


def difference(found: np.ndarray, value: np.ndarray, kept: np.ndarray, scale: np.ndarray | float = 0.0) -> float:
    """The largest relative difference."""
    with np.errstate(all="ignore"):
        wrong = abs(found - value) / np.maximum(abs(value), scale)
    wrong[~np.isfinite(wrong)] = np.inf
    wrong[(value == 0) & (abs(found) < 1e-12)] = 0.0
    wrong[found == value] = 0.0
    return float(np.max(wrong, where=kept, initial=0.0))


def check(text: str, folder: Path, files: tuple[str, ...] = ("torch", "optax")) -> tuple[str, UpdateRule | None]:
    """What came of a case, "equal" or "refused", and the rule. Raises AssertionError where a form has another value."""
    try:
        rule = UpdateRule.parse(text, name="case")
    except SolError:
        return "refused", None
    value, kept = expected(text.partition(" where ")[0])
    g, w = inputs()
    tolerances = {"text": 1e-6, "numpy": 1e-6, "latex": 1e-6}
    found = {
        "text": values_of(format_expression(rule.expression), g, w),
        "numpy": rule.evaluate(g, w),
        "latex": by_latex(rule),
    }
    for to in files:
        try:
            found[to] = by_file(rule, to, folder)
        except SolError:
            continue
    for form, values in found.items():
        scale = np.maximum(abs(w), 1) * 2e-7 if form in files else 0.0  # of the parameter, from which it is subtracted
        wrong = difference(values, value, kept, scale)
        assert wrong <= tolerances.get(form, 1e-5), f"{form} differs by {wrong:.2g}: {text}"
    plain = re.sub(r"\\operatorname\{(\w+)\}", r"\\mathop{\\mathrm{\1}}", rule.latex(4))
    assert plain in export_rule(rule, "markdown"), f"Markdown without the LaTeX: {text}"
    ElementTree.fromstring(f"<x>{MathMLExporter().formula(rule)}{MathMLExporter().symbols(rule)}</x>")
    export_rule(rule, "latex")
    return "equal" if kept.any() else "nothing to compare", rule


def run(start: int, cases: int, folder: Path, files: tuple[str, ...] = ("torch", "optax")) -> dict:
    """Run cases; counts and failures."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    rules: list[tuple[str, UpdateRule]] = []
    for index in range(start, start + cases):
        text = case(index)
        try:
            outcome, rule = check(text, folder, files)
        except Exception as error:
            outcome, rule = "failed", None
            failures.append(f"{index}: {type(error).__name__}: {error}: {text}")
        counts[outcome] += 1
        if rule is not None:
            rules.append((text, rule))
    if rules and find_compiler() is not None:
        for (text, _), values in zip(rules, by_c([rule for _, rule in rules])):
            wrong = difference(values, *expected(text.partition(" where ")[0]))
            if wrong > 1e-6:
                failures.append(f"C differs by {wrong:.2g}: {text}")
    return {"counts": dict(counts), "failures": failures}


def main() -> int:
    """Run the fuzz and return the exit status: 1 after a failure."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--files", nargs="*", default=["torch", "optax"], help="exporters whose files are run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    c_compiler.TIME_LIMIT = 3600.0  # 200 functions, on a machine that may be busy
    counts: Counter[str] = Counter()
    failures: list[str] = []
    began, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        for start in range(arguments.start, arguments.start + arguments.cases, 200):
            count = min(200, arguments.start + arguments.cases - start)
            part = run(start, count, Path(folder), tuple(arguments.files))
            counts.update(part["counts"])
            failures += part["failures"]
            done += count
            if arguments.json:  # after every part: hours of work are not lost
                record = {"start": arguments.start, "cases": done, "files": arguments.files}
                record |= {"counts": counts, "failures": failures}
                write_atomically(arguments.json, json.dumps(record, indent=2) + "\n")
    for failure in failures:
        print(failure)
    print(dict(counts), f"{time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
