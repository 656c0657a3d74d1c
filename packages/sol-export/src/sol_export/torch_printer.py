"""SymPy expressions as PyTorch code."""

from __future__ import annotations

from collections.abc import Collection

import sympy

from sol_export.source import WIDTH, ArrayPrinter, statement
from sol_symbols import symbol

__all__ = ["TorchPrinter", "recurrence"]


class TorchPrinter(ArrayPrinter):
    """Code for tensors; ``torch.minimum`` does not accept numbers."""

    def __init__(self, elementwise: Collection[str]) -> None:
        super().__init__("torch.", elementwise)

    def _arguments(self, call: sympy.Function) -> list[str]:
        """See :class:`ArrayPrinter`; functions of several arrays get no numbers, which ``torch.minimum`` refuses."""
        arrays = sorted(free.name for free in call.free_symbols if self.is_array(free))
        texts = super()._arguments(call)
        if not arrays:
            return texts
        pairs = zip(call.args, texts)
        return [text if self.is_array(value) else f"{text} + torch.zeros_like({arrays[0]})" for value, text in pairs]

    def _print_Min(self, expr: sympy.Min) -> str:
        return self._extremum(expr, "minimum", "max")

    def _print_Max(self, expr: sympy.Max) -> str:
        return self._extremum(expr, "maximum", "min")

    def _extremum(self, expr: sympy.Expr, function: str, limit: str) -> str:
        text = ""
        for value in sorted(expr.args, key=self.is_array, reverse=True):
            printed = self._print(value)
            if not text:
                text = printed
            elif self.is_array(value):
                text = f"torch.{function}({text}, {printed})"
            else:
                text = f"torch.clamp({text}, {limit}={printed})"
        return text


def recurrence(
    name: str, value: sympy.Expr, previous: sympy.Symbol, current: sympy.Expr, printer: TorchPrinter
) -> list[str]:
    """Assign ``value`` to ``name`` in place: ``factor * name + rest`` as ``name.mul_(factor).add_(rest)``."""
    terms = [term for term in sympy.Add.make_args(value) if previous in term.free_symbols]
    factor = terms[0] / previous if len(terms) == 1 else sympy.nan
    if factor is sympy.nan or previous in factor.free_symbols or printer.is_array(factor):
        text = printer.doprint(current)
        call = f"{name}.copy_({text})" if printer.is_array(current) else f"{name}.fill_({text})"
        return [call] if len(call) + 4 <= WIDTH else [*statement("new", text), f"{name}.copy_(new)"]
    rest = current - (terms[0].xreplace({previous: symbol(name)}))
    scaled = f".mul_({printer.doprint(factor)})" if factor != 1 else ""
    added = printer.doprint(rest)
    call = name + scaled + (f".add_({added})" if rest != 0 else "")
    return [call] if len(call) + 4 <= WIDTH else [*statement("new", added), f"{name}{scaled}.add_(new)"]
