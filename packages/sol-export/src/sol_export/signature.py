"""The numbers of a rule as arguments of a constructor or function."""

from __future__ import annotations

import builtins
import keyword
import math
from collections.abc import Collection
from dataclasses import dataclass

import sympy

from sol_symbols import SolError, UpdateRule, format_expression, lower, symbol

__all__ = [
    *("NO_HORIZON", "Argument", "arguments", "checked_name", "checked_names", "off_statement", "renamed"),
    "switched_off",
]

# Arguments whose conventional name differs from the name in the rule.
_NAMES = {"T": "horizon", "wd": "weight_decay", "mu": "momentum"}
_SCHEDULE = {"T": "t/T", "warmup": "warmup"}
_BETAS = ("beta1", "beta2")
_BUILTINS = frozenset(dir(builtins))
_MODULES = frozenset(
    (
        *("concurrent", "ctypes", "jax", "jnp", "math", "optax", "os", "shlex", "subprocess", "tempfile"),
        *("torch", "warnings"),
    )
)


@dataclass(frozen=True)
class Argument:
    """A number, or a tuple of numbers, that the user of an emitted file can set.

    Attributes:
        name: Name of the argument.
        default: Default value; ``None`` if the argument is required.
        description: One line for the docstring.
        low: Smallest allowed value; minus infinity if any number is allowed.
        high: Exclusive upper bound.
        parts: Names of the numbers in a tuple; empty for a number.
        optional: Whether it can be left out although it has no default.
    """

    name: str
    default: float | tuple[float, ...] | None
    description: str
    low: float = -math.inf
    high: float = math.inf
    parts: tuple[str, ...] = ()
    optional: bool = False

    @property
    def signature(self) -> str:
        """``name=default``."""
        if self.default is None:
            return f"{self.name}=None" if self.optional else self.name
        if isinstance(self.default, tuple):
            comma = "," if len(self.default) == 1 else ""
            return f"{self.name}=({', '.join(map(_number, self.default))}{comma})"
        return f"{self.name}={_number(self.default)}"

    @property
    def documentation(self) -> str:
        """``name: Description.``, for a docstring."""
        return f"{self.name}: {self.description[0].upper()}{self.description[1:]}."

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that it holds."""
        return self.parts or (self.name,)

    @property
    def bounds(self) -> str:
        """``low`` or ``low, high``, as arguments of a check; empty if any number is allowed."""
        if math.isinf(self.low):
            return ""
        return f"{self.low:g}" + (f", {self.high:g}" if math.isfinite(self.high) else "")


def arguments(rule: UpdateRule, betas: bool = True) -> list[Argument]:
    """Return the learning rate and all numbers of ``rule``, required arguments first.

    Args:
        rule: The rule, with named constants.
        betas: Whether ``beta1``, and ``beta2`` if the rule has it, become one tuple as in ``torch.optim``.
    """
    found = [Argument("lr", 1e-3 if rule.lr is None else rule.lr, "learning rate", 0.0)]
    off = switched_off(rule)
    tupled = tuple(name for name in _BETAS if name in rule.values) if betas and _BETAS[0] in rule.values else ()
    for name, value in rule.values.items():
        known = rule.vocabulary.hyperparameters.get(name)
        if name in tupled:
            if name == _BETAS[0]:
                values = tuple(float(rule.values[beta] or 0) for beta in tupled)
                moments = "rates of the first and second moments" if len(tupled) > 1 else "rate of the first moment"
                found.append(Argument("betas", values, f"decay {moments}", 0, 1, tupled))
        elif name == "T":
            optional = value is None and "T" in off
            found.append(Argument("horizon", value, "number of steps in the schedule", 1.0, optional=optional))
        elif known:
            found.append(Argument(_NAMES.get(name, name), value, known.description, known.lower, known.upper))
        else:
            found.append(Argument(name, value, _role(name, rule)))
    if "wd" not in rule.values:
        found.append(Argument("weight_decay", 0.0, "decoupled weight decay, which adds weight_decay * w to phi", 0.0))
    if off:
        words = " and ".join(f"{symbol} = 0" for name, symbol in _SCHEDULE.items() if name in rule.values)
        found.append(Argument("schedule", True, f"whether the formula's own schedule applies; False: {words}"))
    return sorted(found, key=lambda argument: argument.default is not None)


def switched_off(rule: UpdateRule) -> dict[str, str]:
    """What ``schedule=False`` sets: source text of values by name; empty if the rule has no schedule.

    Steps count as after the warm-up and before the decay: ``t/T`` is 0, and so is ``warmup``. The horizon is 1 then,
    unless the rule uses ``T`` elsewhere, too.
    """
    if not {*_SCHEDULE} & {*rule.values}:
        return {}
    program = lower(rule, expand=False, clock="clock")
    off = {"warmup": "0.0"} if "warmup" in rule.values else {}
    if not program.uses("clock"):
        return off
    code = [*(a.value for a in (*program.scalars, *program.body)), *program.outputs]
    return {"clock": "0.0", **({"T": "1.0"} if all(map(_without_horizon, code)) else {}), **off}


def _without_horizon(value: sympy.Expr) -> bool:
    """Whether a value does not use T where the step in schedules is 0."""
    try:
        return symbol("T") not in value.xreplace({symbol("clock"): sympy.S.Zero}).free_symbols
    except ValueError:  # 1/0 in min or max, which SymPy does not compare
        return False


def off_statement(rule: UpdateRule, clock: str = "") -> str:
    """The statement that switches the schedule off; for the step in schedules, too, if ``clock`` names it."""
    off = {_NAMES.get(name, name): value for name, value in switched_off(rule).items() if name != "clock" or clock}
    return f"{', '.join(off)} = {', '.join(off.values())}" if off else ""


NO_HORIZON = 'raise TypeError("give horizon, the number of steps in the schedule, or schedule=False")'
"""The statement for users who leave both out."""


def checked_names(rule: UpdateRule, reserved: Collection[str], language: str) -> UpdateRule:
    """Return ``rule`` if the emitted code can use its names.

    Raises:
        SolError: The rule uses names that the emitted code reserves.
    """
    names = {*rule.values, *rule.live} - {*_NAMES}
    taken = sorted(name for name in names if name in reserved or name in _BUILTINS or name.startswith("_"))
    if taken:
        raise SolError(
            f"{language} source reserves the name(s) {', '.join(taken)}: its own code, the language or learning-rate "
            "schedulers use them; rename them in the rule"
        )
    return rule


def checked_name(name: str, language: str) -> str:
    """Return ``name`` if the emitted class or function can use it.

    Raises:
        SolError: It is not a public ASCII identifier, or Python or the emitted code uses it.
    """
    reason = ""
    if not name.isascii():
        reason = ": letters outside of ASCII can look like others"
    elif name in _MODULES or name in _BUILTINS:
        reason = ": the emitted code or Python uses it"
    elif not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        reason = ": it must be an identifier without a leading underscore"
    if reason:
        raise SolError(f"{name!r} is not a valid name in {language} source{reason}; choose another")
    return name


def renamed(value: sympy.Expr) -> sympy.Expr:
    """Return ``value`` with the names of the arguments."""
    return value.xreplace({symbol(old): symbol(new) for old, new in _NAMES.items()})


def _role(constant: str, rule: UpdateRule) -> str:
    name = symbol(constant)
    for term in rule.expression.as_ordered_terms():
        factor, rest = term.as_independent(name, as_Add=False)
        if rest in (name, -name) and not factor.is_number:
            return f"coefficient of {format_expression(factor if rest == name else -factor)}"
    return "constant of the formula"


def _number(value: float) -> str:
    if isinstance(value, bool):
        return repr(value)
    return repr(int(value)) if float(value).is_integer() and 1 < abs(value) < 1e15 else repr(float(value))
