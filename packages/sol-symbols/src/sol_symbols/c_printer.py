"""Expressions as C99, for numbers of a type called ``real``.

A file that uses the printed expressions begins with::

    typedef double real;
    ... the text of C_INCLUDES ...
    ... the text of c_functions() ...
"""

from __future__ import annotations

import re
from typing import Any

import sympy
from sympy.printing.c import C99CodePrinter

from sol_symbols.errors import RuleError
from sol_symbols.operators import OPERATORS, Reduction, expanded, operator_of

__all__ = ["C_INCLUDES", "c_functions", "format_c"]

C_INCLUDES = "#include <math.h>\n#include <tgmath.h>\n"
"""The headers; with the second, ``exp(x)`` is the function for the type of x."""


def c_functions(code: str | None = None) -> str:
    """Definitions of the functions that C's library lacks: all, or those that ``code`` calls.

    If ``VECTOR_FUNCTIONS`` is defined, it also declares those of the library that glibc's libmvec has for vectors.
    """
    names = set(re.findall(r"(\w+)\(", code or ""))
    called = [o for o in OPERATORS.values() if code is None or not names.isdisjoint((o.c_name, *o.c_vectors))]
    vectors = "".join(
        f"#pragma omp declare simd notinbranch\n{real} ({name}{suffix})({real});\n"
        for operator in called
        for name in operator.c_vectors
        for real, suffix in (("float", "f"), ("double", ""))
    )
    functions = "".join(operator.c_source for operator in called)
    if code is None or "step_at_0" in names:
        functions += "INLINE real step_at_0(real x) { return (real)(x > 0) + (real)0.5 * (real)(x == 0); }\n"
    inline = "#define INLINE static inline __attribute__((always_inline))\n"
    declared = f"#ifdef VECTOR_FUNCTIONS\n{vectors}#endif\n" if vectors else ""
    return declared + (inline + functions if functions else "")


def format_c(expression: sympy.Expr) -> str:
    """The expression in C; names get the prefix ``v_`` and cannot collide with those of the surrounding code.

    >>> format_c(sympy.sign(sympy.Symbol("g"))**2 + 0.5)
    '((signum(v_g))*(signum(v_g))) + ((real)0.5)'
    """
    text: str = _PRINTER.doprint(expanded(expression))
    return text


class _Printer(C99CodePrinter):
    def _print(self, expr: sympy.Basic, **kwargs: Any) -> str:
        """A function by the C name that its operator states."""
        operator = operator_of(expr.func) if getattr(expr, "is_Function", False) else None
        if isinstance(operator, Reduction):
            raise RuleError(f"{operator.name} is a reduction, and this C code is elementwise")
        if operator is None or not operator.c_name:
            return str(super()._print(expr, **kwargs))
        text, *others = (self._print(argument) for argument in expr.args)
        if operator.arity == 1:
            return f"{operator.c_name}({text})"
        for other in others:  # SymPy's Min has any number of arguments
            text = f"{operator.c_name}({text}, {other})"
        return text

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return f"v_{expr.name}"

    def _print_Float(self, expr: sympy.Expr) -> str:
        return f"((real){float(expr)!r})"

    _print_Rational = _print_Float

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return self._print_Float(expr) if abs(expr) >= 2**31 else str(super()._print_Integer(expr))

    def _print_Heaviside(self, expr: sympy.Expr) -> str:  # a derivative of min
        return f"step_at_0({self._print(expr.args[0])})"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = self._print(expr.base), expr.exp
        if exponent == sympy.S.Half:
            return f"sqrt({base})"
        if exponent.is_Integer and abs(exponent) <= 16:
            product = "*".join([f"({base})"] * abs(int(exponent)))
            return f"({product})" if exponent > 0 else f"(1/({product}))"
        return f"pow({base}, {self._print(exponent)})"


_PRINTER = _Printer()
