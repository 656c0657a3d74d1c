"""The operator table: the one place that says what an operator means.

An operator is a name, an arity and a SymPy expression. The text form, NumPy and PyTorch evaluation, emitted source and
LaTeX follow from the expression. Symmetry and bounds follow from it too where SymPy's sums, products and powers are all
that it uses. An operator that is a function of its own, such as ``tanh``, states these facts in its entry
(:class:`Function`). Adding an operator is one entry in ``OPERATORS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import sympy

from sol_symbols.intervals import Bound, monotone

__all__ = ["OPERATORS", "Function", "Operator", "Parity", "Scaling", "function_of", "functions_in"]


class Parity(Enum):
    """How a function of one argument responds to its sign."""

    ODD = -1
    """f(-x) = -f(x)."""
    EVEN = 1
    """f(-x) = f(x)."""
    NEITHER = 0


class Scaling(Enum):
    """How a function responds to a positive factor c of all its arguments."""

    INVARIANT = "f(c x) = f(x)"
    HOMOGENEOUS = "f(c x) = c f(x)"
    NEITHER = ""


@dataclass(frozen=True)
class Function:
    """The facts that cannot be read off a function's SymPy expression.

    Attributes:
        parity: Its parity; ``NEITHER`` for a function of several arguments.
        scaling: Its scaling.
        bounds: Bounds of its value, given bounds of its arguments.
        latex: Its name in LaTeX; ``None`` for SymPy's own notation.
    """

    parity: Parity
    scaling: Scaling
    bounds: Callable[..., Bound]
    latex: str | None = None


@dataclass(frozen=True)
class Operator:
    """A named function of ``arity`` real arguments.

    Attributes:
        name: How it is written in a rule's text, ``name(x)`` or ``name(x, y)``.
        arity: Number of arguments, 1 or 2.
        meaning: Maps ``arity`` SymPy expressions to the expression that the operator stands for.
        description: One line for a person.
        function: Facts of the operator; required if ``meaning`` is a SymPy function itself, ``None`` if it is composed.

    Raises:
        TypeError: ``function`` is missing, or given for an operator that is composed.
    """

    name: str
    arity: int
    meaning: Callable[..., sympy.Expr]
    description: str
    function: Function | None = None

    def __post_init__(self) -> None:
        if self.primitive is not None and self.function is None:
            raise TypeError(
                f"operator {self.name!r} is {self.primitive.__name__}: state its facts, function=Function(...)"
            )
        if self.primitive is None and self.function is not None:
            raise TypeError(
                f"operator {self.name!r} is composed of others: its facts follow from them, leave out function"
            )

    def __call__(self, *arguments: sympy.Expr) -> sympy.Expr:
        if len(arguments) != self.arity:
            raise TypeError(f"operator {self.name!r} takes {self.arity} argument(s), not {len(arguments)}")
        return self.meaning(*arguments)

    @property
    def primitive(self) -> type[sympy.Expr] | None:
        """The SymPy function that the operator is; ``None`` if it is composed."""
        arguments = [sympy.Symbol(f"x{i}", real=True) for i in range(self.arity)]
        expression = self.meaning(*arguments)
        alone = not (expression.is_Symbol or expression.is_Add or expression.is_Mul or expression.is_Pow)
        return type(expression) if alone and set(expression.args) == set(arguments) else None


def _abs(x: Bound) -> Bound:
    if x.lo >= 0:
        return x
    return Bound(-x.hi if x.hi <= 0 else 0.0, x.size)


def _cos(x: Bound) -> Bound:
    inside = math.isfinite(x.size) and x.lo >= 0 and x.hi <= math.pi
    return Bound(math.cos(x.hi), math.cos(x.lo)) if inside else Bound(-1.0, 1.0)


def _min(*parts: Bound) -> Bound:
    return Bound(min(part.lo for part in parts), min(part.hi for part in parts))


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


_EXP = Function(Parity.NEITHER, Scaling.NEITHER, monotone(math.exp))
_SIGN = Function(Parity.ODD, Scaling.INVARIANT, monotone(_sign), r"\operatorname{sign}")
_ABS = Function(Parity.EVEN, Scaling.HOMOGENEOUS, _abs)
_LOG = Function(Parity.NEITHER, Scaling.NEITHER, monotone(_log))
_TANH = Function(Parity.ODD, Scaling.NEITHER, monotone(math.tanh))
_COS = Function(Parity.EVEN, Scaling.NEITHER, _cos)
_MIN = Function(Parity.NEITHER, Scaling.HOMOGENEOUS, _min)

_TABLE = (
    Operator("identity", 1, lambda x: x, "x"),
    Operator("square", 1, lambda x: x**2, "x squared"),
    Operator("exp", 1, sympy.exp, "exponential; overflows float32 above 88.7, float16 above 11.0", _EXP),
    Operator("sign", 1, sympy.sign, "-1, 0 or 1", _SIGN),
    Operator("neg", 1, lambda x: -x, "-x"),
    Operator("add", 2, lambda x, y: x + y, "x + y"),
    Operator("sub", 2, lambda x, y: x - y, "x - y"),
    Operator("mul", 2, lambda x, y: x * y, "x y"),
    Operator("abs", 1, sympy.Abs, "absolute value", _ABS),
    Operator("sqrt", 1, sympy.sqrt, "square root; nan below 0"),
    Operator("log", 1, sympy.log, "natural logarithm; -inf at 0, nan below", _LOG),
    Operator("tanh", 1, sympy.tanh, "hyperbolic tangent", _TANH),
    # The tanh form is the logistic function exactly, and neither it nor its derivative overflows.
    Operator("sigmoid", 1, lambda x: (1 + sympy.tanh(x / 2)) / 2, "logistic function 1/(1 + exp(-x))"),
    Operator("reciprocal", 1, lambda x: 1 / x, "1/x, unprotected: infinite at 0"),
    Operator("div", 2, lambda x, y: x / y, "x/y, unprotected: infinite or nan where y = 0"),
    Operator("cos", 1, sympy.cos, "cosine", _COS),
    Operator("min", 2, sympy.Min, "the smaller of x and y", _MIN),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({operator.name: operator for operator in _TABLE})
"""Every operator by name."""


def functions_in(operators: Iterable[Operator]) -> dict[type[sympy.Expr], Function]:
    """Facts by SymPy function, as the entries state them."""
    return {o.primitive: o.function for o in operators if o.primitive is not None and o.function is not None}


_FUNCTIONS = functions_in(_TABLE)


def function_of(expression: sympy.Expr) -> Function:
    """The facts of the function that ``expression`` is a call of.

    Raises:
        KeyError: No operator is this function: it cannot occur in a rule.
    """
    if type(expression) not in _FUNCTIONS:
        raise KeyError(f"no operator is {type(expression).__name__}; add an entry to OPERATORS")
    return _FUNCTIONS[type(expression)]
