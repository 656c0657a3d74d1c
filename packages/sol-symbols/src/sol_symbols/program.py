"""A rule as straight-line code, which evaluation and the exporters walk through.

scalars  numbers that depend only on the step and the hyperparameters (bias corrections, decays)
body     states, features and reductions, each after the names it uses; most are elementwise over the parameters
outputs  phi, or several expressions, elementwise
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import sympy

from sol_symbols.grammar import symbol
from sol_symbols.intervals import Bound
from sol_symbols.kinds import Kind
from sol_symbols.operators import Reduction, expanded, kind_of, operator_of
from sol_symbols.vocabulary import INPUTS, Vocabulary

_CALLS = (sympy.Function, sympy.Min, sympy.Max, sympy.Pow)

__all__ = ["Assignment", "Program", "lower_features", "scheduled"]


@dataclass(frozen=True)
class Assignment:
    """``name = value``."""

    name: str
    value: sympy.Expr

    @property
    def needs(self) -> tuple[str, ...]:
        """Names in the value, sorted."""
        return tuple(sorted(free.name for free in self.value.free_symbols))

    @property
    def reduction(self) -> Reduction | None:
        """The reduction that the value is, of names; ``None`` if it is elementwise."""
        return reduction_of(self.value)


@dataclass(frozen=True)
class Program:
    """Straight-line code of one optimizer step.

    Attributes:
        scalars: Computed once per step, in this order.
        body: Computed in this order; names in ``states`` are new values of states. A value is either free of
            reductions or one reduction of names.
        outputs: The results, elementwise.
        states: Initial value of each state by name.
        state_kinds: Kinds of the states that are not stored per coordinate.
    """

    scalars: tuple[Assignment, ...]
    body: tuple[Assignment, ...]
    outputs: tuple[sympy.Expr, ...]
    states: dict[str, float]
    state_kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def elementwise(self) -> frozenset[str]:
        """Names of quantities that differ between coordinates, or follow from such; all other names are numbers."""
        inputs = (entry.name for entry in INPUTS.values() if entry.array)
        return frozenset({*inputs, *(a.name for a in self.body), *(f"{name}_prev" for name in self.states)})

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """The kind of each name in :attr:`elementwise`."""
        kinds: dict[str, Kind] = {entry.name: entry.kind for entry in INPUTS.values() if entry.array}
        for name in self.states:
            kinds |= dict.fromkeys((name, f"{name}_prev"), self.state_kinds.get(name, Kind.COORDINATE))
        for a in self.body:
            kinds.setdefault(a.name, kind_of(a.value, kinds))
        return kinds

    @cached_property
    def reduces(self) -> bool:
        """Whether the code has functions of whole tensors, or values of their kinds."""
        lower = any(kind is not Kind.COORDINATE for name, kind in self.kinds.items() if self.uses(name))
        return lower or any(a.reduction for a in self.body)

    def uses(self, name: str) -> bool:
        """Whether the code uses ``name``."""
        everything = [*(a.value for a in (*self.scalars, *self.body)), *self.outputs]
        return any(symbol(name) in value.free_symbols for value in everything)


def reduction_of(value: sympy.Expr) -> Reduction | None:
    """The reduction that ``value`` is a call of."""
    operator = operator_of(value.func) if value.is_Function else None
    return operator if isinstance(operator, Reduction) else None


def lower_features(
    expressions: tuple[sympy.Expr, ...],
    vocabulary: Vocabulary,
    expand: bool = True,
    clock: str = "t",
    states: tuple[str, ...] = (),
    frozen: bool = False,
) -> Program:
    """Straight-line code for several expressions over one vocabulary; shared definitions are computed once.

    Args:
        expressions: The outputs.
        vocabulary: Defines their names.
        expand: Whether to replace operators with a definition, such as ``inv0``, by their definitions.
        clock: Name of the step in schedules, which compare it with the horizon, as in ``t/T``.
        states: States to update even if the expressions do not use them.
        frozen: Whether states keep their values.
    """
    live = vocabulary.live(*expressions, *map(symbol, states), frozen=frozen)
    definitions = {name: (vocabulary.frozen if frozen else vocabulary.definitions)[name] for name in live}
    if clock != "t":
        definitions = {name: _clocked(value, symbol(clock)) for name, value in definitions.items()}
        expressions = tuple(_clocked(value, symbol(clock)) for value in expressions)
    if expand:
        definitions = {name: expanded(value) for name, value in definitions.items()}
        expressions = tuple(map(expanded, expressions))
    elementwise = {symbol(entry.name) for entry in INPUTS.values() if entry.array}
    elementwise |= {symbol(name + suffix) for name in vocabulary.recurrences for suffix in ("", "_prev")}
    scalars: list[Assignment] = []
    body: list[Assignment] = []
    definitions = {name: _inlined(value, elementwise) for name, value in definitions.items()}
    expressions = tuple(_inlined(value, elementwise) for value in expressions)
    for name, value in definitions.items():
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
    inits = {a.name: vocabulary.recurrences[a.name].init for a in body if a.name in vocabulary.recurrences}
    kinds = {name: vocabulary.recurrences[name].kind for name in inits}
    kinds = {name: kind for name, kind in kinds.items() if kind is not Kind.COORDINATE}
    program = Program(tuple(scalars), tuple(body), outputs, inits, kinds)
    return _Reductions(program, taken).program() if _reducing(program) else program


def _inlined(value: sympy.Expr, elementwise: Collection[sympy.Symbol]) -> sympy.Expr:
    """``value`` with definitions in place of calls that mix arrays and numbers, which emitted code cannot."""
    if not value.args:
        return value
    arguments = [_inlined(argument, elementwise) for argument in value.args]
    operator = operator_of(value.func) if value.is_Function else None
    sorts = {None if x.is_number else not x.free_symbols.isdisjoint(elementwise) for x in arguments}
    if operator is not None and operator.definition is not None and len(sorts) > 1:
        return _inlined(operator.definition(*arguments), elementwise)
    return value if tuple(arguments) == value.args else value.func(*arguments)


def _clocked(value: sympy.Expr, clock: sympy.Symbol) -> sympy.Expr:
    """``value`` with the name ``clock`` for the step wherever it meets the horizon: in t/T, but not in beta1**t."""
    t, horizon = symbol("t"), symbol("T")
    if not {t, horizon} <= value.free_symbols:
        return value
    arguments = []
    for argument in value.args:
        alone = argument.free_symbols == {t}
        if not alone:
            argument = _clocked(argument, clock)
        elif _grows(argument):
            argument = argument.xreplace({t: clock})
        arguments.append(argument)
    return value.func(*arguments)


def _grows(value: sympy.Expr) -> bool:
    """Whether a factor of the step alone, or its inverse, grows with it: t - 1 and 1/t do; step(t - 1) does not."""
    if value.is_Mul:
        return any(map(_grows, value.args))
    if value.is_Pow:
        return value.exp.is_number and _grows(value.base)
    from sol_symbols.bounds import enclose  # loads NumPy, which a rule does not need

    return enclose(value, {"t": Bound(1, math.inf)}).size == math.inf


def _reducing(program: Program) -> bool:
    values = [*(a.value for a in program.body), *program.outputs]
    inputs = {symbol(x.name) for x in INPUTS.values() if x.array and x.kind is not Kind.COORDINATE}
    calls = (call for value in values for call in value.atoms(sympy.Function))
    return bool(program.state_kinds or any(v.free_symbols & inputs for v in values) or any(map(reduction_of, calls)))


class _Reductions:
    """Names reductions, their arguments, and what coordinates are multiplied by or added to."""

    def __init__(self, program: Program, taken: Iterable[str]) -> None:
        self._program = program
        self._taken = {*taken, *program.elementwise, *(a.name for a in program.scalars)}
        self._names: dict[sympy.Expr, sympy.Symbol] = {}
        self._body: list[Assignment] = []
        self._kinds: dict[str, Kind] = dict(program.kinds)

    def program(self) -> Program:
        for a in self._program.body:
            self._body.append(Assignment(a.name, self._named(a.value)))
        outputs = tuple(self._named(value) for value in self._program.outputs)
        # An argument can occur elsewhere, too.
        arguments = {value: name for value, name in self._names.items() if not reduction_of(value)}
        body = [a if a.name in {n.name for n in arguments.values()} else self._reuse(a, arguments) for a in self._body]
        outputs = tuple(_outermost(value, arguments) for value in outputs)
        old = self._program
        return Program(old.scalars, scheduled(body), outputs, old.states, old.state_kinds)

    @staticmethod
    def _reuse(a: Assignment, arguments: Mapping[sympy.Expr, sympy.Symbol]) -> Assignment:
        return Assignment(a.name, _outermost(a.value, arguments))

    def _kind(self, value: sympy.Expr) -> Kind:
        return kind_of(value, self._kinds)

    def _named(self, value: sympy.Expr) -> sympy.Expr:
        """``value`` with names in place of reductions."""
        if not value.args:
            return value
        arguments = [self._named(argument) for argument in value.args]
        reduction = reduction_of(value)
        if reduction is not None:
            arguments = [x if x.is_Symbol else self._name(x, "x") for x in arguments]
            words = "_".join([reduction.name, *dict.fromkeys(x.name for x in arguments)])
            return self._name(value.func(*arguments), words)
        value = value if tuple(arguments) == value.args else value.func(*arguments)
        if (value.is_Mul or value.is_Add) and self._kind(value) is Kind.COORDINATE:
            return self._collected(value)
        return value

    def _collected(self, value: sympy.Expr) -> sympy.Expr:
        """A sum or product whose parts of kind tensor are one name."""
        low = [x for x in value.args if self._kind(x) is not Kind.COORDINATE]
        arrays = self._program.elementwise | {*self._kinds}
        if len(low) < 2 and not any(x.args for x in low):
            return value
        part = value.func(*low)
        if not any(free.name in arrays for free in part.free_symbols):
            return value
        return value.func(*(x for x in value.args if x not in low), self._name(part, "f"))

    def _name(self, value: sympy.Expr, words: str) -> sympy.Symbol:
        if value not in self._names:
            numbered = (f"{words}{i}" for i in itertools.count(1))
            names: Iterator[str] = itertools.chain([words] if len(words) > 1 else [], numbered)
            name = next(name for name in names if name not in self._taken)
            self._taken.add(name)
            self._names[value] = symbol(name)
            self._kinds[name] = self._kind(value)
            self._body.append(Assignment(name, value))
        return self._names[value]


def _outermost(value: sympy.Expr, names: Mapping[sympy.Expr, sympy.Symbol]) -> sympy.Expr:
    if value in names:
        return names[value]
    arguments = [_outermost(argument, names) for argument in value.args]
    return value if tuple(arguments) == value.args else value.func(*arguments)


def scheduled(body: Sequence[Assignment]) -> tuple[Assignment, ...]:
    """``body`` in as few rounds of reductions as possible: all that need no reduction first, and so on."""
    level: dict[str, int] = {}
    for a in _ordered(body):
        level[a.name] = max((level.get(need, 0) for need in a.needs), default=0) + (a.reduction is not None)

    def place(a: Assignment) -> tuple[int, bool, int]:
        return level[a.name], a.reduction is None, -a.reduction.gives if a.reduction else 0

    return tuple(sorted(_ordered(body), key=place))


def _ordered(body: Sequence[Assignment]) -> list[Assignment]:
    """``body`` with each assignment after those it needs."""
    waiting, done, names = list(body), list[Assignment](), {a.name for a in body}
    while waiting:
        known = {a.name for a in done}
        ready = next((a for a in waiting if not (({*a.needs} & names) - known - {a.name})), None)
        if ready is None:
            raise AssertionError("definitions in a circle")
        done.append(ready)
        waiting.remove(ready)
    return done
