"""The names that a rule can use: inputs, hyperparameters, states and features.

Inputs at inner step t (counted from 1):

========  ===========================================================
``g``     gradient of the loss at the parameter, elementwise
``w``     the parameter's value
``t``     number of this step, 1 at the first
``T``     horizon: the number of steps of a schedule
========  ===========================================================

and, per tensor, ``fan_in`` and ``is_vector``. Every value is of a :class:`~sol_symbols.kinds.Kind`.

A state ``s`` is a recurrence: in an expression, ``s`` is its value after this step's update and ``s_prev`` its value
before. A feature is a named expression over inputs, hyperparameters, states and other features.

``m`` and ``v`` are the raw moving averages of Adam, ``m_hat`` and ``v_hat`` the bias-corrected ones; the features "m"
and "v" of the SOL paper are ``m_hat`` and ``sqrt(v_hat)`` here.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import sympy

from sol_symbols.errors import RuleError, quoted
from sol_symbols.grammar import canonical, parse_expression, symbol
from sol_symbols.kinds import Kind
from sol_symbols.operators import calls, kind_of

__all__ = ["INPUTS", "STANDARD", "Feature", "Hyperparameter", "Input", "Recurrence", "Vocabulary", "as_float", "finite"]

MAX_DEPTH = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)
_INDEX = re.compile(r"_t(?![A-Za-z])|(?<=[,{])t(?=[,}])")  # the t of m_t and of c_{1,t}


def as_float(name: str, value: float) -> float:
    """``value`` as a float; a :class:`RuleError` that names it ``name`` if the integer is too large."""
    try:
        return float(value) + 0.0  # -0 is 0: it prints like it
    except OverflowError:
        raise RuleError(f"{name} is beyond the range of float64") from None


def _check_texts(entry: Hyperparameter | Recurrence | Feature, *names: str) -> None:
    """Refuse an entry whose attributes of these names are not texts."""
    for name in names:
        value = getattr(entry, name)
        if not isinstance(value, str):
            raise RuleError(f"the {name} of a {type(entry).__name__} must be text, got {quoted(value)}")


def finite(name: str, value: float | None) -> float:
    """``value``; a :class:`RuleError` that names it ``name`` if it is not a finite number."""
    if value is None or not math.isfinite(value):
        raise RuleError(f"{name} = {value!r} is not a finite number")
    return value


@dataclass(frozen=True)
class Input:
    """A number that the optimizer receives at every step.

    Attributes:
        name: Its name in expressions.
        description: One line for a person.
        latex: Its symbol in LaTeX.
        kind: How many numbers it has.
        schema: The first version of the JSON form that has it.
        array: Whether it is an array, and not a number that is known before the step.
    """

    name: str
    description: str
    latex: str
    kind: Kind = Kind.RUN
    schema: int = 1
    array: bool = True


INPUTS: Mapping[str, Input] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Input("g", "gradient", "g_t", Kind.COORDINATE),
            Input("w", "parameter value", r"\theta_{t-1}", Kind.COORDINATE),
            Input("t", "step, counted from 1", "t", array=False),
            Input("T", "horizon in steps", "T", array=False),
            Input("loss", "loss of the step's batch, which the optimizer has to be given", r"\mathcal{L}_t", schema=5),
            Input(
                *("fan_in", "inputs of a unit: elements per row of a matrix, 1 for vectors", r"n_{\mathrm{in}}"),
                kind=Kind.TENSOR,
                schema=2,
            ),
            Input(
                *("is_vector", "1 for tensors of less than two dimensions, else 0", r"\iota_{\mathrm{vec}}"),
                kind=Kind.TENSOR,
                schema=2,
            ),
        )
    }
)
"""The inputs by name."""


@dataclass(frozen=True)
class Hyperparameter:
    """A number that is constant during a run.

    Attributes:
        name: Its name in expressions.
        default: Value if a rule states none; ``None`` if rules must state one.
        lower: Smallest value allowed.
        upper: Values must be below this bound.
        description: One line for a person.
        latex: Its symbol in LaTeX; the name, upright, by default. Not compared, and not stored with rules.
    """

    name: str
    default: float | None
    lower: float
    upper: float
    description: str
    latex: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_texts(self, "name", "description", "latex")

    def check(self, value: float) -> float:
        """``value``, or a :class:`RuleError` if it is out of range."""
        if not self.lower <= value < self.upper:
            raise RuleError(f"{self.name} must be in [{self.lower}, {self.upper}), got {value!r}")
        return value


@dataclass(frozen=True)
class Recurrence:
    """A state, stored per coordinate unless it says otherwise: ``s_0 = init``, ``s_t = update(s_{t-1}, ...)``.

    Attributes:
        name: ``s``; the value before the update is called ``s_prev``.
        update: Text of the right-hand side.
        init: Value before the first step.
        description: One line for a person.
        latex: Its symbol in LaTeX, with the index t of the step: ``m_t``; that of ``s_prev`` has t - 1 instead. The
            name, upright, by default. Not compared, and not stored with rules.
        kind: How many numbers it has; its update can be of this kind or a lower one.
    """

    name: str
    update: str
    init: float = 0.0
    description: str = ""
    latex: str = field(default="", compare=False)
    kind: Kind = Kind.COORDINATE

    def __post_init__(self) -> None:
        _check_texts(self, "name", "update", "description", "latex")
        start = f"the init of state {quoted(self.name)}"
        if isinstance(self.init, bool) or not isinstance(self.init, int | float):
            raise RuleError(f"{start} must be an int or a float, got {quoted(self.init)}")
        finite(start, as_float(start, self.init))
        object.__setattr__(self, "init", self.init + 0)  # -0.0 is 0
        if not isinstance(self.kind, Kind):
            known = ", ".join(f"Kind.{kind.name}" for kind in Kind)
            raise RuleError(f"the kind of state {quoted(self.name)} must be one of {known}, got {quoted(self.kind)}")


@dataclass(frozen=True)
class Feature:
    """A named expression over inputs, states, hyperparameters and other features.

    Attributes:
        name: Its name in expressions.
        definition: Text of the expression.
        description: One line for a person.
        inline: Whether reading a rule replaces the name by its definition (for abbreviations).
        latex: Its symbol in LaTeX; the name, upright, by default. Not compared, and not stored with rules.
    """

    name: str
    definition: str
    description: str = ""
    inline: bool = False
    latex: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_texts(self, "name", "definition", "description", "latex")


@dataclass(frozen=True)
class Vocabulary:
    """Hyperparameters, recurrences and features by name; immutable.

    Raises:
        RuleError: Two entries have the same name, a name is not an identifier or is an operator's, or a definition
            cannot be read, refers to itself or is of the wrong kind.
    """

    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    recurrences: Mapping[str, Recurrence] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)

    def extended(self, *entries: Hyperparameter | Recurrence | Feature) -> Vocabulary:
        """A vocabulary with these entries added. An entry replaces one of the same name and kind; if it has no LaTeX
        symbol, it keeps the old entry's.

        >>> wider = STANDARD.extended(Feature("dm", "m - m_prev", "change of the momentum"))
        >>> sorted(set(wider.features) - set(STANDARD.features))
        ['dm']
        """
        extended = self._with(*entries)
        _ = extended.definitions  # reads everything: errors appear here, not at first use
        return extended

    def _with(self, *entries: Hyperparameter | Recurrence | Feature) -> Vocabulary:
        """As :meth:`extended`, but entries are checked and read when :attr:`definitions` are first used."""
        tables: dict[type, dict] = {
            Hyperparameter: dict(self.hyperparameters),
            Recurrence: dict(self.recurrences),
            Feature: dict(self.features),
        }
        for entry in entries:
            if type(entry) not in tables:
                wanted = "a Hyperparameter, a Recurrence or a Feature"
                raise RuleError(f"an entry of a vocabulary is {wanted}, got {quoted(entry)}")
            table = tables[type(entry)]
            known = table.get(entry.name)
            table[entry.name] = entry if entry.latex or known is None else replace(entry, latex=known.latex)
        return Vocabulary(*tables.values())

    def _check(self) -> None:
        """Refuse bad or duplicate names, and LaTeX symbols of states without the index of the step."""
        taken: set[str] = set()
        previous = (f"{name}_prev" for name in self.recurrences)
        for name in (*INPUTS, *previous, *self.hyperparameters, *self.recurrences, *self.features):
            if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in calls() or name == "lr":
                raise RuleError(f"{quoted(name)} cannot be a name in a vocabulary")
            if name in taken:
                raise RuleError(f"the name {quoted(name)} is defined twice")
            taken.add(name)
        for name, state in self.recurrences.items():
            if state.latex and not _INDEX.search(state.latex):
                raise RuleError(f"the LaTeX of state {quoted(name)}, {quoted(state.latex)}, has no index t as in m_t")

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that an expression can use."""
        previous = (f"{name}_prev" for name in self.recurrences)
        return frozenset([*INPUTS, *self.hyperparameters, *self.recurrences, *previous, *self.features])

    @cached_property
    def definitions(self) -> Mapping[str, sympy.Expr]:
        """The defining expression of every recurrence and feature, abbreviations replaced.

        Raises:
            RuleError: See the class.
        """
        self._check()
        inline = {
            symbol(name): parse_expression(feature.definition, self.names)
            for name, feature in self.features.items()
            if feature.inline
        }
        texts = {name: state.update for name, state in self.recurrences.items()}
        texts |= {name: feature.definition for name, feature in self.features.items()}
        read = {name: parse_expression(text, self.names).xreplace(inline) for name, text in texts.items()}
        definitions = {name: canonical(definition, self.names) for name, definition in read.items()}
        order = self._ordered(definitions, [symbol(name) for name in definitions])  # refuses circles
        self._infer(definitions, order, texts)
        return definitions

    def _infer(self, definitions: Mapping[str, sympy.Expr], order: Sequence[str], texts: Mapping[str, str]) -> None:
        """Set ``_kinds``; refuse definitions of the wrong kind."""
        kinds = {entry.name: entry.kind for entry in INPUTS.values()} | dict.fromkeys(self.hyperparameters, Kind.RUN)
        for name, state in self.recurrences.items():
            kinds |= {name: state.kind, f"{name}_prev": state.kind}
        for name in order:
            try:
                found = kind_of(definitions[name], kinds)
            except RuleError:
                parse_expression(texts[name], {**dict.fromkeys(self.names, Kind.COORDINATE), **kinds})  # shows where
                raise
            kind = kinds.setdefault(name, found)
            if found > kind:
                numbers = f"has {kind.description}, and its update has {found.description}"
                raise RuleError(f"state {quoted(name)} {numbers}: {texts[name]}")
        object.__setattr__(self, "_kinds", kinds)

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """The kind of every name that an expression can use."""
        _ = self.definitions
        kinds: Mapping[str, Kind] = self.__dict__["_kinds"]
        return kinds

    @cached_property
    def latex(self) -> Mapping[str, str]:
        """The LaTeX symbol of every name that has one."""
        tables = (INPUTS, self.hyperparameters, self.recurrences, self.features)
        symbols = {name: entry.latex for table in tables for name, entry in table.items()}
        symbols |= {f"{name}_prev": _INDEX.sub(_before, state.latex) for name, state in self.recurrences.items()}
        return {name: latex for name, latex in symbols.items() if latex}

    def parse(self, text: str) -> sympy.Expr:
        """Read an expression over these names and replace abbreviations by their definitions."""
        return self.without_abbreviations(parse_expression(text, self.kinds))

    def without_abbreviations(self, expression: sympy.Expr) -> sympy.Expr:
        """``expression`` with every inline feature replaced by its definition."""
        return expression.xreplace(
            {symbol(name): self.definitions[name] for name, feature in self.features.items() if feature.inline}
        )

    def live(self, *expressions: sympy.Expr, frozen: bool = False) -> tuple[str, ...]:
        """The recurrences and features that ``expressions`` use, each after those in its own definition.

        If ``frozen``, states keep their values, and what their updates use is left out.

        Raises:
            RuleError: A definition refers to itself.
        """
        return self._ordered(self.frozen if frozen else self.definitions, expressions)

    @cached_property
    def frozen(self) -> Mapping[str, sympy.Expr]:
        """As :attr:`definitions`, but each state keeps its value: ``s`` is ``s_prev``."""
        return {**self.definitions, **{name: symbol(f"{name}_prev") for name in self.recurrences}}

    def _ordered(self, definitions: Mapping[str, sympy.Expr], expressions: Sequence[sympy.Expr]) -> tuple[str, ...]:
        order: dict[str, None] = {}
        open_: list[str] = []

        def visit(expression: sympy.Expr) -> None:
            for name in sorted(free.name for free in expression.free_symbols):
                base = name.removesuffix("_prev")
                if name != base and base in self.recurrences:
                    later.append(base)  # needed, but not earlier: its old value is known
                elif name in definitions and name not in order:
                    if name in open_:
                        path = quoted(" -> ".join([*open_, name]))
                        raise RuleError(f"the definition of {quoted(name)} refers to itself: {path}")
                    open_.append(name)
                    if len(open_) > MAX_DEPTH:
                        raise RuleError(f"definitions are nested deeper than {MAX_DEPTH} levels, at {quoted(name)}")
                    visit(definitions[name])
                    order[open_.pop()] = None

        later: list[str] = []
        for expression in expressions:
            visit(expression)
        while later:
            visit(symbol(later.pop()))
        return tuple(order)


def _before(index: re.Match[str]) -> str:
    return "_{t-1}" if index[0] == "_t" else "t-1"


STANDARD = Vocabulary()._with(
    Hyperparameter("beta1", 0.9, 0.0, 1.0, "decay rate of the first moment", latex=r"\beta_1"),
    Hyperparameter("beta2", 0.999, 0.0, 1.0, "decay rate of the second moment", latex=r"\beta_2"),
    Hyperparameter(
        "eps", 1e-8, 0.0, float("inf"), "added to the denominator, for numerical stability", latex=r"\epsilon"
    ),
    Hyperparameter("mu", 0.9, 0.0, 1.0, "momentum factor", latex=r"\mu"),
    Hyperparameter("wd", 0.0, 0.0, float("inf"), "decoupled weight decay", latex=r"\lambda"),
    Hyperparameter("beta_fast", 0.5, 0.0, 1.0, "decay rate of the fast moment", latex=r"\beta_{\mathrm{fast}}"),
    Hyperparameter("beta_long", 0.99, 0.0, 1.0, "decay rate of the long moment", latex=r"\beta_{\mathrm{long}}"),
    Hyperparameter("beta3", 0.99, 0.0, 1.0, "decay rate of the second moment of Adan", latex=r"\beta_3"),
    Hyperparameter("gamma", 0.025, 0.0, float("inf"), "scale of the variance reduction of MARS", latex=r"\gamma"),
    Hyperparameter(
        *("rate_gain", 0.1, 0.0, float("inf"), "gain of the adaptive rate by the agreement within a tensor"),
        latex=r"k",
    ),
    Hyperparameter("rate_target", -0.05, -1.0, 1.0, "agreement that leaves the adaptive rate as it is", latex=r"c_0"),
    Hyperparameter(
        *("rate_limit", 7.0, 0.0, float("inf"), "largest logarithm of the adaptive rate"), latex=r"h_{\max}"
    ),
    Hyperparameter("warmup", 5.0, 0.0, float("inf"), "step at which wu is a half", latex=r"\tau"),
    Hyperparameter("decay_power", 2.0, 0.0, float("inf"), "exponent of the decay pd", latex="p"),
    Hyperparameter(
        *("fan_in_power", 0.25, float("-inf"), float("inf"), "exponent of fan_in/100 by which tensor_scale falls"),
        latex=r"b",
    ),
    Hyperparameter(
        *("vector_gain", -0.7, float("-inf"), float("inf"), "logarithm of tensor_scale's factor for vectors"),
        latex=r"c",
    ),
    Hyperparameter(
        "beta_avg", 0.98, 0.0, 1.0, "decay rate of the average of the weights", latex=r"\beta_{\mathrm{avg}}"
    ),
    Hyperparameter("rise_power", 30.0, 0.0, float("inf"), "exponent of the rise late", latex="q"),
    Recurrence("m", "beta1*m_prev + (1 - beta1)*g", description="moving average of the gradient", latex="m_t"),
    Recurrence(
        "v", "beta2*v_prev + (1 - beta2)*g**2", description="moving average of the squared gradient", latex="v_t"
    ),
    Recurrence("b", "mu*b_prev + g", description="momentum buffer", latex="b_t"),
    Recurrence("s", "s_prev + g**2", description="sum of squared gradients", latex="s_t"),
    Recurrence(
        "m_slow",
        "beta2*m_slow_prev + (1 - beta2)*g",
        description="moving average of the gradient at beta2",
        latex=r"m^{\mathrm{slow}}_t",
    ),
    Recurrence(
        "m_fast",
        "beta_fast*m_fast_prev + (1 - beta_fast)*g",
        description="moving average at beta_fast",
        latex=r"m^{\mathrm{fast}}_t",
    ),
    Recurrence(
        "m_long",
        "beta_long*m_long_prev + (1 - beta_long)*g",
        description="moving average at beta_long",
        latex=r"m^{\mathrm{long}}_t",
    ),
    Recurrence(
        "v_res",
        "beta2*v_res_prev + (1 - beta2)*(g - m)**2 + eps",
        description="moving average of the squared deviation of the gradient from m, after AdaBelief",
        latex=r"\nu_t",
    ),
    Recurrence("g_old", "g", description="gradient, kept for the next step", latex=r"g^{\mathrm{old}}_t"),
    Recurrence("v_max", "max(v_max_prev, v)", description="largest v, after AMSGrad", latex=r"v^{\max}_t"),
    Recurrence(
        "g_max",
        "max(beta2*g_max_prev, abs(g) + eps)",
        description="decaying maximum of the absolute gradient, after Adamax",
        latex=r"g^{\max}_t",
    ),
    Recurrence(
        "v_yogi",
        "v_yogi_prev - (1 - beta2)*sign(v_yogi_prev - g**2)*g**2",
        1e-06,
        description="second moment that changes additively, after Yogi",
        latex=r"v^{\mathrm{Yogi}}_t",
    ),
    Recurrence(
        "m_rs",
        "beta1*m_rs_prev + (1 - beta1)*rs",
        description="moving average of rs, after LaProp",
        latex=r"m^{\mathrm{rs}}_t",
    ),
    Recurrence(
        "m_diff",
        "beta2*m_diff_prev + (1 - beta2)*g_diff",
        description="moving average of the gradient's change, after Adan",
        latex=r"m^\Delta_t",
    ),
    Recurrence(
        "v_diff",
        "beta3*v_diff_prev + (1 - beta3)*(g + beta2*g_diff)**2",
        description="second moment of the extrapolated gradient, after Adan",
        latex=r"v^\Delta_t",
    ),
    Recurrence(
        "v_first",
        "beta2*v_first_prev + (1 - beta2*step(t - 1))*g**2",
        description="second moment that starts at the first squared gradient, after ADOPT",
        latex=r"v^{\mathrm{first}}_t",
    ),
    Recurrence(
        "m_adopt",
        "beta1*m_adopt_prev + step(t - 1)*(1 - beta1)*g_adopt",
        description="moving average of g_adopt from the second step on, after ADOPT",
        latex=r"m^{\mathrm{ADOPT}}_t",
    ),
    Recurrence(
        "m_mars",
        "beta1*m_mars_prev + (1 - beta1)*g_mars",
        description="moving average of g_mars",
        latex=r"m^{\mathrm{MARS}}_t",
    ),
    Recurrence(
        "v_mars",
        "beta2*v_mars_prev + (1 - beta2)*g_mars**2",
        description="second moment of g_mars",
        latex=r"v^{\mathrm{MARS}}_t",
    ),
    Recurrence(
        "b_trust",
        "mu*b_trust_prev + (g + wd*w)*trust(norm(w), norm(g + wd*w))",
        description="momentum buffer of gradients scaled to their tensor, after LARS",
        latex=r"b^{\mathrm{trust}}_t",
    ),
    Recurrence(
        "v_mean",
        "beta2*v_mean_prev + (1 - beta2)*mean(g**2)",
        description="mean of v over the tensor, after Adam-mini",
        latex=r"\bar v_t",
        kind=Kind.TENSOR,
    ),
    Recurrence(
        "v_norm",
        "beta2*v_norm_prev + (1 - beta2*step(t - 1))*norm(g)**2",
        description="moving average of the squared norm, from its first value, after NovoGrad",
        latex=r"v^{\mathrm{norm}}_t",
        kind=Kind.TENSOR,
    ),
    Recurrence(
        "b_norm",
        "beta1*b_norm_prev + g/(sqrt(v_norm) + eps) + wd*w",
        description="momentum buffer of normalized gradients, after NovoGrad",
        latex=r"b^{\mathrm{norm}}_t",
    ),
    Recurrence(
        "g_peak",
        "max(g_peak_prev*(1 - 3/T), rms(g))",
        description="largest root mean square of the tensor's gradient; a peak is forgotten to 5 % over T steps",
        latex=r"\gamma^{\max}_t",
        kind=Kind.TENSOR,
    ),
    Recurrence(
        "log_rate",
        "clip(log_rate_prev + step(t - 1)*rate_change, rate_limit)",
        description="logarithm of the adaptive rate: grows while gradients agree with the momentum",
        latex="h_t",
        kind=Kind.TENSOR,
    ),
    Recurrence(
        "log_pace",
        "clip(log_pace_prev + step(t - 1)*rate_change*100/T, rate_limit)",
        description="as log_rate, changing by as much over T steps for every T",
        latex=r"\bar h_t",
        kind=Kind.TENSOR,
    ),
    Recurrence(
        "w_avg",
        "beta_avg*w_avg_prev + (1 - beta_avg*step(t - 1))*w",
        description="moving average of the parameter from its first value on, without the latest",
        latex=r"\theta^{\mathrm{ema}}_t",
    ),
    Recurrence(
        "w_mean",
        "w_mean_prev + step(t - 1)*(w - w_mean_prev)/max(t - 1, 1)",
        description="mean of the parameter after each step, without the latest",
        latex=r"\bar\theta_t",
    ),
    Recurrence(
        "w_gap",
        "(1 - 1/t)*(w_gap_prev + beta1*ds)",
        description="distance of the parameter from the point z that gradients move, over lr, after Schedule-Free",
        latex=r"d_t",
    ),
    Feature(
        "ds",
        "rs + wd*w",
        "direction of Schedule-Free AdamW",
        latex=r"e_t",
    ),
    Feature(
        "ema_weights",
        "beta_avg*w_avg + (1 - beta_avg)*w",
        "moving average of the parameter; to evaluate with",
        latex=r"\hat\theta^{\mathrm{ema}}_t",
    ),
    Feature(
        "mean_weights",
        "w_mean + (w - w_mean)/t",
        "mean of the parameter after each step, after Polyak; to evaluate with",
        latex=r"\hat\theta^{\mathrm{mean}}_t",
    ),
    Feature("g_prev", "g_old_prev", "gradient of the step before, 0 at the first", latex="g_{t-1}"),
    Feature("g_diff", "step(t - 1)*(g - g_prev)", "change of the gradient, 0 at the first step", latex=r"\Delta g_t"),
    Feature(
        "g_vr",
        "g + gamma*beta1/(1 - beta1)*(g - g_prev)",
        "gradient with reduced variance, after MARS",
        latex=r"c_t",
    ),
    Feature("g_mars", "g_vr/max(norm(g_vr), 1)", "g_vr with a norm of at most 1", latex=r"\tilde c_t"),
    Feature(
        "g_adopt",
        "clip(g/max(sqrt(v_first_prev), eps), (t - 1)**0.25)",
        "gradient over the root of the second moment before it, clipped",
        latex=r"\check g_t",
    ),
    Feature(
        "rate_change",
        "rate_gain*(cos_m - rate_target)",
        "change of the adaptive rate's logarithm",
        latex=r"\delta_t",
    ),
    Feature(
        "cos_m",
        "dot(g, m_prev)*inv0(norm(g)*norm(m_prev))",
        "cosine between the gradient and the momentum before it, 0 where one of them is 0",
        latex=r"\cos_t",
    ),
    Feature(
        "cos_all",
        "all_dot(g, m_prev)*inv0(sqrt(all_dot(g, g))*sqrt(all_dot(m_prev, m_prev)))",
        "cosine over all tensors between the gradient and the momentum before it",
        latex=r"\cos^{\mathrm{all}}_t",
    ),
    Feature("tensor_rate", "exp(log_rate)", "adaptive rate of the tensor", latex=r"\varrho_t"),
    Feature("tensor_pace", "exp(log_pace)", "adaptive rate of the tensor, paced by the horizon", latex=r"\bar\rho_t"),
    Feature(
        "calm",
        "min(1, 33*rms(g)*inv0(g_peak))",
        "1, and less where a tensor's gradient is below 3 % of its peak, as on training data that is fitted",
        latex=r"\varsigma_t",
    ),
    Feature("rms_v", "sqrt(mean(v_hat))", "root of the tensor's mean second moment", latex="q_t"),
    Feature(
        "log_spread",
        "step(rms_v)*log(max(gmean(rms_v)*inv0(rms_v), 1e-30))",
        "logarithm of gmean(rms_v)/rms_v, 0 where rms_v is 0",
        latex=r"\log(Q_t/q_t)",
    ),
    Feature("g2", "g**2", "squared gradient", inline=True),
    Feature("g3", "g**3", "cubed gradient", inline=True),
    Feature("bc1", "1 - beta1**t", "bias correction of m", latex="c_{1,t}"),
    Feature("bc2", "1 - beta2**t", "bias correction of v", latex="c_{2,t}"),
    Feature("m_hat", "m/bc1", "bias-corrected first moment", latex=r"\hat m_t"),
    Feature("v_hat", "v/bc2", "bias-corrected second moment", latex=r"\hat v_t"),
    Feature("v_res_hat", "v_res/bc2", "bias-corrected variance of AdaBelief", latex=r"\hat \nu_t"),
    Feature(
        "n_hat",
        "beta1*m/(1 - beta1**(t + 1)) + (1 - beta1)*g/bc1",
        "bias-corrected Nesterov momentum of NAdam",
        latex=r"\hat n_t",
    ),
    Feature("ad", "m_hat/(sqrt(v_hat) + eps)", "direction of Adam", latex=r"a_t"),
    Feature("rs", "g/(sqrt(v_hat) + eps)", "direction of RMSprop, bias-corrected", latex=r"r_t"),
    Feature("ld", "1 - min(t/T, 1)", "linear decay, 1 to 0 over the horizon", latex=r"\ell_t"),
    Feature(
        "cd", "(1 + cos(3.141592653589793*min(t/T, 1)))/2", "cosine decay, 1 to 0 over the horizon", latex=r"\kappa_t"
    ),
    Feature("late", "min(t/T, 1)**rise_power", "power rise, near 0 and then to 1 at the horizon", latex=r"\eta_t"),
    Feature(
        "pull",
        "(w - w_avg)*late",
        "towards the average of the weights at the end; where its coefficient is 1/lr, the weights become the average",
        latex=r"p_t",
    ),
    Feature("la", "beta1*m_hat + (1 - beta1)*g", "look-ahead momentum, after Nesterov", latex=r"\tilde m_t"),
    Feature("li", "beta1*m_slow_prev + (1 - beta1)*g", "interpolation of Lion", latex=r"i_t"),
    Feature("wu", "t/(t + warmup)", "warm-up, from 0 to 1", latex=r"\omega_t"),
    Feature("pd", "ld**decay_power", "power decay, 1 to 0 over the horizon", latex=r"\ell^p_t"),
    Feature("la_n", "la*inv0(rms_v)", "look-ahead momentum over the tensor's rms_v", latex=r"\tilde n_t"),
    Feature(
        "la_o",
        "orth(la)*fan_in**0.5",
        "look-ahead momentum with equal singular values, after Muon; rms near 1",
        latex=r"\tilde o_t",
    ),
    Feature("g_n", "g*inv0(rms_v)", "gradient over the tensor's rms_v", latex=r"\tilde g^n_t"),
    Feature(
        "init_scale",
        "max(is_vector, min(1, max(0.03, rms(w)*(3*fan_in)**0.5)))",
        "rms of a matrix over 1/sqrt(3 fan_in), that of PyTorch's initialization, from 0.03 to 1; 1 for vectors",
        latex=r"\iota^w_t",
    ),
    Feature(
        "tensor_scale",
        "exp(vector_gain*is_vector)*(fan_in/100)**(-fan_in_power)*init_scale",
        "factor of the learning rate by a tensor's shape, smaller for unusually small weights",
        latex=r"\sigma_t",
    ),
    Feature("m_fast_hat", "m_fast/(1 - beta_fast**t)", "bias-corrected fast moment", latex=r"\hat m^{\mathrm{fast}}_t"),
    Feature("m_long_hat", "m_long/(1 - beta_long**t)", "bias-corrected long moment", latex=r"\hat m^{\mathrm{long}}_t"),
    Feature(
        "sma_max",
        "max(2/(1 - beta2) - 1, 5)",
        "number of gradients that v averages in the long run, at least 5, after RAdam",
        latex=r"\rho_\infty",
    ),
    Feature(
        "sma",
        "max(sma_max - 2*t*beta2**t/bc2, 5)",
        "number of gradients that v averages so far, at least 5, after RAdam",
        latex=r"\rho_t",
    ),
    Feature(
        "rectify",
        "step(sma - 5)*sqrt((sma - 4)*(sma - 2)*sma_max/((sma_max - 4)*(sma_max - 2)*sma))",
        "rectification of v's variance, 0 up to sma = 5, after RAdam",
        latex=r"r^{\mathrm{RAdam}}_t",
    ),
    Feature("lt", "log(t)", "logarithm of the step", latex=r"\log t"),
    Feature(
        "ag_in", "(1 + sign(abs(g) - 4.5399929762484854e-05))/2", "1 where |g| > exp(-10), else 0", latex=r"\iota_t"
    ),
    Feature(
        "ag",
        "ag_in*log(abs(g) + 1e-06)/10 + ag_in - 1",
        "log-preprocessed gradient of the SOL paper",
        latex=r"\tilde g_t",
    ),
)
"""The project's names; the defaults of the Adam family are PyTorch's."""
