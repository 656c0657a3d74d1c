"""Evaluate programs on NumPy (the reference) or any array library with NumPy's names.

:func:`sympy.lambdify` generates the code from the expression tree with this project's exact printer, never from text.
Schedules and bias corrections are computed once per step as Python floats; float32 arrays therefore stay float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import sympy

from sol_symbols.grammar import ExpressionPrinter, symbol
from sol_symbols.operators import OPERATORS, Operator
from sol_symbols.program import Assignment, Program, lower_features
from sol_symbols.vocabulary import Vocabulary

__all__ = ["Evaluator", "array_function", "feature_evaluator"]

State = dict[str, Any]


def _scalar_functions() -> dict[str, Any]:
    functions = {name: getattr(math, name, None) or _on_floats(name) for name in OPERATORS}
    return functions | {"abs": abs, "min": min, "sign": lambda x: float((x > 0) - (x < 0))}


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

    return {name: getattr(xp, name) for name in OPERATORS if hasattr(xp, name)} | {"min": minimum}


def _numpy() -> ModuleType:
    import numpy  # not at the top: reading and printing rules does not need it

    return numpy


class Evaluator:
    """Computes the outputs of a :class:`~sol_symbols.Program` step by step, with explicit state.

    Args:
        program: What to compute.
        xp: ``numpy`` (the default), ``torch`` or ``jax.numpy``.

    Attributes:
        varying: Indices of the outputs that differ between coordinates.
    """

    def __init__(self, program: Program, xp: ModuleType | None = None) -> None:
        xp = _numpy() if xp is None else xp
        self.program, self.xp = program, xp
        self._scalars = [(a.name, a.needs, _scalar_function(a)) for a in program.scalars]
        self._body = [(a.name, a.needs, _function(a, xp)) for a in program.body]
        outputs = [Assignment("", value) for value in program.outputs]
        self._outputs = [(a.needs, _function(a, xp)) for a in outputs]
        elementwise = program.elementwise
        self.varying = tuple(i for i, a in enumerate(outputs) if not elementwise.isdisjoint(a.needs))

    def init(self, w: Any) -> State:
        """States before the first step, in the shape of the parameter ``w``."""
        return {name: self.xp.full_like(w, value) for name, value in self.program.states.items()}

    def step(self, g: Any, state: State, w: Any, t: int, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], State]:
        """One step.

        Args:
            g: Gradient, any shape.
            state: From :meth:`init` or the previous step, arrays of the shape of ``g``.
            w: Parameter value, the shape of ``g``; may be ``None`` where the program does not use it.
            t: Number of this step, from 1.
            values: Hyperparameters and constants by name; numbers, or arrays that broadcast with ``g``.

        Returns:
            The outputs, each of the shape of ``g`` (or what that broadcasts to with the values), and the new state.
        """
        return self.elementwise(g, state, w, self.scalars(t, values))

    def scalars(self, t: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers of step ``t`` that are the same for all coordinates, by name: the values, and the bias
        corrections and decays computed from them."""
        known: dict[str, Any] = {**values, "t": float(t)}
        for name, needs, function in self._scalars:
            known[name] = function(*(known[need] for need in needs))
        return known

    def elementwise(self, g: Any, state: State, w: Any, scalars: Mapping[str, Any]) -> tuple[tuple[Any, ...], State]:
        """The rest of a step, from the result of :meth:`scalars`; see :meth:`step`."""
        known = {**scalars, "g": g, "w": w}
        known |= {f"{name}_prev": value for name, value in state.items()}
        for name, needs, function in self._body:
            known[name] = function(*(known[need] for need in needs))
        outputs = []
        for needs, function in self._outputs:
            value = function(*(known[need] for need in needs))
            outputs.append(self.xp.full_like(g, value) if isinstance(value, int | float) else value)
        return tuple(outputs), {name: known[name] for name in state}

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
    arguments = [symbol(name) for name in assignment.needs]
    return sympy.lambdify(arguments, assignment.value, modules=[functions], printer=ExpressionPrinter(), cse=False)


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
    return sympy.lambdify(arguments, operator(*arguments), modules=[_array_functions(xp)], printer=ExpressionPrinter())
