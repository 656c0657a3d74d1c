"""The operator table: the one place that says what an operator means.

An operator is a name, an arity and a SymPy expression. Everything else is derived from that expression: the text
form, NumPy and PyTorch evaluation, emitted source and LaTeX. Adding an operator is one entry in ``OPERATORS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import sympy

__all__ = ["OPERATORS", "Operator"]


@dataclass(frozen=True)
class Operator:
    """A named function of ``arity`` real arguments.

    Attributes:
        name: How it is written in a rule's text, ``name(x)`` or ``name(x, y)``.
        arity: Number of arguments, 1 or 2.
        meaning: Maps ``arity`` SymPy expressions to the expression that the operator stands for.
        description: One line for a person.
    """

    name: str
    arity: int
    meaning: Callable[..., sympy.Expr]
    description: str

    def __call__(self, *arguments: sympy.Expr) -> sympy.Expr:
        if len(arguments) != self.arity:
            raise TypeError(f"operator {self.name!r} takes {self.arity} argument(s), not {len(arguments)}")
        return self.meaning(*arguments)


_TABLE = (
    Operator("identity", 1, lambda x: x, "x"),
    Operator("square", 1, lambda x: x**2, "x squared"),
    Operator("exp", 1, sympy.exp, "exponential; overflows float32 above 88.7, float16 above 11.0"),
    Operator("sign", 1, sympy.sign, "-1, 0 or 1"),
    Operator("neg", 1, lambda x: -x, "-x"),
    Operator("add", 2, lambda x, y: x + y, "x + y"),
    Operator("sub", 2, lambda x, y: x - y, "x - y"),
    Operator("mul", 2, lambda x, y: x * y, "x y"),
    Operator("abs", 1, sympy.Abs, "absolute value"),
    Operator("sqrt", 1, sympy.sqrt, "square root; nan below 0"),
    Operator("log", 1, sympy.log, "natural logarithm; -inf at 0, nan below"),
    Operator("tanh", 1, sympy.tanh, "hyperbolic tangent"),
    # The tanh form is the logistic function exactly, and neither it nor its derivative overflows.
    Operator("sigmoid", 1, lambda x: (1 + sympy.tanh(x / 2)) / 2, "logistic function 1/(1 + exp(-x))"),
    Operator("reciprocal", 1, lambda x: 1 / x, "1/x, unprotected: infinite at 0"),
    Operator("div", 2, lambda x, y: x / y, "x/y, unprotected: infinite or nan where y = 0"),
    Operator("cos", 1, sympy.cos, "cosine"),
    Operator("min", 2, sympy.Min, "the smaller of x and y"),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({operator.name: operator for operator in _TABLE})
"""Every operator by name."""
