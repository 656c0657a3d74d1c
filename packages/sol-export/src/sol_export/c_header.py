"""C source: one header with a function that moves the parameters of one tensor, elementwise."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

import numpy as np
import sympy

from sol_export.c_loop import c_loop, moved
from sol_export.file_header import described_formula, provenance
from sol_export.optax import function_name
from sol_export.signature import Argument, arguments, checked_name, checked_names, renamed
from sol_export.source import WIDTH
from sol_export.verification import Trajectory
from sol_symbols import OPERATORS, Program, Reduction, SolError, UpdateRule, hoisted, lower, lower_evaluation
from sol_symbols.c_compiler import compile_library, find_compiler
from sol_symbols.c_printer import format_c

__all__ = ["CExporter"]

# Keywords, and names that the emitted code uses; a rule's constants and states must have other names.
_RESERVED = frozenset(
    (
        *("auto", "bool", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum"),
        *("extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return"),
        *("short", "signed", "sizeof", "static", "struct", "switch", "true", "typedef", "union", "unsigned", "void"),
        *("volatile", "while", "alignas", "alignof", "constexpr", "nullptr", "typeof", "real", "INLINE", "asm", "I"),
        *("w", "g", "t", "n", "i", "lr", "phi", "settings", "weights", "horizon", "weight_decay", "momentum"),
        *("schedule", "real_", "unix", "linux", "size_t", "ptrdiff_t", "wchar_t", "offsetof", "float_t", "double_t"),
        *("acos", "asin", "atan", "atan2", "cos", "sin", "tan", "acosh", "asinh", "atanh", "cosh", "sinh", "tanh"),
        *("exp", "exp2", "expm1", "frexp", "ilogb", "ldexp", "log", "log10", "log1p", "log2", "logb", "modf"),
        *("scalbn", "scalbln", "cbrt", "fabs", "hypot", "pow", "sqrt", "erf", "erfc", "lgamma", "tgamma", "ceil"),
        *("floor", "nearbyint", "rint", "lrint", "llrint", "round", "lround", "llround", "trunc", "fmod", "remainder"),
        *("remquo", "copysign", "nan", "nextafter", "nexttoward", "fdim", "fmax", "fmin", "fma", "abs", "fpclassify"),
        *("isfinite", "isinf", "isnan", "isnormal", "signbit", "isgreater", "isless", "isunordered"),
    )
)

_MACRO = re.compile(r"NULL|NAN|INFINITY|HUGE|HUGE_VAL\w*|(M|FP|MATH|SOL)_\w+")
"""Names that C's headers or the file define."""

_FILE = """\
/* $name: an optimizer in one C header.

$formula

$provenance
*/

#ifndef ${guard}_H
#define ${guard}_H

#include <stddef.h>
#include <math.h>
#include <tgmath.h>

/* The type of parameters, gradients and states; for another one, define SOL_REAL before. */
#ifndef SOL_REAL
#define SOL_REAL float
#endif
typedef SOL_REAL ${name}_real;

/* The numbers of the formula:
$documentation */
typedef struct {
$fields
} ${name}_settings;

#define ${guard}_DEFAULTS {$defaults}
$init$functions
/* Step t = 1, 2, ... of n parameters w with gradients g$and_states. */
$step
$weights
#endif
"""


class CExporter:
    """A header in C99: ``NAME_step`` moves one tensor in place."""

    filename = "optimizer.h"
    description = "C header; elementwise rules only"
    dtypes = ("float64", "float32")

    def covers(self, rule: UpdateRule) -> bool:
        """Whether the rule is elementwise."""
        return not lower(rule).reduces

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`."""
        program = lower(rule)
        if program.reduces:
            called = [operator.name for operator in rule.calls if isinstance(operator, Reduction)]
            what = f"calls {', '.join(called)}" if called else "has values per tensor"
            raise SolError(f"C source is elementwise, and the rule {what}; export it to torch or optax")
        numbered, prefix = rule.with_numbered_constants(), function_name(checked_name(name, "C"))
        macros = {word for word in (*numbered.values, *numbered.live) if _MACRO.fullmatch(word)}
        used = {f"{prefix}_{word}" for word in ("real", "settings", "init", "step", "weights")} | macros
        used |= {f"{prefix.upper()}_H", f"{prefix.upper()}_DEFAULTS"}
        numbered = checked_names(numbered, _RESERVED | used, "C")
        given = [a for a in arguments(numbered, betas=False) if a.name != "schedule"]
        writer = _Writer(numbered, given, prefix)
        return writer.file(provenance(rule, "c", name))

    def load(self, path: Path, name: str) -> Callable[[Trajectory], np.ndarray]:
        """Compile and run the emitted file; see :class:`sol_export.Executable`.

        Raises:
            ImportError: There is no C compiler.
            SolError: The compiler refuses the file.
        """
        if find_compiler() is None:
            raise ImportError("no C compiler", name="a C compiler")
        text, prefix = path.read_text(encoding="utf-8"), function_name(name)

        def run(trajectory: Trajectory) -> np.ndarray:
            real = {"float64": "double", "float32": "float"}[trajectory.dtype]
            library = compile_library(f"#define SOL_REAL {real}\n{text}{_exported(text, prefix)}")
            if not isinstance(library, ctypes.CDLL):
                raise SolError(f"the C compiler refuses it: {library}")
            return _run(library, text, prefix, trajectory)

        return run


def _states(text: str, prefix: str, function: str) -> list[str]:
    """The names of the states that a function takes after n, w and g."""
    head = re.search(rf"void {prefix}_{function}\(([^)]*)\)", text)
    names = re.findall(r"(\w+)(?:,|$)", head[1]) if head else []
    return [name for name in names if name not in ("settings", "t", "n", "w", "g", "weights")]


def _exported(text: str, prefix: str) -> str:
    """Functions that can be called from outside, and the settings by default."""
    lines = [f"{prefix}_settings sol_settings = {prefix.upper()}_DEFAULTS;", f"typedef {prefix}_real real_;"]
    for function, arrays in (("step", ["w", "g"]), ("weights", ["w"])):
        if f" {prefix}_{function}(" in text:
            names = [*arrays, *_states(text, prefix, function), *(["weights"] if function == "weights" else [])]
            taken = ", ".join(f"real_ *{name}" for name in names)
            call = ", ".join(["&sol_settings", "t", "n", *names])
            lines.append(f"void sol_{function}(double t, size_t n, {taken}) {{ {prefix}_{function}({call}); }}")
    if states := _states(text, prefix, "init"):
        taken = ", ".join(f"real_ *{name}" for name in states)
        lines.append(f"void sol_init(size_t n, {taken}) {{ {prefix}_init(n, {', '.join(states)}); }}")
    fields = re.search(rf"typedef struct {{\n(.*?)\n}} {prefix}_settings;", text, re.S)
    for field in re.findall(r"double (\w+);", fields[1] if fields else ""):
        lines.append(f"void sol_set_{field}(double value) {{ sol_settings.{field} = value; }}")
    return "\n" + "\n".join(lines) + "\n"


def _run(library: ctypes.CDLL, text: str, prefix: str, trajectory: Trajectory) -> np.ndarray:
    """Call the compiled functions along a trajectory."""
    real = np.dtype(trajectory.dtype)
    library.sol_set_lr(ctypes.c_double(trajectory.lr))
    if trajectory.horizon is not None:
        library.sol_set_horizon(ctypes.c_double(trajectory.horizon))
    count = ctypes.c_size_t(trajectory.parameters.shape[1])
    names = _states(text, prefix, "step")
    states = {name: np.full(trajectory.parameters.shape[1], np.nan, real) for name in names}

    def pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
        return [ctypes.c_void_p(array.ctypes.data) for array in arrays]

    if states:
        library.sol_init(count, *pointers(*states.values()))
    found = []
    for t, (before, gradient) in enumerate(zip(trajectory.parameters, trajectory.gradients), start=1):
        w, g = np.ascontiguousarray(before, real).copy(), np.ascontiguousarray(gradient, real)
        library.sol_step(ctypes.c_double(t), count, *pointers(w, g, *states.values()))
        now = [w.astype(np.float64)]
        if trajectory.averages:
            kept = [states[name] for name in _states(text, prefix, "weights")]
            averaged = np.full_like(w, np.nan)
            library.sol_weights(ctypes.c_double(t), count, *pointers(w, *kept, averaged))
            now.append(averaged.astype(np.float64))
        found.append(np.concatenate(now))
    return np.array(found)


class _Writer:
    """The parts of the file."""

    def __init__(self, rule: UpdateRule, given: Sequence[Argument], prefix: str) -> None:
        self._rule, self._given, self._prefix = rule, given, prefix
        self._program = hoisted(lower(rule))
        self._states = tuple(self._program.states)
        self._decays = "wd" not in rule.values  # in addition to the formula
        self._needed: dict[str, None] = {}

    def file(self, origin: str) -> str:
        """The whole text; ``origin`` says where it comes from."""
        rule, prefix = self._rule, self._prefix
        change = {"w[i]": moved(self._decays)}
        always = ["lr", *(["weight_decay"] if self._decays else [])]
        step = self._function("step", self._program, "phi", always, change)
        weights = ""
        if rule.evaluation is not None:
            body = self._function(
                "weights", hoisted(lower_evaluation(rule)), "weights", [], {"weights[i]": "v_weights"}
            )
            weights = f"\n/* The weights to evaluate with, after step t; w has the parameters. */\n{body}\n"
        text = Template(_FILE).substitute(
            name=prefix,
            guard=prefix.upper(),
            formula=_commented(described_formula(rule, self._decays)),
            provenance=_commented(origin),
            documentation="\n".join(f"   {a.documentation}" for a in self._given),
            fields="\n".join(f"    double {a.name};" for a in self._given),
            defaults=", ".join("NAN" if a.default is None else repr(a.default) for a in self._given),
            and_states=f" and states {', '.join(self._states)}" if self._states else "",
            init=self._init(),
            functions="".join(f"\n{line}" for line in self._functions()),
            step=step,
            weights=weights,
        )
        return re.sub(r"[ \t]+\n", "\n", text)

    def _init(self) -> str:
        """The function that sets states to their first values; empty without states."""
        if not self._states:
            return ""
        values = (f"{name}[i] = {init!r};" for name, init in self._program.states.items())
        lines = [
            "",
            "/* Set n states to their values before the first step. */",
            self._head("init", ["size_t n", *(f"{self._prefix}_real *{name}" for name in self._states)]),
            "{",
            "    for (size_t i = 0; i < n; ++i) {",
            *(f"        {value}" for value in values),
            "    }",
            "}",
        ]
        return "\n".join(lines) + "\n"

    def _head(self, function: str, parameters: Sequence[str]) -> str:
        line = f"static inline void {self._prefix}_{function}({', '.join(parameters)})"
        if len(line) <= WIDTH:
            return line
        rows: list[str] = [""]
        for parameter in parameters:
            if len(rows[-1]) + len(parameter) > WIDTH - 8:
                rows.append("")
            rows[-1] += f"{parameter}, "
        inside = "\n".join(f"    {row.rstrip()}" for row in rows).removesuffix(",")
        return f"static inline void {self._prefix}_{function}(\n{inside})"

    def _function(
        self, function: str, program: Program, output: str, always: Sequence[str], change: dict[str, str]
    ) -> str:
        """A function of the settings, the step, and arrays."""
        real = f"{self._prefix}_real"
        states = tuple(program.states)
        body = [(a.name, renamed(a.value)) for a in program.body] + [(output, renamed(program.outputs[0]))]
        scalars = [(a.name, renamed(a.value)) for a in program.scalars]
        used = {free.name for _, value in (*body, *scalars) for free in value.free_symbols} | {*always}
        inside = {free.name for _, value in body for free in value.free_symbols} | {*always}
        numbers = [a.name for a in self._given if a.name in used]
        passed = [x for x in (*(["t"] if "t" in inside else []), *numbers, *(n for n, _ in scalars)) if x in inside]
        changed = function == "step"
        arrays = [f"{real} *w", f"const {real} *g"] if changed else [f"const {real} *w"]
        arrays += [f"{'' if changed else 'const '}{real} *{name}" for name in states]
        arrays += [] if changed else [f"{real} *weights"]
        head = self._head(function, [f"const {self._prefix}_settings *settings", "double t", "size_t n", *arrays])
        writes = {f"{name}[i]": f"v_{name}" for name in states if changed} | change
        reads = {"w": "w[i]", "g": "g[i]", **{f"{name}_prev": f"{name}[i]" for name in states}}
        lines = [
            *(f"const double d_{name} = settings->{name};" for name in numbers),
            *(["const double d_t = t;"] if "t" in used else []),
            *(f"const double d_{name} = {self._printed(value, 'double')};" for name, value in scalars),
            *(f"const {real} v_{name} = ({real})d_{name};" for name in passed),
            *([] if "t" in used else ["(void)t;"]),
            *(["(void)g;"] if changed and "g" not in inside else []),
            *(["(void)settings;"] if not numbers else []),
            "for (size_t i = 0; i < n; ++i) {",
            *(f"    {line}" for line in c_loop(body, reads, writes, lambda x: self._printed(x, real), real)),
            "}",
        ]
        return "\n".join([head, "{", *(f"    {line}" for line in lines), "}"])

    def _printed(self, value: sympy.Expr, real: str) -> str:
        """The value in C, of numbers of the type ``real``."""
        text = format_c(value)
        text = re.sub(r"\breal\b", real, text)
        if real == "double":
            text = re.sub(r"\bv_(?=\w)", "d_", text)
        for operator in OPERATORS.values():
            if operator.c_source and re.search(rf"\b{operator.c_name}\(", text):
                name = f"{self._prefix}_{operator.c_name}" + ("_double" if real == "double" else "")
                source = operator.c_source.replace("INLINE", "static inline").rstrip()
                source = re.sub(rf"\b{operator.c_name}\b", name, re.sub(r"\breal\b", real, source))
                self._needed[source] = None
                text = re.sub(rf"\b{operator.c_name}\(", f"{name}(", text)
        return text

    def _functions(self) -> list[str]:
        """Definitions of the functions that C's library lacks."""
        return [*self._needed, ""] if self._needed else []


def _commented(text: str) -> str:
    """``text`` for the inside of a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")
