r"""The operator table: the one place that says what an operator means.

An operator is a name, an arity and a SymPy expression. The text form, evaluation on NumPy, PyTorch and JAX, emitted
source and LaTeX follow from the expression. So do parity, scaling degree and bounds of an operator that is composed of
others. An operator that is itself a SymPy function, such as tanh, states them in its entry:

    parity    odd where f(-x) = -f(x), even where f(-x) = f(x)
    degree    the k in f(c x) = c^k f(x) for all c > 0
    bounds    an interval that contains f(x) for all x of an interval

A function can also have a ``definition`` by simpler operators: formulas then show its name, and code is generated from
the definition. Adding an operator is one entry in ``OPERATORS``.

``REDUCTIONS`` has the functions of whole tensors. Most lead to one number per tensor or per run, such as ``rms(g)``;
``orth(g)``, ``matrices(g)`` and ``vectors(g)`` are again tensors. All are 0 for tensors without elements, and computed
in float32 or better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import sympy

from sol_symbols.errors import RuleError
from sol_symbols.intervals import ANYTHING, Bound, increasing
from sol_symbols.kinds import Kind

__all__ = [
    *("OPERATORS", "ORTH_POLYNOMIAL", "ORTH_STEPS", "REDUCTIONS", "TINY"),
    *("Operator", "Reduction", "calls", "expanded", "kind_of", "operator_of"),
]

TINY = 1e-30
"""``inv0`` is 0 up to here."""

ORTH_POLYNOMIAL = (3.4445, -4.775, 2.0315)
"""``orth`` maps singular values by a x + b x^3 + c x^5, ..."""

ORTH_STEPS = 5
"""... so often. The coefficients are those of Muon (Jordan et al. 2024); values from 0.003 on end in [0.68, 1.21]."""


@dataclass(frozen=True)
class Operator:
    r"""A named function of ``arity`` real arguments.

    Attributes:
        name: How a rule's text calls it, ``name(x)`` or ``name(x, y)``; if ``meaning`` is a SymPy function, also its
            name in NumPy, PyTorch and JAX.
        arity: Number of arguments, 1 or 2.
        meaning: Maps ``arity`` SymPy expressions to the expression that the operator stands for.
        description: One line for a person.
        parity: ``"odd"`` if f(-x) = -f(x), ``"even"`` if f(-x) = f(x), ``"product"`` if it is that of the arguments'
            product, else ``"neither"``. This and the attributes below are only for SymPy functions, which must state
            ``parity``, ``degree`` and ``bounds``.
        degree: k if f(c x) = c^k f(x) for all c > 0, ``"product"`` as for the parity, else ``"none"``.
        bounds: Maps a :class:`~sol_symbols.intervals.Bound` for each argument to one of the value.
        latex: The function's name in LaTeX, or its form with ``#1`` and ``#2`` in place of the arguments; by default,
            the function is printed as SymPy prints it.
        c_name: Name of the C function; by default, the one that SymPy prints.
        c_source: C code that defines ``c_name``, for numbers of the type ``real``.
        c_vectors: Functions of C's library in the code of the value and of the derivative that glibc also has for
            vectors.
        definition: Maps the arguments to an equal expression of simpler operators, which code is generated from.
        schema: The first version of the JSON form that has the operator.
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
    parity: Literal["odd", "even", "neither", "product"] | None = None
    degree: int | Literal["none", "product"] | None = None
    bounds: Callable[..., Bound] | None = None
    latex: str = ""
    c_name: str = ""
    c_source: str = ""
    c_vectors: tuple[str, ...] = ()
    definition: Callable[..., sympy.Expr] | None = None
    schema: int = 1
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
    return next((operator for operator in calls().values() if operator.function is function), None)


def calls() -> Mapping[str, Operator]:
    """Everything that a formula can call, by name: operators and reductions."""
    return {**OPERATORS, **REDUCTIONS}


def expanded(expression: sympy.Expr) -> sympy.Expr:
    """``expression`` with definitions in place of the functions that have one.

    >>> expanded(OPERATORS["step"](sympy.Symbol("x")))
    sign(Max(0, x))
    """
    if not expression.args:
        return expression
    arguments = [expanded(argument) for argument in expression.args]
    operator = operator_of(expression.func) if expression.is_Function else None
    if operator is not None and operator.definition is not None:
        return expanded(operator.definition(*arguments))
    return expression if tuple(arguments) == expression.args else expression.func(*arguments)


def kind_of(expression: sympy.Expr, kinds: Mapping[str, Kind]) -> Kind:
    """The kind of an expression; names without a kind are numbers.

    Raises:
        RuleError: The argument of a reduction is of another kind than it reduces.

    >>> kind_of(sympy.Symbol("q") * sympy.Symbol("g"), {"q": Kind.TENSOR, "g": Kind.COORDINATE}).label
    'coordinate'
    """
    if expression.is_Symbol:
        return kinds.get(expression.name, Kind.RUN)
    found = [kind_of(argument, kinds) for argument in expression.args]
    reduction = operator_of(expression.func) if expression.is_Function else None
    if not isinstance(reduction, Reduction):
        return max(found, default=Kind.RUN)
    for kind in found:
        if kind is not reduction.takes:
            raise RuleError(reduction.refusal(f"a {kind.label} value ({kind.description})"))
    return reduction.gives


class Step(sympy.Function):
    """1 where x > 0, else 0."""

    is_real = is_nonnegative = True

    @classmethod
    def eval(cls, x: sympy.Expr) -> sympy.Expr | None:
        """Numbers."""
        return sympy.Integer(1 if x > 0 else 0) if x.is_number and x.is_real else None

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Its derivative."""
        return sympy.Integer(0)


class Inv0(sympy.Function):
    """1/x where x > 1e-30, else 0."""

    is_real = is_nonnegative = True

    @classmethod
    def eval(cls, x: sympy.Expr) -> sympy.Expr | None:
        """Numbers."""
        return (1 / x if x > TINY else sympy.Integer(0)) if x.is_number and x.is_real else None

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Its derivative."""
        return -(self.func(*self.args) ** 2)


class Trust(sympy.Function):
    """x/y, and 1 unless both are positive."""

    is_real = is_nonnegative = True

    @classmethod
    def eval(cls, x: sympy.Expr, y: sympy.Expr) -> sympy.Expr | None:
        """Numbers."""
        if not (x.is_number and y.is_number and x.is_real and y.is_real):
            return None
        return x * Inv0(y) if x > 0 and y > 0 else sympy.Integer(1)

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Its derivatives."""
        x, y = self.args
        both = Step(x) * Step(y)
        return both * Inv0(y) if argindex == 1 else -both * x * Inv0(y) ** 2


class _Reducing(sympy.Function):
    """Base of reductions, which are 0 if an argument is."""

    is_real = True

    @classmethod
    def eval(cls, *arguments: sympy.Expr) -> sympy.Expr | None:
        """Zeros, and the order of arguments that commute."""
        if any(argument.is_zero for argument in arguments):
            return sympy.Integer(0)
        ordered = sorted(arguments, key=sympy.default_sort_key)
        return cls(*ordered) if ordered != list(arguments) else None


class _Size(_Reducing):
    is_nonnegative = True


class Rms(_Size):
    """Root mean square of a tensor."""


class Mean(_Reducing):
    """Mean of a tensor."""


class Norm(_Size):
    """Euclidean norm of a tensor."""


class Dot(_Reducing):
    """Inner product of two tensors."""


class Orth(_Reducing):
    """Polar factor of a matrix."""


class Matrices(_Reducing):
    """Its argument for matrices, else 0."""


class Vectors(_Reducing):
    """Its argument for vectors, else 0."""


class AllRms(_Size):
    """Root mean square of all tensors."""


class AllDot(_Reducing):
    """Inner product over all tensors."""


class Gmean(_Size):
    """Geometric mean of the numbers of tensors."""


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


def _max(x: Bound, *others: Bound) -> Bound:
    return Bound(max(part.lo for part in (x, *others)), max(part.hi for part in (x, *others)))


def _inv0(x: Bound) -> Bound:
    if x.hi <= TINY:
        return Bound(0.0, 0.0)
    return Bound(1 / x.hi if x.lo > TINY else 0.0, 1 / max(x.lo, TINY))


def _size(x: Bound) -> Bound:
    """Of a root mean square: 0 for an empty tensor, else between the sizes."""
    return Bound(0.0, x.size)


def _norm(x: Bound) -> Bound:
    return Bound(0.0, math.inf if x.size else 0.0)


def _dot(x: Bound, y: Bound) -> Bound:
    if x.size == 0 or y.size == 0:
        return Bound(0.0, 0.0)
    positive = (x.lo >= 0 and y.lo >= 0) or (x.hi <= 0 and y.hi <= 0)
    return Bound(0.0, math.inf) if positive else ANYTHING


def _part(x: Bound) -> Bound:
    """Of a value or 0."""
    return Bound(min(x.lo, 0.0), max(x.hi, 0.0))


def _orth(x: Bound) -> Bound:
    return ANYTHING if x.size else Bound(0.0, 0.0)


def _gmean(x: Bound) -> Bound:
    return Bound(0.0, max(x.hi, 0.0))


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
    Operator("abs", 1, sympy.Abs, "absolute value", parity="even", degree=1, bounds=_abs, c_name="fabs"),
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
    Operator(
        *("max", 2, sympy.Max, "the larger of x and y"),
        parity="neither",
        degree=1,
        bounds=_max,
        c_name="larger",
        c_source="INLINE real larger(real x, real y) { return x > y || x != x ? x : y; }\n",
        schema=2,
    ),
    Operator("clip", 2, lambda x, y: sympy.Min(sympy.Max(x, -y), y), "x limited to [-y, y]", schema=2),
    Operator(
        *("step", 1, Step, "1 where x > 0, else 0"),
        parity="neither",
        degree=0,
        bounds=increasing(lambda x: float(x > 0)),
        latex=r"\operatorname{step}",
        definition=lambda x: sympy.sign(sympy.Max(x, 0)),
        schema=2,
    ),
    Operator(
        *("inv0", 1, Inv0, "1/x where x > 1e-30, else 0"),
        parity="neither",
        degree=-1,
        bounds=_inv0,
        latex=r"\operatorname{inv}_0",
        definition=lambda x: Step(x - TINY) / sympy.Max(x, TINY),
        schema=2,
    ),
    Operator(
        *("trust", 2, Trust, "x/y, and 1 unless both are positive: the trust ratio of LARS and LAMB"),
        parity="neither",
        degree=0,
        bounds=lambda x, y: Bound(0.0, math.inf),
        latex=r"\operatorname{trust}",
        definition=lambda x, y: sympy.Max(x, 0) * Inv0(y) + Step(sympy.S.Half - Step(x) * Step(y)),  # one of them is 0
        schema=2,
    ),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType(_OPERATORS)
"""Every operator by name."""


@dataclass(frozen=True)
class Reduction(Operator):
    """A function of all values of a tensor, or of all tensors of an optimizer; some give a tensor again.

    Attributes:
        takes: The kind of its arguments.
        gives: The kind of its value.
    """

    takes: Kind = Kind.COORDINATE
    gives: Kind = Kind.TENSOR

    @property
    def local(self) -> bool:
        """Whether it gives a value for each coordinate, which is computed for its tensor alone."""
        return self.gives is Kind.COORDINATE

    @property
    def of_sum(self) -> bool:
        """Whether it is a function of a sum over coordinates."""
        return self.takes is Kind.COORDINATE and not self.local

    def refusal(self, found: str) -> str:
        """What to say of an argument of another kind than it takes."""
        verb = "reduces" if self.gives < self.takes else "takes"
        hint = f"; write x*{_MASKS[self.name]} for {self.name}(x)" if self.name in _MASKS else ""
        wanted = f"{self.takes.label} values ({self.takes.description})"
        return f"{self.name} {verb} {wanted}, and its argument is {found}{hint}"


_MASKS = {"matrices": "(1 - is_vector)", "vectors": "is_vector"}
"""What does the same to values that are not per coordinate."""

_SIZE: dict[str, Any] = {"parity": "even", "degree": 1, "schema": 2}
_PRODUCT: dict[str, Any] = {"parity": "product", "degree": "product", "bounds": _dot, "schema": 2}

_MASK: dict[str, Any] = {"parity": "odd", "degree": 1, "bounds": _part, "schema": 4, "gives": Kind.COORDINATE}

_REDUCTIONS = {
    reduction.name: reduction
    for reduction in (
        Reduction(
            *("rms", 1, Rms, "root mean square over the tensor"), **_SIZE, bounds=_size, latex=r"\operatorname{rms}"
        ),
        Reduction(
            *("mean", 1, Mean, "mean over the tensor"),
            parity="odd",
            degree=1,
            bounds=_part,
            latex=r"\operatorname{mean}",
            schema=2,
        ),
        Reduction(
            *("norm", 1, Norm, "Euclidean norm of the tensor"),
            **_SIZE,
            bounds=_norm,
            latex=r"\left\lVert #1 \right\rVert",
        ),
        Reduction(
            *("dot", 2, Dot, "inner product over the tensor"),
            **_PRODUCT,
            latex=r"\left\langle #1, #2 \right\rangle",
        ),
        Reduction(
            *("orth", 1, Orth, "matrix: polar factor x sqrt(max(1, rows/columns)), as in Muon; vector: x/rms(x)"),
            parity="odd",
            degree=0,
            bounds=_orth,
            latex=r"\operatorname{orth}",
            schema=3,
            gives=Kind.COORDINATE,
        ),
        Reduction(
            *("matrices", 1, Matrices, "x for tensors of two or more dimensions, else 0"),
            **_MASK,
            latex=r"\operatorname{matrices}",
        ),
        Reduction(
            *("vectors", 1, Vectors, "x for tensors of less than two dimensions, else 0"),
            **_MASK,
            latex=r"\operatorname{vectors}",
        ),
        Reduction(
            *("all_rms", 1, AllRms, "root mean square over all tensors of the optimizer"),
            **_SIZE,
            bounds=_size,
            latex=r"\operatorname{rms}_{\mathrm{all}}",
            gives=Kind.RUN,
        ),
        Reduction(
            *("all_dot", 2, AllDot, "inner product over all tensors of the optimizer"),
            **_PRODUCT,
            latex=r"\left\langle #1, #2 \right\rangle_{\mathrm{all}}",
            gives=Kind.RUN,
        ),
        Reduction(
            *("gmean", 1, Gmean, "geometric mean of a tensor value x over the tensors with x > 0; 0 if there is none"),
            parity="neither",
            degree=1,
            bounds=_gmean,
            latex=r"\operatorname{gmean}",
            schema=2,
            takes=Kind.TENSOR,
            gives=Kind.RUN,
        ),
    )
}

REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(_REDUCTIONS)
"""Every reduction by name."""
