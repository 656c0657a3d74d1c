"""The update rule: the formula of an optimizer, which can be read, stored, evaluated and exported.

A rule is an elementwise function phi of the gradient's history, and an optimizer is

    theta_t = theta_{t-1} - lr * phi(g_1..g_t, theta_{t-1}, t/T).

Rules are immutable values. Their text form is an expression, followed by the values that differ from the defaults::

    0.81*ad + 0.12*ld*sign(g) where lr = 0.0123, T = 100

A rule can have a second formula, of the weights to evaluate the model with, such as averages of the parameters:

    ad evaluate ema_weights where beta_avg = 0.99

A rule for matrices and one for vectors make one rule, as in ``matrices: orth(m); vectors: 0.1*ad``.
"""

from __future__ import annotations

import builtins
import hashlib
import itertools
import json
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import sympy

from sol_symbols.errors import RuleError, quoted
from sol_symbols.evaluation import Evaluator, State
from sol_symbols.files import write_atomically
from sol_symbols.grammar import (
    canonical,
    expand_terms,
    format_expression,
    format_number,
    parse_expression,
    symbol,
)
from sol_symbols.hoisting import hoisted
from sol_symbols.kinds import Kind, Layout
from sol_symbols.latex_printer import latex
from sol_symbols.operators import REDUCTIONS, Operator, calls
from sol_symbols.program import Assignment, Program, lower_features
from sol_symbols.storage import parts_of, read_record, read_text, require_used
from sol_symbols.vocabulary import (
    INPUTS,
    STANDARD,
    Feature,
    Hyperparameter,
    Input,
    Recurrence,
    Vocabulary,
    as_float,
    finite,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Complexity", "RuleEvaluator", "UpdateRule", "checked_rule", "evaluator", "lower", "lower_evaluation"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)


@dataclass(frozen=True)
class Complexity:
    """The size of a rule.

    Attributes:
        terms: Additive terms of the expanded expression; ``exp(ad + g)`` is one term.
        nodes: Nodes of the expression tree; a feature is a leaf.
        states: Numbers that the optimizer stores: per parameter, tensor or run, as :attr:`UpdateRule.memory` says.
    """

    terms: int
    nodes: int
    states: int


@dataclass(frozen=True)
class UpdateRule:
    """An elementwise update rule phi; the optimizer subtracts ``lr * phi`` from the parameters.

    Args:
        expression: phi as a SymPy expression or text, over the names of the vocabulary and of ``values``.
        values: Numbers for hyperparameters (``beta1``), the horizon ``T`` and named constants of the expression.
            Missing hyperparameters get their defaults; values that the expression does not use are dropped. The horizon
            may stay open (``None``) until the rule is evaluated.
        lr: Learning rate that belongs to the rule; ``None`` leaves it to the user.
        name: A name for people. Comparisons ignore it and the provenance.
        provenance: Where the rule is from, as JSON values.
        vocabulary: Defines the names.
        evaluation: Formula of the weights to evaluate with, elementwise; by default, they are the parameters. In it,
            ``w`` is the parameter after the last step, a state its value after that step, ``t`` the number of steps and
            ``lr`` the learning rate. Before the first step, the parameters are evaluated.

    Raises:
        RuleError: A name is unknown, a value is out of range, or an expression is not a finite real formula.

    >>> rule = UpdateRule.parse("0.81*ad + 0.12*sign(g)*ld where T = 100")
    >>> print(rule)
    0.81*ad + 0.12*ld*sign(g) where T = 100
    >>> rule.states
    ('m', 'v')
    >>> UpdateRule.parse(str(rule)) == rule
    True
    """

    expression: sympy.Expr
    values: Mapping[str, float | None] = field(default_factory=dict)
    lr: float | None = None
    name: str = field(default="", compare=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    vocabulary: Vocabulary = field(default=STANDARD, compare=False, repr=False)
    evaluation: sympy.Expr | None = None

    def __post_init__(self) -> None:
        given = {name: value if value is None else as_float(name, value) for name, value in dict(self.values).items()}
        expression = self._canonical(self.expression, {*given} - {*INPUTS})
        evaluation = None
        if self.evaluation is not None:
            evaluation = self._canonical(self.evaluation, {*given} - {*INPUTS}, {"lr": Kind.RUN})
            _check_evaluation(evaluation, self.vocabulary)
        both = [expression] if evaluation is None else [expression, evaluation]
        live = self.vocabulary.live(*both)
        needed = set().union(*(x.free_symbols for x in (*both, *(self.vocabulary.definitions[name] for name in live))))
        needed = {free.name for free in needed}
        values: dict[str, float | None] = {}
        for name, hyperparameter in self.vocabulary.hyperparameters.items():
            if name in needed:
                value = given.get(name, hyperparameter.default)
                if value is None:
                    raise RuleError(f"the rule has no value for {quoted(name)}; add one")
                values[name] = hyperparameter.check(value)
        if "T" in needed:
            values["T"] = _checked_horizon(given.get("T"))
        for name, value in sorted(given.items(), key=lambda item: (len(item[0]), item[0])):  # c2 before c10
            if name not in self.vocabulary.hyperparameters and name != "T":
                if not _NAME.fullmatch(name) or name in self.vocabulary.names or name == "lr" or name in calls():
                    raise RuleError(f"{quoted(name)} cannot name a constant: the name is taken or not an identifier")
                if name in needed:
                    values[name] = finite(name, value)
        lr = None if self.lr is None else as_float("lr", self.lr)
        if lr is not None and not (math.isfinite(lr) and lr > 0):
            raise RuleError(f"lr must be a positive number, got {lr!r}")
        object.__setattr__(self, "expression", expression)
        object.__setattr__(self, "evaluation", evaluation)
        object.__setattr__(self, "values", MappingProxyType(values))
        object.__setattr__(self, "lr", lr)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def _canonical(
        self, expression: sympy.Expr | str, constants: set[str], more: Mapping[str, Kind] = MappingProxyType({})
    ) -> sympy.Expr:
        """A formula without abbreviations, in canonical form."""
        names = {**dict.fromkeys(constants, Kind.RUN), **self.vocabulary.kinds, **more}
        if isinstance(expression, str):
            expression = parse_expression(expression, names)
        if not isinstance(expression, sympy.Expr):
            raise RuleError(f"the expression must be text or a SymPy expression, got {type(expression).__name__}")
        return canonical(self.vocabulary.without_abbreviations(expression), names)

    def __reduce__(self) -> tuple[Any, ...]:
        return UpdateRule.from_json, (self.to_json(),)

    # -- its parts -------------------------------------------------------------------------------------------

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UpdateRule):
            return NotImplemented
        return self.digest == other.digest

    @cached_property
    def live(self) -> tuple[str, ...]:
        """Recurrences and features that the formulas use, each after those in its own definition."""
        return self.vocabulary.live(*self._formulas)

    @property
    def _formulas(self) -> tuple[sympy.Expr, ...]:
        return (self.expression,) if self.evaluation is None else (self.expression, self.evaluation)

    @cached_property
    def averages(self) -> tuple[str, ...]:
        """The live features that only the evaluation weights use; in their definitions, ``w`` is as there."""
        if self.evaluation is None:
            return ()
        stepped = self.vocabulary.live(self.expression, *map(symbol, self.states))
        return tuple(x for x in self.vocabulary.live(self.evaluation, frozen=True) if x not in stepped)

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Names of the live states, which an optimizer stores."""
        return tuple(name for name in self.live if name in self.vocabulary.recurrences)

    @cached_property
    def terms(self) -> tuple[sympy.Expr, ...]:
        """Additive terms of the expanded expression, in the order of the text form."""
        return tuple(sympy.Add(*expand_terms(self.expression)).as_ordered_terms())

    @cached_property
    def complexity(self) -> Complexity:
        """Terms, nodes and states."""
        nodes = sum(1 for _ in sympy.preorder_traversal(self.expression))
        return Complexity(terms=len(self.terms), nodes=nodes, states=len(self.states))

    @property
    def memory(self) -> str:
        """The number of states in words.

        >>> UpdateRule.parse("g/(sqrt(v_mean) + eps)").memory
        '0 states per parameter, 1 per tensor'
        """
        kinds = [self.vocabulary.recurrences[name].kind for name in self.states]
        others = [f"{kinds.count(kind)} per {kind.label}" for kind in (Kind.TENSOR, Kind.RUN) if kind in kinds]
        count = kinds.count(Kind.COORDINATE)
        return ", ".join([f"{count} state{'s' * (count != 1)} per parameter", *others])

    @cached_property
    def needs_horizon(self) -> bool:
        """Whether the rule's schedule depends on the number of steps."""
        return "T" in self.values

    @property
    def horizon(self) -> float | None:
        """The horizon T in steps; ``None`` if the rule has none or leaves it open."""
        return self.values.get("T")

    @property
    def class_name(self) -> str:
        """The rule's name in CamelCase, for emitted source; ``Learned`` if that is no class name.

        >>> UpdateRule.parse("g", name="powersign-ld").class_name
        'PowersignLd'
        """
        words = re.findall(r"[A-Za-z0-9]+", self.name)
        name = "".join(word[0].upper() + word[1:] for word in words)
        taken = keyword.iskeyword(name) or hasattr(builtins, name) or hasattr(builtins, name.lower())
        return name if name.isidentifier() and not taken else "Learned"

    def with_horizon(self, horizon: float) -> UpdateRule:
        """The same rule with its schedule over ``horizon`` steps; the rule itself if it has no schedule."""
        return replace(self, values={**self.values, "T": horizon}) if self.needs_horizon else self

    def with_weight_decay(self, wd: float, schedule: sympy.Expr | int = 1) -> UpdateRule:
        """The same rule with decoupled weight decay: it adds ``wd*w`` to phi, so that a step shrinks w by ``lr*wd*w``.

        If the rule has a ``wd`` already, that gets the value.

        Args:
            wd: Weight decay.
            schedule: A factor of it, such as the linear decay ``symbol("ld")``.

        >>> str(UpdateRule.parse("ad").with_weight_decay(0.1))
        'ad + w*wd where wd = 0.1'
        """
        decay = 0 if "wd" in self.values else symbol("wd") * symbol("w") * schedule
        return replace(self, expression=self.expression + decay, values={**self.values, "wd": wd})

    def with_numbered_constants(self, prefix: str = "c") -> UpdateRule:
        """The same rule with the constants of its expression replaced by named ones, ``c1``, ``c2``, ...

        These are its floats and, if it has any, the integer coefficients, which are floats that happen to be
        integral. All other integers and fractions belong to the formula's structure and stay. Names that the rule has
        already are left out.
        """
        taken = {free.name for free in self.expression.free_symbols} | {*self.values} | {*self.vocabulary.names}
        fresh = (symbol(f"{prefix}{i}") for i in itertools.count(1) if f"{prefix}{i}" not in taken)
        names: dict[float, sympy.Symbol] = {}

        def named(node: sympy.Expr) -> sympy.Expr:
            number, rest = (node, sympy.Integer(1)) if node.is_Float else node.as_coeff_Mul()
            if number.is_Float or (number.is_Integer and abs(number) != 1 and rest != 1):
                name = names.get(abs(float(number))) or names.setdefault(abs(float(number)), next(fresh))
                return (name if number > 0 else -name) * named(rest)
            return node.func(*map(named, node.args)) if node.args else node

        if not self.expression.has(sympy.Float):
            return self
        expression = sympy.Add(*map(named, self.expression.as_ordered_terms()))
        values = {name.name: number for number, name in names.items()}
        return replace(self, expression=expression, values={**self.values, **values})

    # -- what it computes ------------------------------------------------------------------------------------

    def evaluate(
        self,
        gradients: ArrayLike,
        parameters: ArrayLike | None = None,
        horizon: float | None = None,
        layout: Layout | None = None,
        losses: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """The updates phi_1..phi_n for the gradients g_1..g_n. This defines the rule's meaning, on NumPy.

        States have their initial values before the first gradient. To run step by step, or with PyTorch or JAX, use
        :func:`sol_symbols.evaluator`. Values that are not finite follow IEEE arithmetic: ``exp`` overflows to inf,
        0/0 is nan, sign(nan) is nan.

        Args:
            gradients: Shape [n, ...]: one gradient per step, elementwise. Integers are converted to float64.
            parameters: Values w_0..w_{n-1} at which the gradients were computed, of a shape that broadcasts to
                that of the gradients; required if the rule uses ``w``.
            horizon: Replaces the rule's own horizon T.
            layout: The tensors along the last axis of the gradients, for rules with reductions; by default, each
                gradient is one tensor.
            losses: Loss of each step, [n]; required if the rule uses ``loss``.

        Returns:
            Shape and type of the gradients. The optimizer's steps are ``-lr`` times these.

        Raises:
            RuleError: The horizon is open, ``w`` or ``loss`` is used and missing, or the shapes do not match.

        >>> UpdateRule.parse("ld*sign(g) where T = 4").evaluate([2.0, -3.0, 0.5]).tolist()
        [0.75, -0.5, 0.25]
        """
        return _trajectory(self, gradients, parameters, horizon, layout, losses)

    # -- text and JSON ---------------------------------------------------------------------------------------

    def __str__(self) -> str:
        given = {"lr": self.lr} if self.lr is not None else {}
        for name, value in self.values.items():
            hyperparameter = self.vocabulary.hyperparameters.get(name)
            if value is not None and (hyperparameter is None or value != hyperparameter.default):
                given[name] = value
        where = ", ".join(f"{name} = {format_number(value)}" for name, value in given.items())
        weights = "" if self.evaluation is None else f" evaluate {format_expression(self.evaluation)}"
        return format_expression(self.expression) + weights + (f" where {where}" if where else "")

    @classmethod
    def parse(cls, text: str, vocabulary: Vocabulary = STANDARD, **attributes: Any) -> UpdateRule:
        """Read a rule's text form; see :func:`sol_symbols.parse_expression` for the grammar of expressions.

        Args:
            text: ``EXPRESSION`` or ``EXPRESSION where NAME = NUMBER, ...``; ``lr`` among the names is the rule's
                learning rate, ``T`` its horizon, names that are not in the vocabulary are constants of the expression.
                Evaluation weights follow the expression: ``EXPRESSION evaluate WEIGHTS where ...``.
                ``matrices: RULE; vectors: RULE`` has two rules, for :meth:`by_shape`.
            vocabulary: Defines the names.
            attributes: Passed to the constructor (``name``, ``provenance``).

        Raises:
            RuleError: The text is not a rule; the message shows where.
        """
        parts = parts_of(text)
        if parts is not None:
            return cls.by_shape(**{name: cls.parse(part, vocabulary) for name, part in parts.items()}, **attributes)
        rule = cls(**read_text(text, vocabulary), **attributes)
        require_used(text, rule.values)
        return rule

    @classmethod
    def by_shape(cls, matrices: UpdateRule, vectors: UpdateRule, **attributes: Any) -> UpdateRule:
        """One rule for parameters of two or more dimensions, and another one for all others.

        Where the learning rates differ, the result has that of ``matrices``, and the ratio is a factor in the part for
        vectors. A learning rate, horizon or constant that one of them lacks is that of the other.

        Args:
            matrices, vectors: The two rules.
            attributes: Passed to the constructor (``name``, ``provenance``).

        Raises:
            RuleError: They have different horizons or evaluation weights, share a state with different decay rates, or
                use one name with different definitions.

        >>> adam, muon = UpdateRule.parse("ad where lr = 0.003"), UpdateRule.parse("orth(m) where lr = 0.01")
        >>> print(UpdateRule.by_shape(matrices=muon, vectors=adam))
        matrices(orth(m)) + vectors(0.3*ad) where lr = 0.01
        """
        if checked_rule(matrices).evaluation is not None or checked_rule(vectors).evaluation is not None:
            raise RuleError("a rule by kind of parameter cannot have evaluation weights")
        given = [{name: x for name, x in rule.values.items() if x is not None} for rule in (matrices, vectors)]
        values, own = {**vectors.values, **given[1], **given[0]}, dict[sympy.Symbol, sympy.Expr]()
        shared = {free for x in vectors.live for free in vectors.vocabulary.definitions[x].free_symbols} | {symbol("T")}
        for name in sorted(given[0].keys() & given[1].keys()):
            first, second = (numbers[name] for numbers in given)
            if first == second:
                continue
            if symbol(name) in shared:
                raise RuleError(
                    f"{name} is {format_number(first)} for matrices and {format_number(second)} for vectors, which"
                    " share what follows from it: give both the same"
                )
            own[symbol(name)] = sympy.Float(second)
        vocabulary = _merged(matrices, vectors)
        lr = vectors.lr if matrices.lr is None else matrices.lr
        factor = vectors.lr / matrices.lr if matrices.lr and vectors.lr else 1.0
        rest = sympy.Float(factor) * vectors.expression.xreplace(own)
        phi = REDUCTIONS["matrices"](matrices.expression) + REDUCTIONS["vectors"](sympy.expand(rest))
        return cls(phi, values, lr, vocabulary=vocabulary, **attributes)

    def latex(self, digits: int | None = None) -> str:
        r"""LaTeX of phi on one line, floats rounded to ``digits`` significant digits (all of them by default).

        >>> print(UpdateRule.parse("0.5*m_hat + sign(g)").latex())
        0.5 \hat m_t + \operatorname{sign}\left(g_t\right)
        """
        return latex(self.expression, digits, self.vocabulary)

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle \phi_t = {self.latex(4)}$"

    def to_json(self) -> str:
        """The JSON form. It is self-contained: it includes the definitions that the rule uses."""
        return json.dumps(self._record() | {"name": self.name, "provenance": dict(self.provenance)}, indent=2) + "\n"

    def _record(self) -> dict[str, Any]:
        texts = {name: format_expression(self.vocabulary.definitions[name]) for name in self.live}
        weights = {} if self.evaluation is None else {"evaluation": format_expression(self.evaluation)}
        return {
            "schema": self._schema,
            "expression": format_expression(self.expression),
            **weights,
            "lr": self.lr,
            "values": dict(sorted(self.values.items())),
            "states": {name: self._stored(name, texts[name]) for name in self.states},
            "features": {name: texts[name] for name in self.live if name not in self.states},
        }

    def _stored(self, name: str, update: str) -> dict[str, Any]:
        state = self.vocabulary.recurrences[name]
        kind = {} if state.kind is Kind.COORDINATE else {"kind": state.kind.label}
        return {"init": state.init, "update": update, **kind}

    @cached_property
    def calls(self) -> tuple[Operator, ...]:
        """The functions that the rule or its definitions call: reductions and operators that are SymPy functions."""
        code = [*self._formulas, *(self.vocabulary.definitions[name] for name in self.live)]
        functions = {node.func for value in code for node in value.atoms(sympy.Function, sympy.Min, sympy.Max)}
        return tuple(operator for operator in calls().values() if operator.function in functions)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs that the rule or its definitions use."""
        code = [*self._formulas, *(self.vocabulary.definitions[name] for name in self.live)]
        names = {free.name for value in code for free in value.free_symbols}
        return tuple(entry for name, entry in INPUTS.items() if name in names)

    @cached_property
    def _schema(self) -> int:
        """The oldest version of the JSON form that can hold the rule."""
        found = [x.schema for x in self.calls] + [x.schema for x in self.inputs]
        kinds = {self.vocabulary.recurrences[name].kind for name in self.states}
        return max([*found, 1 if kinds <= {Kind.COORDINATE} else 2, 1 if self.evaluation is None else 3], default=1)

    @classmethod
    def from_json(cls, text: str) -> UpdateRule:
        """Read the JSON form.

        Raises:
            RuleError: The text is not JSON, not a rule, or of another schema than this release reads.
        """
        return cls(**read_record(text))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rule's meaning: its formula, definitions and values, but not its name."""
        return hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the JSON form to ``path``, atomically."""
        write_atomically(path, self.to_json())


def _merged(matrices: UpdateRule, vectors: UpdateRule) -> Vocabulary:
    """The vocabulary of ``matrices``, with the definitions and hyperparameters that ``vectors`` uses."""
    known, added = matrices.vocabulary, vectors.vocabulary
    if known is added:
        return known
    first, second = _meanings(matrices), _meanings(vectors)
    for name in sorted(first.keys() & second.keys()):
        if first[name] != second[name]:
            both = f"{quoted(first[name])} for matrices and {quoted(second[name])} for vectors"
            raise RuleError(f"{quoted(name)} stands for {both}: rename one of the two")
    entries: list[Hyperparameter | Recurrence | Feature] = []
    for name in second:
        if name in added.hyperparameters and not (name in first and name in known.hyperparameters):
            entries.append(added.hyperparameters[name])
        elif name in added.definitions and name not in first:
            text = format_expression(added.definitions[name])  # in full: the vocabularies' abbreviations can differ
            state = added.recurrences.get(name)
            entries.append(replace(state, update=text) if state else replace(added.features[name], definition=text))
    return known.extended(*entries)


def _meanings(rule: UpdateRule) -> dict[str, str]:
    """The definitions that a rule uses as text, and its numbers."""
    texts = dict.fromkeys(rule.values, "a number")
    for name in rule.live:
        texts[name] = format_expression(rule.vocabulary.definitions[name])
        if name in rule.states:
            state = rule.vocabulary.recurrences[name]
            texts[name] += f", from {state.init!r} per {state.kind.label}"
    return texts


def _checked_horizon(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 1):
        raise RuleError(f"the horizon T must be a finite number of steps, at least 1, got {value!r}")
    return value


def _check_evaluation(evaluation: sympy.Expr, vocabulary: Vocabulary) -> None:
    """Refuse formulas of evaluation weights that need what there is only within a step, or whole tensors."""
    program = _frozen(evaluation, vocabulary)
    code = [*(a for a in program.body if a.name not in program.states), *program.scalars]
    used = {name for a in (*code, Assignment("", program.outputs[0])) for name in a.needs}
    for name in ("g", "T", "loss", *(f"{state}_prev" for state in vocabulary.recurrences)):
        if name in used:
            raise RuleError(f"evaluation weights cannot use {name}: use w, states, t, lr and hyperparameters")
    if program.reduces:
        raise RuleError("evaluation weights cannot use whole tensors, or states of tensors: they are elementwise")
    if not program.states:
        raise RuleError("evaluation weights must use a state, such as w_avg: without one, they are not needed")


def _frozen(evaluation: sympy.Expr, vocabulary: Vocabulary, expand: bool = True) -> Program:
    return lower_features((evaluation,), vocabulary, expand, frozen=True)


def checked_rule(rule: UpdateRule) -> UpdateRule:
    """``rule``, or a :class:`RuleError` if it is something else, such as a rule's text."""
    if not isinstance(rule, UpdateRule):
        raise RuleError(f"rule must be an UpdateRule, got {quoted(rule)}: resolve_rule reads texts and paths")
    return rule


def lower_evaluation(rule: UpdateRule, expand: bool = True) -> Program:
    """The straight-line code of the rule's evaluation weights; states keep their values.

    Raises:
        RuleError: The rule has none.
    """
    if rule.evaluation is None:
        raise RuleError(f"the rule {rule} has no evaluation weights")
    return _frozen(rule.evaluation, rule.vocabulary, expand)


def lower(rule: UpdateRule, expand: bool = True, clock: str = "t") -> Program:
    """The straight-line code of ``rule``; its only output is phi.

    Without ``expand``, ``inv0`` and ``step`` stay. ``clock`` is the name of the step in schedules, as in ``t/T``; a
    parameter that is frozen at first counts its own steps ``t`` from its first gradient.
    """
    rule = checked_rule(rule)
    return lower_features((rule.expression,), rule.vocabulary, expand, clock, rule.states)


class RuleEvaluator(Evaluator):
    """An :class:`Evaluator` of one rule, with the rule's own values filled in."""

    def __init__(
        self,
        rule: UpdateRule,
        xp: ModuleType | None = None,
        horizon: float | None = None,
        hoist: bool = False,
        layout: Layout | None = None,
    ) -> None:
        if checked_rule(rule).needs_horizon and rule.horizon is None and horizon is None:
            raise RuleError(f"the rule {rule} has a schedule: set its horizon T, the number of steps")
        program = lower(rule)
        super().__init__(hoisted(program) if hoist else program, xp, layout)
        self._weights = None if rule.evaluation is None else Evaluator(lower_evaluation(rule), xp, layout)
        self.values: dict[str, Any] = dict(rule.values) if horizon is None else dict(rule.with_horizon(horizon).values)

    def __call__(self, g: Any, state: State, w: Any, t: int, loss: Any = None) -> tuple[Any, State]:
        """phi at this step and the new state; see :meth:`Evaluator.step`."""
        (phi,), state = self.step(g, state, w, t, self.values, loss)
        return phi, state

    def weights(
        self, state: State, w: Any, t: int, lr: float | None = None, values: Mapping[str, Any] | None = None
    ) -> Any:
        """The weights to evaluate with, after ``t`` steps.

        Args:
            state: After the last step.
            w: Parameter value after the last step.
            t: Number of steps.
            lr: Learning rate; can be missing if the formula does not use it.
            values: Hyperparameters and constants; by default, the rule's.

        Raises:
            RuleError: The formula uses the learning rate, and there is none.
        """
        if self._weights is None or t == 0:
            return w
        if lr is None and self._weights.program.uses("lr"):
            raise RuleError("the evaluation weights use the learning rate: pass lr")
        kept = {name: state[name] for name in self._weights.program.states}
        known = self.values if values is None else values
        (weights,), _ = self._weights.step(w, kept, w, t, {**known, "lr": lr})
        return weights


def evaluator(
    rule: UpdateRule,
    xp: ModuleType | None = None,
    horizon: float | None = None,
    hoist: bool = False,
    layout: Layout | None = None,
) -> RuleEvaluator:
    """An evaluator of ``rule``; on NumPy it defines what the rule means.

    Args:
        rule: The rule.
        xp: ``numpy`` (the default), ``torch`` or ``jax.numpy``.
        horizon: Replaces the rule's own horizon T.
        hoist: Whether to collect like terms first (:func:`sol_symbols.hoisted`): equal up to rounding where all values
            are finite, in fewer passes over the arrays. Without it, the expression is evaluated as written.
        layout: The tensors along the last axis; by default, an array is one tensor. See :class:`sol_symbols.Evaluator`.

    Raises:
        RuleError: The rule has a schedule, and neither the rule nor the call sets its horizon.

    >>> import numpy as np
    >>> from sol_symbols import UpdateRule
    >>> phi = evaluator(UpdateRule.parse("sign(g)"))
    >>> phi(np.array([-2.0, 0.0, 3.0]), {}, None, 1)[0].tolist()
    [-1.0, 0.0, 1.0]
    """
    return RuleEvaluator(rule, xp, horizon, hoist, layout)


def _trajectory(
    rule: UpdateRule,
    gradients: ArrayLike,
    parameters: ArrayLike | None = None,
    horizon: float | None = None,
    layout: Layout | None = None,
    losses: ArrayLike | None = None,
) -> NDArray[Any]:
    """The updates along a trajectory; see :meth:`sol_symbols.UpdateRule.evaluate`."""
    import numpy

    g = numpy.asarray(gradients)
    if g.ndim == 0 or not (numpy.issubdtype(g.dtype, numpy.floating) or numpy.issubdtype(g.dtype, numpy.integer)):
        raise RuleError(f"gradients must be real numbers of shape [steps, ...], got {g.dtype} of shape {[*g.shape]}")
    g = g if numpy.issubdtype(g.dtype, numpy.floating) else g.astype(float)
    if layout is not None and g.shape[-1:] != (sum(layout.sizes),):
        raise RuleError(f"the layout has {sum(layout.sizes)} coordinates, and gradients are of shape {[*g.shape]}")
    phi = evaluator(rule, horizon=horizon, layout=layout)
    if parameters is None and phi.program.uses("w"):
        raise RuleError(f"the rule {rule} uses the parameter's value w: pass parameters")
    given = numpy.asarray(0 if parameters is None else parameters, g.dtype)
    try:
        w = numpy.broadcast_to(given, g.shape)
    except ValueError:
        raise RuleError(
            f"parameters of shape {[*given.shape]} do not broadcast to gradients of shape {[*g.shape]}"
        ) from None
    if losses is None and phi.program.uses("loss"):
        raise RuleError(f"the rule {rule} uses the loss: pass losses, one for each step")
    measured = None if losses is None else numpy.asarray(losses, float)
    if measured is not None and measured.shape != g.shape[:1]:
        raise RuleError(f"losses must be {len(g)} numbers, one for each step; got the shape {[*measured.shape]}")
    updates = numpy.empty_like(g)
    state = phi.init(g[0]) if len(g) else {}
    with numpy.errstate(all="ignore"):
        for t in range(len(g)):
            loss = None if measured is None else float(measured[t])
            updates[t], state = phi(g[t], state, w[t], t + 1, loss)
    return updates
