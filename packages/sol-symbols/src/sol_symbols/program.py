"""A rule as straight-line code, which evaluation and the exporters walk through.

scalars  numbers that depend only on the step and the hyperparameters (bias corrections, decays)
body     states and features, elementwise over the parameters, each after the names it uses
outputs  phi, or several expressions, elementwise
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import sympy

from sol_symbols.grammar import symbol
from sol_symbols.vocabulary import Vocabulary

_CALLS = (sympy.Function, sympy.Min, sympy.Pow)

__all__ = ["Assignment", "Program", "lower_features"]


@dataclass(frozen=True)
class Assignment:
    """``name = value``."""

    name: str
    value: sympy.Expr

    @property
    def needs(self) -> tuple[str, ...]:
        """Names in the value, sorted."""
        return tuple(sorted(free.name for free in self.value.free_symbols))


@dataclass(frozen=True)
class Program:
    """Straight-line code of one optimizer step.

    Attributes:
        scalars: Computed once per step, in this order.
        body: Computed elementwise, in this order; names in ``states`` are new values of states.
        outputs: The results, elementwise.
        states: Initial value of each state by name.
    """

    scalars: tuple[Assignment, ...]
    body: tuple[Assignment, ...]
    outputs: tuple[sympy.Expr, ...]
    states: dict[str, float]

    @property
    def elementwise(self) -> frozenset[str]:
        """Names of quantities that differ between coordinates; all other names are numbers."""
        return frozenset({"g", "w", *(a.name for a in self.body), *(f"{name}_prev" for name in self.states)})

    def uses(self, name: str) -> bool:
        """Whether the code uses ``name``."""
        everything = [*(a.value for a in (*self.scalars, *self.body)), *self.outputs]
        return any(symbol(name) in value.free_symbols for value in everything)


def lower_features(expressions: tuple[sympy.Expr, ...], vocabulary: Vocabulary) -> Program:
    """Straight-line code for several expressions over one vocabulary; shared definitions are computed once."""
    live = vocabulary.live(*expressions)
    elementwise = {symbol(name) for name in ("g", "w")}
    elementwise |= {symbol(name + suffix) for name in vocabulary.recurrences for suffix in ("", "_prev")}
    scalars: list[Assignment] = []
    body: list[Assignment] = []
    for name in live:
        value = vocabulary.definitions[name]
        if value.free_symbols & elementwise or name in vocabulary.recurrences:
            elementwise.add(symbol(name))
            body.append(Assignment(name, value))
        else:
            scalars.append(Assignment(name, value))
    hoisted: dict[sympy.Expr, sympy.Symbol] = {}
    taken = vocabulary.names.union(*({free.name for free in expression.free_symbols} for expression in expressions))
    fresh = (symbol(name) for name in (f"s{number}" for number in itertools.count(1)) if name not in taken)

    def hoist(value: sympy.Expr, factor: bool = False) -> sympy.Expr:
        """Name functions and powers of scalars: tensor code then only adds, multiplies and divides by scalars."""
        if value.is_Atom:
            return value
        if value.free_symbols & elementwise:
            arguments = [hoist(argument, value.is_Mul) for argument in value.args]
            return value if tuple(arguments) == value.args else value.func(*arguments)
        if factor and value.is_Pow and value.base.is_Symbol and value.exp == -1:
            return value  # divides the tensor, which is well defined at 0; 1/0 of Python floats is not
        if not value.has(*_CALLS):
            return value
        if value not in hoisted:
            hoisted[value] = next(fresh)
            scalars.append(Assignment(hoisted[value].name, value))
        return hoisted[value]

    body = [Assignment(assignment.name, hoist(assignment.value)) for assignment in body]
    outputs = tuple(hoist(expression) for expression in expressions)
    states = {a.name: vocabulary.recurrences[a.name].init for a in body if a.name in vocabulary.recurrences}
    return Program(tuple(scalars), tuple(body), outputs, states)
