"""The code of ``matrices: RULE; vectors: RULE`` in parts, so that each tensor takes one branch and keeps its states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import sympy

from sol_symbols import Assignment, Program, symbol

__all__ = ["MASKS", "Branches", "branches_of"]

MASKS = ("matrices", "vectors")
"""The functions that are 0 for tensors of the other number of dimensions."""


@dataclass(frozen=True)
class Branches:
    """A program whose masks are in its output alone.

    Attributes:
        common: What all tensors need.
        parts: For each of :data:`MASKS`, what only its tensors need, without the mask.
        outputs: For each of them, the output.
    """

    common: tuple[Assignment, ...]
    parts: dict[str, tuple[Assignment, ...]]
    outputs: dict[str, sympy.Expr]

    @property
    def states(self) -> dict[str, str]:
        """The mask of each name that only tensors of one branch have."""
        return {a.name: mask for mask, part in self.parts.items() for a in part}


def branches_of(program: Program) -> Branches | None:
    """The branches of a program with one output; ``None`` if it has none, or cannot be parted.

    That is so if a branch needs norms or sums, which are computed for all tensors together, or a function of numbers
    alone, as ``max(matrices(g), ld)`` is for vectors.
    """
    masks = {a.name: a.reduction.name for a in program.body if a.reduction and a.reduction.name in MASKS}
    needed: dict[str, set[str]] = defaultdict(set)  # in which branches a name is
    for name in _needs(program, program.outputs[0].free_symbols):
        needed[name] |= {*MASKS}
    for _ in program.body:  # states refer to one another in circles
        for a in reversed(program.body):
            for name in _needs(program, a.value.free_symbols):
                needed[name] |= needed[a.name] & ({masks[a.name]} if a.name in masks else {*MASKS})
    inside = [a for a in program.body if a.name not in masks]
    if not masks or any(symbol(name) in a.value.free_symbols for name in masks for a in program.body):
        return None
    common = tuple(a for a in inside if len(needed[a.name]) != 1)
    parts = {mask: tuple(a for a in inside if needed[a.name] == {mask}) for mask in MASKS}
    for a in (*parts["matrices"], *parts["vectors"]):
        if a.reduction and not a.reduction.local:  # computed for all tensors at once
            return None
    arguments = {a.name: a.value.args[0] for a in program.body if a.name in masks}
    outputs = {
        mask: program.outputs[0].xreplace(
            {symbol(name): arguments[name] if own == mask else sympy.Integer(0) for name, own in masks.items()}
        )
        for mask in MASKS
    }
    numbers = [node for value in outputs.values() for node in value.atoms(sympy.Min, sympy.Max, sympy.Function)]
    if any(program.elementwise.isdisjoint(free.name for free in node.free_symbols) for node in numbers):
        return None
    return Branches(common, parts, outputs)


def _needs(program: Program, symbols: Collection[sympy.Symbol]) -> set[str]:
    """The names, with those of states for their old values."""
    old = {f"{state}_prev": state for state in program.states}
    return {old.get(free.name, free.name) for free in symbols}
