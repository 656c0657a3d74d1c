"""Elementwise code in few passes: numbers are computed once per step, and nothing is computed twice."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import sympy

from sol_symbols.grammar import symbol
from sol_symbols.program import Assignment, Program, scheduled

__all__ = ["hoisted"]


def hoisted(program: Program) -> Program:
    """``program`` with like terms collected and no arithmetic on numbers in its elementwise code.

    Coefficients such as ``1 - beta1`` and ``1/bc1`` become scalars.

    (a·c - b·d)·x instead of a·c·x - b·d·x: equal up to rounding, in fewer passes over x. An expression that occurs
    twice gets a name (``denom`` if it is a divisor).
    """
    return _shared(_Hoist(program).program)


def _shared(program: Program) -> Program:
    """``program`` with every repeated elementwise expression computed once."""
    body = [*program.body, *(Assignment("", value) for value in program.outputs)]
    while (repeated := _largest_repeated(body)) is not None:
        taken = {a.name for a in (*program.scalars, *body)}.union(*(a.needs for a in body))
        divides = any(1 / repeated in a.value.atoms(sympy.Pow) for a in body)
        names = (*(["denom"] if divides else []), *(f"x{i}" for i in range(1, len(taken) + 2)))
        name = next(name for name in names if name not in taken)
        first = next(i for i, a in enumerate(body) if a.value.has(repeated))
        first = min(first, len(body) - len(program.outputs))  # ahead of all outputs
        body = [Assignment(a.name, a.value.xreplace({repeated: symbol(name)})) for a in body]
        body.insert(first, Assignment(name, repeated))
    count = len(body) - len(program.outputs)
    code = scheduled(body[:count]) if program.reduces else tuple(body[:count])
    return replace(program, body=code, outputs=tuple(a.value for a in body[count:]))


def _largest_repeated(body: Sequence[Assignment]) -> sympy.Expr | None:
    """The largest expression that occurs twice. Reciprocals do not count: divisions stay divisions."""
    counts = collections.Counter(node for a in body for node in sympy.preorder_traversal(a.value))
    repeated = [node for node, n in counts.items() if n > 1 and not (node.is_Atom or (node.is_Pow and node.exp == -1))]
    return max(repeated, key=sympy.count_ops, default=None)


class _Hoist:
    def __init__(self, program: Program) -> None:
        names = program.elementwise
        self.elementwise = tuple(symbol(name) for name in sorted(names))
        code = [*(a.value for a in (*program.scalars, *program.body)), *program.outputs]
        self.taken = names | {a.name for a in program.scalars} | {free.name for e in code for free in e.free_symbols}
        self.names: Iterator[str] = (f"k{i}" for i in itertools.count(1))
        self.found: dict[sympy.Expr, sympy.Symbol] = {}
        body = tuple(Assignment(a.name, self.value(a.value)) for a in program.body)
        outputs = tuple(map(self.value, program.outputs))
        scalars = (*program.scalars, *(Assignment(name.name, value) for value, name in self.found.items()))
        self.program = replace(program, scalars=scalars, body=body, outputs=outputs)

    def value(self, value: sympy.Expr) -> sympy.Expr:
        """``value`` without arithmetic on numbers."""
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
        """A telling name if there is a short one (``inv_bc1``, ``one_minus_beta1``), else ``k1`` and so on."""
        for name in (free.name for free in value.free_symbols):
            for text, known in ((f"inv_{name}", 1 / symbol(name)), (f"one_minus_{name}", 1 - symbol(name))):
                if value == known and text not in self.taken:
                    return text
        return next(name for name in self.names if name not in self.taken)
