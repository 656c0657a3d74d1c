r"""The operator table: the one place that says what an operator means.

An operator is a name, an arity and a SymPy expression. The text form, evaluation on NumPy, PyTorch and JAX, emitted
source and LaTeX follow from the expression. So do parity, scaling degree and bounds of an operator that is composed of
others. An operator that is itself a SymPy function, such as tanh, states them in its entry:

    parity    odd where f(-x) = -f(x), even where f(-x) = f(x)
    degree    the k in f(c x) = c^k f(x) for all c > 0
    bounds    an interval that contains f(x) for all x of an interval

Adding an operator is one entry in ``OPERATORS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import sympy

from sol_symbols.intervals import Bound, increasing

__all__ = ["OPERATORS", "Operator", "operator_of"]


@dataclass(frozen=True)
class Operator:
    r"""A named function of ``arity`` real arguments.

    Attributes:
        name: How a rule's text calls it, ``name(x)`` or ``name(x, y)``; if ``meaning`` is a SymPy function, also its
            name in NumPy, PyTorch and JAX.
        arity: Number of arguments, 1 or 2.
        meaning: Maps ``arity`` SymPy expressions to the expression that the operator stands for.
        description: One line for a person.
        parity: ``"odd"`` if f(-x) = -f(x), ``"even"`` if f(-x) = f(x), else ``"neither"``. This and the attributes
            below are only for SymPy functions, which must state ``parity``, ``degree`` and ``bounds``.
        degree: k if f(c x) = c^k f(x) for all c > 0, else ``"none"``.
        bounds: Maps a :class:`~sol_symbols.intervals.Bound` for each argument to one of the value.
        latex: The function's name in LaTeX; by default, the function is printed as SymPy prints it.
        c_name: Name of the C function; by default, the one that SymPy prints.
        c_source: C code that defines ``c_name``, for numbers of the type ``real``.
        c_vectors: Functions of C's library in the code of the value and of the derivative that glibc also has for
            vectors.
        function: The SymPy function that the operator is, ``None`` if it is composed of others.

    Raises:
        TypeError: An operator that is a SymPy function lacks a property, or a composed operator states one.

    >>> relu = Operator("relu", 1, lambda x: (x + sympy.Abs(x)) / 2, "x where it is positive, else 0")
    >>> relu(sympy.Symbol("x"))
    x/2 + Abs(x)/2
    >>> Operator("sinh", 1, sympy.sinh, "hyperbolic sine", parity="odd")
    Traceback (most recent call last):
        ...
    TypeError: operator 'sinh' is a new function: state its degree, bounds
    """

    name: str
    arity: int
    meaning: Callable[..., sympy.Expr]
    description: str
    parity: Literal["odd", "even", "neither"] | None = None
    degree: int | Literal["none"] | None = None
    bounds: Callable[..., Bound] | None = None
    latex: str = ""
    c_name: str = ""
    c_source: str = ""
    c_vectors: tuple[str, ...] = ()
    function: type[sympy.Basic] | None = field(init=False)

    def __post_init__(self) -> None:
        value = self._value()
        function = value.func if value.is_Function and value == value.func(*self._arguments()) else None
        required = {"parity": self.parity, "degree": self.degree, "bounds": self.bounds}
        missing = [name for name, fact in required.items() if fact is None]
        if function is not None and missing:
            raise TypeError(f"operator {self.name!r} is a new function: state its {', '.join(missing)}")
        extra = (self.latex, self.c_name, self.c_source, self.c_vectors)
        if function is None and (len(missing) < len(required) or any(extra)):
            raise TypeError(f"operator {self.name!r} is composed of others: its properties follow from theirs")
        object.__setattr__(self, "function", function)

    def __call__(self, *arguments: sympy.Expr) -> sympy.Expr:
        if len(arguments) != self.arity:
            raise TypeError(f"operator {self.name!r} takes {self.arity} argument(s), not {len(arguments)}")
        return self.meaning(*arguments)

    def functions(self) -> set[type[sympy.Basic]]:
        """The SymPy functions that its meaning is composed of."""
        return {node.func for node in sympy.preorder_traversal(self._value()) if node.is_Function}

    def _arguments(self) -> list[sympy.Symbol]:
        return [sympy.Symbol(f"x{i}", real=True) for i in range(self.arity)]

    def _value(self) -> sympy.Expr:
        return self(*self._arguments())


def operator_of(function: type[sympy.Basic]) -> Operator | None:
    """The operator that is the SymPy function, ``None`` if the table has none.

    >>> operator_of(sympy.Abs).name
    'abs'
    """
    return next((operator for operator in OPERATORS.values() if operator.function is function), None)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _abs(x: Bound) -> Bound:
    if x.lo >= 0:
        return x  # with its forms
    return Bound(-x.hi if x.hi <= 0 else 0.0, x.size)


def _cos(x: Bound) -> Bound:
    inside = math.isfinite(x.size) and x.lo >= 0 and x.hi <= math.pi
    return Bound(math.cos(x.hi), math.cos(x.lo)) if inside else Bound(-1.0, 1.0)


def _min(x: Bound, *others: Bound) -> Bound:  # SymPy's Min has any number of arguments
    return Bound(min(part.lo for part in (x, *others)), min(part.hi for part in (x, *others)))


def _table(*operators: Operator) -> dict[str, Operator]:
    known = {operator.function for operator in operators}
    for operator in operators:
        unknown = sorted(function.__name__ for function in operator.functions() - known)
        if unknown:
            raise TypeError(f"operator {operator.name!r} uses functions that have no operator: {', '.join(unknown)}")
    return {operator.name: operator for operator in operators}


_OPERATORS = _table(
    Operator("identity", 1, lambda x: x, "x"),
    Operator("square", 1, lambda x: x**2, "x squared"),
    Operator(
        *("exp", 1, sympy.exp, "exponential; overflows float32 above 88.7, float16 above 11.0"),
        parity="neither",
        degree="none",
        bounds=increasing(math.exp),
        c_vectors=("exp",),
    ),
    Operator(
        *("sign", 1, sympy.sign, "-1, 0 or 1"),
        parity="odd",
        degree=0,
        bounds=increasing(lambda x: float((x > 0) - (x < 0))),
        latex=r"\operatorname{sign}",
        c_name="signum",
        c_source="INLINE real signum(real x) { return (real)((x > 0) - (x < 0)); }\n",
    ),
    Operator("neg", 1, lambda x: -x, "-x"),
    Operator("add", 2, lambda x, y: x + y, "x + y"),
    Operator("sub", 2, lambda x, y: x - y, "x - y"),
    Operator("mul", 2, lambda x, y: x * y, "x y"),
    Operator("abs", 1, sympy.Abs, "absolute value", parity="even", degree=1, bounds=_abs),
    Operator("sqrt", 1, sympy.sqrt, "square root; nan below 0"),
    Operator(
        *("log", 1, sympy.log, "natural logarithm; -inf at 0, nan below"),
        parity="neither",
        degree="none",
        bounds=increasing(_log),
        c_vectors=("log",),
    ),
    Operator(
        *("tanh", 1, sympy.tanh, "hyperbolic tangent"),
        parity="odd",
        degree="none",
        bounds=increasing(math.tanh),
        c_vectors=("tanh",),
    ),
    # The tanh form is the logistic function exactly, and neither it nor its derivative overflows.
    Operator("sigmoid", 1, lambda x: (1 + sympy.tanh(x / 2)) / 2, "logistic function 1/(1 + exp(-x))"),
    Operator("reciprocal", 1, lambda x: 1 / x, "1/x, unprotected: infinite at 0"),
    Operator("div", 2, lambda x, y: x / y, "x/y, unprotected: infinite or nan where y = 0"),
    Operator(
        *("cos", 1, sympy.cos, "cosine"),
        parity="even",
        degree="none",
        bounds=_cos,
        c_vectors=("cos", "sin"),
    ),
    Operator(
        *("min", 2, sympy.Min, "the smaller of x and y"),
        parity="neither",
        degree=1,
        bounds=_min,
        c_name="smaller",
        c_source="INLINE real smaller(real x, real y) { return x < y || x != x ? x : y; }\n",
    ),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType(_OPERATORS)
"""Every operator by name."""
