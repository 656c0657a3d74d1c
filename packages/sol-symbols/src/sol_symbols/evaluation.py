"""Evaluate programs on NumPy (the reference) or any array library with NumPy's names.

:func:`sympy.lambdify` generates the code from the expression tree with this project's exact printer, never from text.
Schedules and bias corrections are computed once per step as Python floats; float32 arrays therefore stay float32.

Reductions need to know the tensors. A :class:`~sol_symbols.kinds.Layout` says which coordinates of the last axis belong
to which tensor; leading axes are independent runs. Values of kind tensor then are arrays [..., tensors], those of kind
run [..., 1]. Without a layout, an array is one tensor, and these values are scalars.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import sympy

from sol_symbols.errors import RuleError
from sol_symbols.grammar import ExpressionPrinter, symbol
from sol_symbols.kinds import Kind, Layout
from sol_symbols.operators import (
    OPERATORS,
    ORTH_POLYNOMIAL,
    ORTH_STEPS,
    TINY,
    Operator,
    Reduction,
    expanded,
    operator_of,
)
from sol_symbols.program import Assignment, Program, lower_features
from sol_symbols.vocabulary import Vocabulary

__all__ = ["Evaluator", "array_function", "feature_evaluator"]

State = dict[str, Any]

PIECE = 2**15
"""Size of the pieces in which large PyTorch arrays are computed, so that intermediate values stay in the cache."""
LARGE = 2**20
"""Number of coordinates from which on an array is large."""


def _scalar_functions() -> dict[str, Any]:
    named = [name for name, operator in OPERATORS.items() if operator.definition is None]
    functions = {name: getattr(math, name, None) or _on_floats(name) for name in named}
    return functions | {"abs": abs, "min": min, "max": max, "sign": lambda x: float((x > 0) - (x < 0))}


def _on_floats(name: str) -> Callable[..., float]:
    """NumPy's function, applied to Python floats; for functions that Python's ``math`` lacks."""
    numpy = _numpy()

    def compute(*arguments: float) -> float:
        with numpy.errstate(all="ignore"):
            return float(getattr(numpy, name)(*arguments))

    return compute


def _array_functions(xp: ModuleType) -> dict[str, Any]:
    def minimum(x: Any, y: Any) -> Any:
        if isinstance(x, int | float):
            x, y = y, x
        return xp.clip(x, None, y) if isinstance(y, int | float) else xp.minimum(x, y)  # torch.minimum: tensors only

    def maximum(x: Any, y: Any) -> Any:
        if isinstance(x, int | float):
            x, y = y, x
        return xp.clip(x, y, None) if isinstance(y, int | float) else xp.maximum(x, y)

    return {name: getattr(xp, name) for name in OPERATORS if hasattr(xp, name)} | {"min": minimum, "max": maximum}


def _numpy() -> ModuleType:
    import numpy  # not at the top: reading and printing rules does not need it

    return numpy


class _Tensors:
    """Reductions of arrays, of which ``layout`` says what they hold."""

    def __init__(self, xp: ModuleType, layout: Layout | None) -> None:
        self._xp, self._layout = xp, layout

    def inputs(self, g: Any, loss: Any) -> dict[str, Any]:
        """The inputs of kind tensor, [tensors], and the loss, [..., 1], if it is given."""
        layout = Layout.of([g]) if self._layout is None else self._layout
        values = {"fan_in": layout.fan_in, "is_vector": layout.is_vector}
        found = {name: self.like([*map(float, value)], g) for name, value in values.items()}
        if loss is None:
            return found
        if isinstance(loss, int | float):
            one = self.like([float(loss)], g)
        else:
            one = loss if self._layout is None else loss[..., None]
            dtype = found["fan_in"].dtype
            one = one.to(dtype) if self._xp.__name__ == "torch" else one.astype(dtype)
        return found | {"loss": one}

    def like(self, values: list[float], g: Any) -> Any:
        """An array of one number per tensor, in the precision of reductions."""
        dtype = _wide(g[..., :0] if g.ndim else g, self._xp).dtype
        given: Any = values[0] if self._layout is None else values
        if self._xp.__name__ == "torch":
            return self._xp.asarray(given, dtype=dtype, device=g.device)
        return self._xp.asarray(given, dtype=dtype)

    def sum(self, x: Any) -> Any:
        """[..., tensors] from [..., coordinates]."""
        x = _wide(x, self._xp)
        if self._layout is None:
            return self._xp.sum(x)
        starts = (0, *self._layout.ends)
        return self._xp.stack([self._xp.sum(x[..., a:b], -1) for a, b in itertools.pairwise(starts)], -1)

    def counts(self, x: Any) -> Any:
        """The number of coordinates of each tensor, at least 1."""
        if self._layout is None:
            return float(max(math.prod(x.shape), 1))
        return self.like([float(max(size, 1)) for size in self._layout.sizes], x)

    def total(self, x: Any) -> Any:
        """[..., 1] from [..., tensors]."""
        return x if self._layout is None else self._xp.sum(x, -1)[..., None]

    def expand(self, x: Any, kind: Kind) -> Any:
        """A value of ``kind`` in the form that combines with coordinates."""
        if self._layout is None or kind is not Kind.TENSOR or isinstance(x, int | float):
            return x
        pieces = [x[..., i : i + 1] for i in range(len(self._layout.sizes))]
        spread = [self._xp.broadcast_to(one, (*x.shape[:-1], size)) for one, size in zip(pieces, self._layout.sizes)]
        return self._xp.concatenate(spread, -1) if spread else x

    def full(self, w: Any, value: float, kind: Kind) -> Any:
        """A state's first value."""
        one = self.sum(w)
        return self._xp.full_like(one if kind is Kind.TENSOR else self.total(one), value)

    def orth(self, x: Any) -> Any:
        """``orth`` of each tensor of [..., coordinates]."""
        wide = _wide(x, self._xp)
        if self._layout is None:
            return _orth(wide, tuple(x.shape), self._xp)
        pieces = [_orth(part, shape, self._xp) for part, shape in zip(self._layout.split(wide), self._layout.shapes)]
        flat = [part.reshape((*x.shape[:-1], size)) for part, size in zip(pieces, self._layout.sizes)]
        return self._xp.concatenate(flat, -1) if flat else wide

    def only(self, x: Any, vectors: bool) -> Any:
        """x [..., coordinates] of vectors, or of matrices; 0 for all other tensors."""
        if self._layout is None:
            return x if vectors == (x.ndim < 2) else self._xp.zeros_like(x)
        shapes = self._layout.shapes
        parts = [x[..., end - size : end] for end, size in zip(self._layout.ends, self._layout.sizes)]
        kept = [p if vectors == (len(shape) < 2) else self._xp.zeros_like(p) for p, shape in zip(parts, shapes)]
        return self._xp.concatenate(kept, -1) if kept else x

    def part(self, reduction: Reduction | None, factors: Sequence[Any]) -> Any:
        """The sum over coordinates that a reduction is a function of, [...], from one tensor or a piece of one."""
        assert reduction is not None
        product = _wide(factors[0], self._xp)
        if reduction.name != "mean":
            product = product * _wide(factors[-1], self._xp)
        return self._xp.sum(product) if self._layout is None else self._xp.sum(product, -1)

    def reduce(self, reduction: Reduction, values: Sequence[Any], g: Any, total: Any = None) -> Any:
        """The value of a reduction of arrays like ``g``; ``total`` is the sum of :meth:`part` if it is known."""
        xp, name, x = self._xp, reduction.name, g if total is not None else values[0]
        if name == "gmean":
            one = xp.ones_like(x)
            kept = x > 0
            logs = xp.where(kept, xp.log(xp.where(kept, x, one)), 0 * one)
            count = self.total(xp.where(kept, one, 0 * one))
            some = xp.clip(count, 1, None)
            return xp.where(count > 0, xp.exp(self.total(logs) / some), 0 * count)
        if name == "orth":
            return self.orth(x)
        if name in ("matrices", "vectors"):
            return self.only(x, vectors=name == "vectors")
        if name == "mean":
            return (self.sum(x) if total is None else total) / self.counts(x)
        squares = self.sum(_wide(x, xp) * _wide(values[-1], xp)) if total is None else total
        if name.startswith("all_"):
            squares = self.total(squares)
            count = max(math.prod(x.shape) if self._layout is None else sum(self._layout.sizes), 1)
            return squares if name == "all_dot" else xp.sqrt(squares / count)
        if name == "dot":
            return squares
        return xp.sqrt(squares / self.counts(x) if name == "rms" else squares)


def _orth(x: Any, shape: tuple[int, ...], xp: ModuleType) -> Any:
    """Polar factor of x [..., *shape] by Newton-Schulz steps on its smaller Gram matrix; x/rms(x) of a vector."""
    size = math.prod(shape)
    if not size:
        return x
    lead = tuple(x.shape[: x.ndim - len(shape)])
    flat = x.reshape((*lead, size))
    largest = (xp.amax if xp.__name__ == "torch" else xp.max)(xp.abs(flat), -1)[..., None]
    flat = flat / xp.clip(largest, TINY, None)  # squares of small numbers would be 0
    flat = flat / xp.clip(xp.sqrt(xp.sum(flat * flat, -1))[..., None], 1.0, None)
    if len(shape) < 2:
        return (flat * math.sqrt(size)).reshape(x.shape)
    rows, columns = shape[0], size // shape[0]
    matrix = flat.reshape((*lead, rows, columns))
    matrix = xp.swapaxes(matrix, -1, -2) if rows > columns else matrix
    where = {"device": x.device} if xp.__name__ == "torch" else {}
    one = xp.eye(min(rows, columns), dtype=x.dtype, **where)
    gram, (a, b, c) = matrix @ xp.swapaxes(matrix, -1, -2), ORTH_POLYNOMIAL
    factor = step = a * one + b * gram + c * (gram @ gram)
    for _ in range(ORTH_STEPS - 1):
        gram = step @ gram @ step
        step = a * one + b * gram + c * (gram @ gram)
        factor = step @ factor
    matrix = factor @ matrix * math.sqrt(max(1.0, rows / columns))
    return (xp.swapaxes(matrix, -1, -2) if rows > columns else matrix).reshape(x.shape)


def _wide(x: Any, xp: ModuleType) -> Any:
    """``x`` in float32 or better."""
    if x.dtype.itemsize >= 4:
        return x
    return x.to(xp.float32) if xp.__name__ == "torch" else x.astype(xp.float32)


@dataclass(frozen=True)
class _Step:
    """A statement: ``name = function(needs)``. ``spreads``: whether it has one number per coordinate by itself."""

    name: str
    needs: tuple[str, ...]
    function: Callable[..., Any]
    spreads: bool


@dataclass
class _Round:
    """Statements between reductions, and those that follow.

    Attributes:
        small: Statements of one number or one per tensor, which come first.
        coordinates: Those of one number per coordinate.
        reductions: The reductions after them.
        kept: Names among the coordinates that more than sums of the same round need.
    """

    small: list[_Step] = field(default_factory=list)
    coordinates: list[_Step] = field(default_factory=list)
    reductions: list[Assignment] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    @property
    def sums(self) -> list[Assignment]:
        """The reductions that are functions of a sum over coordinates."""
        return [a for a in self.reductions if a.reduction is not None and a.reduction.of_sum]


class Evaluator:
    """Computes the outputs of a :class:`~sol_symbols.Program` step by step, with explicit state.

    Args:
        program: What to compute.
        xp: ``numpy`` (the default), ``torch`` or ``jax.numpy``.
        layout: The tensors along the last axis of all arrays; by default, each array is one tensor.

    Attributes:
        varying: Indices of the outputs that differ between coordinates.
    """

    def __init__(self, program: Program, xp: ModuleType | None = None, layout: Layout | None = None) -> None:
        xp = _numpy() if xp is None else xp
        self.program, self.xp, self.layout = program, xp, layout
        self._tensors = _Tensors(xp, layout) if program.reduces else None
        self._needs_loss = program.uses("loss")
        self._scalars = [(a.name, a.needs, _scalar_function(a)) for a in program.scalars]
        outputs = [Assignment("", value) for value in program.outputs]
        self._outputs = [(a.needs, _function(a, xp)) for a in outputs]
        self._rounds = self._split()
        elementwise = program.elementwise
        self.varying = tuple(i for i, a in enumerate(outputs) if not elementwise.isdisjoint(a.needs))

    def init(self, w: Any) -> State:
        """States before the first step, in the shape of the parameter ``w``; see the module for those of tensors."""
        kinds, full = self.program.state_kinds, _Tensors(self.xp, self.layout).full
        return {
            name: full(w, value, kinds[name]) if name in kinds else self.xp.full_like(w, value)
            for name, value in self.program.states.items()
        }

    def step(
        self, g: Any, state: State, w: Any, t: int, values: Mapping[str, Any], loss: Any = None
    ) -> tuple[tuple[Any, ...], State]:
        """One step.

        Args:
            g: Gradient, any shape.
            state: From :meth:`init` or the previous step, arrays of the shape of ``g``.
            w: Parameter value, the shape of ``g``; may be ``None`` where the program does not use it.
            t: Number of this step, from 1.
            values: Hyperparameters and constants by name; numbers, or arrays that broadcast with ``g``.
            loss: Loss of this step: a number, or an array of the shape of ``g`` without its last axis. Only where the
                program uses it.

        Returns:
            The outputs, each of the shape of ``g`` (or what that broadcasts to with the values), and the new state.

        Raises:
            RuleError: The program uses the loss, and there is none.
        """
        return self.elementwise(g, state, w, self.scalars(t, values), loss)

    def scalars(self, t: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers of step ``t`` that are the same for all coordinates, by name: the values, and the bias
        corrections and decays computed from them."""
        known: dict[str, Any] = {**values, "t": float(t)}
        for name, needs, function in self._scalars:
            known[name] = function(*(known[need] for need in needs))
        return known

    def elementwise(
        self, g: Any, state: State, w: Any, scalars: Mapping[str, Any], loss: Any = None
    ) -> tuple[tuple[Any, ...], State]:
        """The rest of a step, from the result of :meth:`scalars`; see :meth:`step`."""
        known = {**scalars, "g": g, "w": w}
        known |= {f"{name}_prev": value for name, value in state.items()}
        if self._tensors is not None:
            if loss is None and self._needs_loss:
                raise RuleError("the formula uses the loss: pass that of the step")
            known |= self._tensors.inputs(g, loss)
        pieces = self._pieces(known)
        spread: dict[str, Any] = {}  # values of tensors, one number per coordinate
        for part in self._rounds:
            for step in part.small:
                value = step.function(*(known[need] for need in step.needs))
                known[step.name] = self._of_kind(step.name, value, g)
            sums = self._in_pieces(part, known, pieces) if pieces else self._whole(part, known, spread)
            for a in part.reductions:
                assert self._tensors is not None
                assert a.reduction is not None
                arguments = [] if a.name in sums else [self._array(known[x.name], g) for x in a.value.args]
                known[a.name] = self._tensors.reduce(a.reduction, arguments, g, sums.get(a.name))
        return tuple(known[name] for name in self._output_names), {name: known[name] for name in state}

    def _split(self) -> list[_Round]:
        """The body and the outputs, split after reductions."""
        kinds, rounds = self.program.kinds, [_Round()]
        for a in self.program.body:
            if a.reduction is not None:
                if {x.name for x in rounds[-1].reductions} & {*a.needs}:  # as in norm(orth(x))
                    rounds.append(_Round())
                rounds[-1].reductions.append(a)
                continue
            if rounds[-1].reductions:
                rounds.append(_Round())
            steps = rounds[-1].coordinates if kinds[a.name] is Kind.COORDINATE else rounds[-1].small
            steps.append(_Step(a.name, a.needs, _function(a, self.xp), self._spreads(a.needs)))
        if rounds[-1].reductions:
            rounds.append(_Round())
        for name, (needs, function) in zip(self._output_names, self._outputs):
            rounds[-1].coordinates.append(_Step(name, needs, function, self._spreads(needs)))
        used = {*self.program.states, *self._output_names}
        for part in reversed(rounds):
            own, sums = {step.name for step in part.coordinates}, part.sums
            used |= {need for a in part.reductions for need in a.needs if a not in sums or need not in own}
            part.kept = own & used
            used |= {need for step in (*part.small, *part.coordinates) for need in step.needs}
        return rounds

    @property
    def _output_names(self) -> list[str]:
        return [f"output {i}" for i in range(len(self.program.outputs))]

    def _of_kind(self, name: str, value: Any, g: Any) -> Any:
        """``value`` with one number per tensor if that is the kind of ``name``, whose update may be of a lower kind."""
        if self.layout is None or self._tensors is None or self.program.kinds[name] is not Kind.TENSOR:
            return value
        count = len(self.layout.sizes)
        whole = getattr(value, "shape", ())[-1:] == (count,)
        return value if whole else value + self._tensors.like([0.0] * count, g)

    def _value(self, step: _Step, arguments: Iterable[Any], g: Any) -> Any:
        """What a statement gives for coordinates."""
        value = step.function(*arguments)
        if step.name.startswith("output "):
            value = self._array(value, g)
        return value if step.spreads or self._tensors is None else value + self.xp.zeros_like(g)

    def _whole(self, part: _Round, known: dict[str, Any], spread: dict[str, Any]) -> dict[str, Any]:
        """Compute a round's statements of coordinates; returns no sums."""
        kinds = self.program.kinds

        def at_coordinates(name: str) -> Any:
            if self._tensors is None or kinds.get(name) is not Kind.TENSOR:
                return known[name]
            if name not in spread:
                spread[name] = self._tensors.expand(known[name], kinds[name])
            return spread[name]

        for step in part.coordinates:
            known[step.name] = self._value(step, map(at_coordinates, step.needs), known["g"])
        return {}

    def _in_pieces(self, part: _Round, known: dict[str, Any], pieces: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
        """The same piece by piece; returns the sums over the coordinates of each tensor by the reductions' names."""
        kinds, g, size = self.program.kinds, known["g"], known["g"].shape[-1]
        own, reductions = {step.name for step in part.coordinates}, part.sums
        needs = [*(step.needs for step in part.coordinates), *(a.needs for a in reductions)]
        needed = {*itertools.chain(*needs)} - own
        by_tensor = {name for name in needed if self.layout is not None and kinds.get(name) is Kind.TENSOR}
        long = {name for name in needed - by_tensor if getattr(known[name], "shape", ())[-1:] == (size,)}
        kept: dict[str, Any] = {}
        sums: dict[str, dict[int, Any]] = {a.name: {} for a in reductions}  # by tensor; empty ones are absent
        for tensor, start, end in pieces:
            piece = g[..., start:end]
            here = {name: known[name] for name in needed}
            here |= {name: known[name][..., tensor : tensor + 1] for name in by_tensor}
            here |= {name: known[name][..., start:end] for name in long}
            for step in part.coordinates:
                here[step.name] = self._value(step, (here[need] for need in step.needs), piece)
            for name in part.kept:
                value = self._spread_out(here[name], piece)
                if name not in kept:
                    kept[name] = value.new_empty((*value.shape[:-1], size))
                kept[name][..., start:end] = value
            for a in reductions:
                assert self._tensors is not None
                factors = [self._spread_out(here[x.name], piece) for x in a.value.args]
                total = self._tensors.part(a.reduction, factors)
                sums[a.name][tensor] = sums[a.name][tensor] + total if tensor in sums[a.name] else total
        known |= kept
        if self.layout is None:
            return {name: totals[0] for name, totals in sums.items()}
        zero = {name: self.xp.zeros_like(next(iter(totals.values()))) for name, totals in sums.items()}
        tensors = range(len(self.layout.sizes))
        return {name: self.xp.stack([totals.get(i, zero[name]) for i in tensors], -1) for name, totals in sums.items()}

    def _spread_out(self, value: Any, piece: Any) -> Any:
        """``value`` with one number for each coordinate of ``piece``."""
        whole = getattr(value, "shape", ())[-1:] == piece.shape[-1:]
        return value if whole else value + self.xp.zeros_like(piece)

    def _pieces(self, known: Mapping[str, Any]) -> list[tuple[int, int, int]]:
        """The tensor, start and end of each piece of the last axis; empty if it is not worth it, or not possible."""
        xp, g = self.xp, known["g"]
        if (
            xp.__name__ != "torch"
            or type(g) is not xp.Tensor
            or g.device.type != "cpu"
            or not g.ndim
            or not g.numel()
            or g.shape[-1] < LARGE
        ):
            return []
        arrays = [value for value in known.values() if isinstance(value, xp.Tensor)]
        if any(x.requires_grad or xp._C._functorch.is_functorch_wrapped_tensor(x) for x in arrays):
            return []
        runs = g.numel() // g.shape[-1]
        length = max(PIECE * xp.get_num_threads() // runs, 1)
        ends = (g.shape[-1],) if self.layout is None else self.layout.ends
        starts = (0, *ends)
        return [
            (tensor, start, min(start + length, end))
            for tensor, end in enumerate(ends)
            for start in range(starts[tensor], end, length)
        ]

    def _spreads(self, needs: Sequence[str]) -> bool:
        """Whether a value of these names has one number per coordinate, or is a number without any name of an array."""
        kinds = {self.program.kinds[need] for need in needs if need in self.program.kinds}
        return not kinds or Kind.COORDINATE in kinds

    def _array(self, value: Any, g: Any) -> Any:
        return self.xp.full_like(g, value) if isinstance(value, int | float) else value

    def uniform(self, scalars: Mapping[str, Any]) -> dict[int, Any]:
        """The outputs that are one number for all coordinates, by index, from the result of :meth:`scalars`."""
        rows = [(i, *row) for i, row in enumerate(self._outputs) if i not in self.varying]
        return {i: function(*(scalars[need] for need in needs)) for i, needs, function in rows}


def feature_evaluator(expressions: Sequence[sympy.Expr], vocabulary: Vocabulary, xp: ModuleType) -> Evaluator:
    """An evaluator whose outputs are ``expressions``, in their order."""
    return Evaluator(lower_features(tuple(expressions), vocabulary), xp)


@functools.lru_cache(maxsize=4096)  # generating code is slow, and the rules of a run share terms
def _function(assignment: Assignment, xp: ModuleType | None) -> Callable[..., Any]:
    """The value as a function of arrays of ``xp``, or of Python floats if it is ``None``."""
    functions = _scalar_functions() if xp is None else _array_functions(xp)
    if xp is not None:
        _require_functions(assignment.value, functions)
    arguments = [symbol(name) for name in assignment.needs]
    return sympy.lambdify(arguments, assignment.value, modules=[functions], printer=ExpressionPrinter(), cse=False)


def _require_functions(value: sympy.Expr, known: Mapping[str, Any]) -> None:
    """Check that arrays have the operators of a value.

    Raises:
        RuleError: They lack one.
    """
    for call in value.atoms(sympy.Function):
        operator = operator_of(type(call))
        if operator is None or operator.definition is not None or isinstance(operator, Reduction):
            continue
        if operator.name not in known:
            raise RuleError(
                f"arrays have no function {operator.name!r}: name the operator as NumPy, PyTorch and JAX do, or give "
                "its definition by other operators"
            )


def _scalar_function(assignment: Assignment) -> Callable[..., Any]:
    """A function of Python floats; NumPy's inf or nan where Python raises an error or returns a complex number."""
    numpy = _numpy()
    function, unguarded = _function(assignment, None), _function(assignment, numpy)

    def compute(*arguments: Any) -> Any:
        try:
            value = function(*arguments)
        except (ArithmeticError, ValueError, TypeError):  # TypeError: math's functions of a complex number
            value = None
        if value is not None and not isinstance(value, complex):
            return value
        with numpy.errstate(all="ignore"):
            return float(unguarded(*(numpy.float64(argument) for argument in arguments)))

    return compute


def array_function(operator: Operator, xp: ModuleType) -> Callable[..., Any]:
    """The operator as a function of arrays of ``xp``, generated from its meaning in the operator table."""
    arguments = [symbol(f"x{i}") for i in range(operator.arity)]
    value = expanded(operator(*arguments))
    return sympy.lambdify(arguments, value, modules=[_array_functions(xp)], printer=ExpressionPrinter())
