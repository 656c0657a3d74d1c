"""Numbers out of elementwise code: what does not depend on the element is calculated once a step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import sympy

from sol_symbols import Assignment, Program, symbol

__all__ = ["hoisted"]


def hoisted(program: Program) -> Program:
    """``program``, whose elementwise code knows numbers by name only: like terms are collected, and their coefficients,
    ``1 - beta1``, ``1/bc1`` and the like, are scalars.

    (a·c - b·d)·x instead of a·c·x - b·d·x: the same up to rounding, in fewer passes over x.
    """
    return _Hoist(program).program


class _Hoist:
    def __init__(self, program: Program) -> None:
        names = {"g", "w", *program.states, *(f"{state}_prev" for state in program.states)}
        names |= {assignment.name for assignment in program.body}
        self.elementwise = tuple(symbol(name) for name in sorted(names))
        code = [*(a.value for a in (*program.scalars, *program.body)), *program.outputs]
        self.taken = names | {a.name for a in program.scalars} | {free.name for e in code for free in e.free_symbols}
        self.names: Iterator[str] = (f"k{i}" for i in itertools.count(1))
        self.found: dict[sympy.Expr, sympy.Symbol] = {}
        body = tuple(Assignment(a.name, self.value(a.value)) for a in program.body)
        outputs = tuple(map(self.value, program.outputs))
        scalars = (*program.scalars, *(Assignment(name.name, value) for value, name in self.found.items()))
        self.program = Program(scalars, body, outputs, program.states)

    def value(self, value: sympy.Expr) -> sympy.Expr:
        """``value`` without calculations among numbers."""
        if not value.has(*self.elementwise):
            return self.number(value)
        if value.is_Atom:
            return value
        if value.is_Add:
            terms: dict[sympy.Expr, sympy.Expr] = {}
            for term in value.as_ordered_terms():
                factor, rest = term.as_independent(*self.elementwise, as_Add=False)
                terms[rest] = terms.get(rest, sympy.S.Zero) + factor
            return sympy.Add(*(self.product(factor, rest) for rest, factor in terms.items()))
        if value.is_Mul:
            return self.product(*value.as_independent(*self.elementwise, as_Add=False))
        return value.func(*map(self.value, value.args))

    def product(self, factor: sympy.Expr, rest: sympy.Expr) -> sympy.Expr:
        """``factor * rest``, a number and elementwise factors."""
        return sympy.Mul(self.number(factor), *map(self.value, sympy.Mul.make_args(rest)))

    def number(self, value: sympy.Expr) -> sympy.Expr:
        """A number, a name, or the negative of a name."""
        if value.is_Atom:
            return value
        if value.is_Mul and value.could_extract_minus_sign():
            return -self.number(-value)
        if value not in self.found:
            self.found[value] = symbol(self.named(value))
        return self.found[value]

    def named(self, value: sympy.Expr) -> str:
        """A name that says what ``value`` is where that is short, ``k1`` and so on for all others."""
        for name in (free.name for free in value.free_symbols):
            for text, known in ((f"inv_{name}", 1 / symbol(name)), (f"one_minus_{name}", 1 - symbol(name))):
                if value == known and text not in self.taken:
                    return text
        return next(name for name in self.names if name not in self.taken)
