"""LaTeX of expressions, with the customary symbols of the optimization literature."""

from __future__ import annotations

import math

import sympy
from sympy.printing.latex import LatexPrinter

from sol_symbols.grammar import symbol

__all__ = ["SYMBOLS", "latex"]

SYMBOLS: dict[str, str] = {
    "g": "g_t",
    "t": "t",
    "T": "T",
    "w": r"\theta_{t-1}",
    "beta1": r"\beta_1",
    "beta2": r"\beta_2",
    "eps": r"\epsilon",
    "mu": r"\mu",
    "wd": r"\lambda",
    "m": "m_t",
    "v": "v_t",
    "b": "b_t",
    "s": "s_t",
    "m_slow": r"m^{\mathrm{slow}}_t",
    "m_fast": r"m^{\mathrm{fast}}_t",
    "m_long": r"m^{\mathrm{long}}_t",
    "m_fast_prev": r"m^{\mathrm{fast}}_{t-1}",
    "m_long_prev": r"m^{\mathrm{long}}_{t-1}",
    "m_fast_hat": r"\hat m^{\mathrm{fast}}_t",
    "m_long_hat": r"\hat m^{\mathrm{long}}_t",
    "beta_fast": r"\beta_{\mathrm{fast}}",
    "beta_long": r"\beta_{\mathrm{long}}",
    "la": r"\tilde m_t",
    "li": r"i_t",
    "lt": r"\log t",
    "m_prev": "m_{t-1}",
    "v_prev": "v_{t-1}",
    "b_prev": "b_{t-1}",
    "s_prev": "s_{t-1}",
    "m_slow_prev": r"m^{\mathrm{slow}}_{t-1}",
    "bc1": "c_{1,t}",
    "bc2": "c_{2,t}",
    "m_hat": r"\hat m_t",
    "v_hat": r"\hat v_t",
    "v_res": r"\nu_t",
    "v_res_prev": r"\nu_{t-1}",
    "v_res_hat": r"\hat \nu_t",
    "n_hat": r"\hat n_t",
    "ad": r"a_t",
    "rs": r"r_t",
    "ld": r"\ell_t",
    "cd": r"\kappa_t",
    "ag": r"\tilde g_t",
    "ag_in": r"\iota_t",
}
"""LaTeX of each standard name; other names are set upright."""


class _Printer(LatexPrinter):
    def __init__(self, digits: int | None) -> None:
        super().__init__({"mul_symbol": None, "order": "none"})
        self._digits = digits

    def _as_ordered_terms(self, expr: sympy.Expr, order: str | None = None) -> list[sympy.Expr]:
        terms: list[sympy.Expr] = expr.as_ordered_terms()
        return terms

    def _print_Mul(self, expr: sympy.Mul) -> str:
        """The number, then sums, then the rest: (1 - beta1) g."""
        number, rest = expr.as_coeff_Mul()
        factors = sorted(rest.as_ordered_factors(), key=lambda x: not x.is_Add)
        if number == 1 and len(factors) == 1:
            return str(self._print(rest))
        text: str = super()._print_Mul(sympy.Mul(*([] if number == 1 else [number]), *factors, evaluate=False))
        return text

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        return SYMBOLS.get(expr.name, rf"\mathrm{{{expr.name}}}".replace("_", r"\_"))

    def _print_Float(self, expr: sympy.Float) -> str:
        value = float(expr)
        if value == math.pi:
            return r"\pi"
        text = repr(value) if self._digits is None else f"{value:.{self._digits}g}"
        mantissa, _, exponent = text.partition("e")
        factor = {"1": "", "-1": "-"}.get(mantissa, rf"{mantissa} \cdot ")
        return f"{factor}10^{{{int(exponent)}}}" if exponent else mantissa

    def _print_sign(self, expr: sympy.Expr, exp: str | None = None) -> str:
        power = f"^{{{exp}}}" if exp is not None else ""
        return rf"\operatorname{{sign}}{power}\left({self._print(expr.args[0])}\right)"


def latex(expression: sympy.Expr | str, digits: int | None = None) -> str:
    """LaTeX of an expression or of a name.

    Args:
        expression: A SymPy expression over a vocabulary's names, or one name.
        digits: Significant digits of floats; all of them where ``None``.
    """
    return _Printer(digits).doprint(symbol(expression) if isinstance(expression, str) else expression)
