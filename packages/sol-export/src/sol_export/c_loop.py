"""The loop over the elements of a tensor in C, and the C code in emitted PyTorch files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

import sympy

from sol_export.signature import renamed
from sol_export.source import WIDTH
from sol_symbols import Program
from sol_symbols.c_printer import C_INCLUDES, c_functions, format_c

__all__ = ["c_loop", "moved", "native_source"]

Steps = Sequence[tuple[str, sympy.Expr]]

_NATIVE = """\
{includes}typedef REAL real;
{functions}
/* Do share `part` of `parts` of a step. A tensor's row holds its parameter, its gradient and its states. */
void advance(int part, int parts, long long tensors, const long long *sizes, real **row, const double *numbers)
{{
{numbers}
    for (; tensors > 0; --tensors, ++sizes, row += {columns}) {{
{pointers}
        const long long stop = *sizes*(part + 1)/parts;
        for (long long i = *sizes*part/parts; i < stop; ++i) {{
{loop}
        }}
    }}
}}
"""


def c_loop(
    steps: Steps,
    reads: Mapping[str, str],
    writes: Mapping[str, str],
    printed: Callable[[sympy.Expr], str] = format_c,
    real: str = "real",
) -> list[str]:
    """The statements for one element.

    Args:
        steps: Names and values of an elementwise program; a value of a name is the variable ``v_NAME``.
        reads: Expressions of what is read, by name, such as ``m_prev``; what nothing uses is left out.
        writes: What is assigned afterwards: places and values.
        printed: Prints values.
        real: The type of numbers.
    """
    used = {free.name for _, value in steps for free in value.free_symbols}
    used |= {name for value in writes.values() for name in re.findall(r"\bv_(\w+)", value)}
    return [
        *(f"const {real} v_{name} = {text};" for name, text in reads.items() if name in used),
        *(f"const {real} v_{name} = {printed(value)};" for name, value in steps),
        *(f"{place} = {value};" for place, value in writes.items()),
    ]


def moved(decays: bool) -> str:
    """The parameter after the step, with weight decay in addition to the formula or without."""
    return f"v_w - v_lr*(v_phi{' + v_weight_decay*v_w' if decays else ''})"


def native_source(program: Program, passed: Sequence[str], decays: bool) -> str:
    """C code that moves many tensors by an elementwise program in one call.

    Args:
        program: The formula, with its numbers computed elsewhere.
        passed: The names of these numbers, ``lr`` and ``weight_decay`` among them, in order; the sign of the
            gradient, -1 to maximize, comes first.
        decays: Whether weight decay is added to the formula.
    """
    steps = [(a.name, renamed(a.value)) for a in program.body] + [("phi", renamed(program.outputs[0]))]
    arrays = {name: f"to_{name}[i]" for name in ("w", "g", *program.states)}
    loop = c_loop(
        steps,
        {"w": arrays["w"], "g": f"sign*{arrays['g']}", **{f"{name}_prev": arrays[name] for name in program.states}},
        {**{arrays[name]: f"v_{name}" for name in program.states}, arrays["w"]: moved(decays)},
    )
    text = "\n".join(loop)
    used = set(re.findall(r"\bv_(\w+)", text))
    numbers = [f"const real v_{name} = (real)numbers[{i}];" for i, name in enumerate(passed, start=1) if name in used]
    pointers = [
        f"{'const ' * (name == 'g')}real *restrict to_{name} = row[{i}];"
        for i, (name, place) in enumerate(arrays.items())
        if place in text
    ]
    return _NATIVE.format(
        includes=C_INCLUDES,
        functions=c_functions(text),
        numbers=_lines(4, [*(["const real sign = (real)numbers[0];"] if arrays["g"] in text else []), *numbers]),
        columns=len(arrays),
        pointers=_lines(8, pointers),
        loop=_lines(12, loop),
    )


def _lines(indent: int, lines: Sequence[str]) -> str:
    """The lines, indented, and broken where they are too long."""
    fill = textwrap.TextWrapper(
        width=WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(part for line in lines for part in fill.wrap(line))
