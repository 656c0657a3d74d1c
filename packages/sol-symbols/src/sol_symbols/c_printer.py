"""Expressions as C99: what the learner's kernel is printed with, and any exporter that writes C.

:data:`C_FUNCTIONS` defines the few functions that the C library lacks. It needs ``real``, a typedef of ``float`` or
``double``, and follows ``#include <tgmath.h>``, which picks the functions for that type.
"""

from __future__ import annotations

import sympy
from sympy.printing.c import C99CodePrinter

__all__ = ["C_FUNCTIONS", "VECTOR_FUNCTIONS", "CPrinter"]

VECTOR_FUNCTIONS = "".join(
    f"#pragma omp declare simd notinbranch\n{real} ({name}{suffix})({real});\n"
    for name in ("exp", "log", "tanh", "cos", "sin", "sinh", "cosh", "atan", "asinh", "erf")
    for real, suffix in (("float", "f"), ("double", ""))
)
"""Declares the functions of which glibc's libmvec has versions for whole vectors."""

C_FUNCTIONS = """\
#define INLINE static inline __attribute__((always_inline))
INLINE real signum(real x) { return (real)((x > 0) - (x < 0)); }
INLINE real smaller(real x, real y) { return x < y || x != x ? x : y; }
INLINE real step_at_0(real x) { return (real)(x > 0) + (real)0.5 * (real)(x == 0); }
"""


class CPrinter(C99CodePrinter):
    """Expressions as C; names get a prefix, so that they cannot be those of the code around them."""

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return f"v_{expr.name}"

    def _print_Float(self, expr: sympy.Expr) -> str:
        return f"((real){float(expr)!r})"

    _print_Rational = _print_Float

    def _print_sign(self, expr: sympy.Expr) -> str:
        return f"signum({self._print(expr.args[0])})"

    def _print_Heaviside(self, expr: sympy.Expr) -> str:
        return f"step_at_0({self._print(expr.args[0])})"

    def _print_Min(self, expr: sympy.Expr) -> str:
        text, *others = (self._print(argument) for argument in expr.args)
        for other in others:
            text = f"smaller({text}, {other})"
        return text

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = self._print(expr.base), expr.exp
        if exponent == sympy.S.Half:
            return f"sqrt({base})"
        if exponent.is_Integer and abs(exponent) <= 16:
            product = "*".join([f"({base})"] * abs(int(exponent)))
            return f"({product})" if exponent > 0 else f"(1/({product}))"
        return f"pow({base}, {self._print(exponent)})"
