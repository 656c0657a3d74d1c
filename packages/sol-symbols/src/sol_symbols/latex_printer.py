"""LaTeX of expressions, with the usual symbols of the optimization literature."""

from __future__ import annotations

import math
from typing import Any

import sympy
from sympy.printing.latex import LatexPrinter

from sol_symbols.grammar import symbol
from sol_symbols.operators import operator_of
from sol_symbols.vocabulary import STANDARD, Vocabulary

__all__ = ["latex"]


class _Printer(LatexPrinter):
    def __init__(self, digits: int | None, vocabulary: Vocabulary, after: bool) -> None:
        super().__init__({"mul_symbol": None, "order": "none"})
        self._digits, self._symbols = digits, {"lr": r"\alpha", **vocabulary.latex}
        if after:
            self._symbols["w"] = r"\theta_t"

    def _print(self, expr: sympy.Basic, **kwargs: Any) -> str:
        """A function by the LaTeX name that its operator states."""
        operator = operator_of(expr.func) if getattr(expr, "is_Function", False) else None
        if operator is None or not operator.latex:
            return str(super()._print(expr, **kwargs))
        power = f"^{{{kwargs['exp']}}}" if kwargs.get("exp") is not None else ""
        if "#1" in operator.latex:
            text = operator.latex
            for i, argument in enumerate(expr.args, start=1):
                text = text.replace(f"#{i}", self._print(argument))
            return text + power
        return rf"{operator.latex}{power}\left({', '.join(map(self._print, expr.args))}\right)"

    def _as_ordered_terms(self, expr: sympy.Expr, order: str | None = None) -> list[sympy.Expr]:
        terms: list[sympy.Expr] = expr.as_ordered_terms()
        return terms

    def _print_Mul(self, expr: sympy.Mul) -> str:
        """The number, then sums, then the rest: (1 - beta1) g."""
        if expr.is_Pow:  # 1/x, which SymPy prints as a product
            return str(super()._print_Mul(expr))
        number, rest = expr.as_coeff_Mul()
        factors = sorted(rest.as_ordered_factors(), key=lambda x: not x.is_Add)
        if number == 1 and len(factors) == 1:
            return str(self._print(rest))
        text: str = super()._print_Mul(sympy.Mul(*([] if number == 1 else [number]), *factors, evaluate=False))
        return text

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        return self._symbols.get(expr.name, rf"\mathrm{{{expr.name}}}".replace("_", r"\_"))

    def _print_Float(self, expr: sympy.Float) -> str:
        value = float(expr)
        if value == math.pi:
            return r"\pi"
        text = repr(value) if self._digits is None else f"{value:.{self._digits}g}"
        mantissa, _, exponent = text.partition("e")
        factor = {"1": "", "-1": "-"}.get(mantissa, rf"{mantissa} \cdot ")
        return f"{factor}10^{{{int(exponent)}}}" if exponent else mantissa


def latex(
    expression: sympy.Expr | str, digits: int | None = None, vocabulary: Vocabulary = STANDARD, after: bool = False
) -> str:
    """LaTeX of an expression or of a name.

    Args:
        expression: A SymPy expression over a vocabulary's names, or one name.
        digits: Significant digits of floats; all digits if ``None``.
        vocabulary: Has the symbols of the names; a name without one is set upright.
        after: Whether ``w`` is the parameter after the step, as in evaluation weights, and not the one before.
    """
    return _Printer(digits, vocabulary, after).doprint(
        symbol(expression) if isinstance(expression, str) else expression
    )
