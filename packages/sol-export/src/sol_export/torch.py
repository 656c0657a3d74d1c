"""PyTorch source: one file with one :class:`torch.optim.Optimizer`, which needs nothing of this project."""

from __future__ import annotations

import math
import re
import textwrap

import sympy

from sol_export.exporter import provenance_lines
from sol_symbols import ExpressionPrinter, SolError, UpdateRule, format_expression, lower, symbol

__all__ = ["TorchExporter"]

_WIDTH = 110

# Names of hyperparameters in the emitted signature, where they differ from the rule's.
_ARGUMENTS = {"T": "horizon", "wd": "weight_decay"}

# Names that the emitted code uses itself and that a rule's constants and definitions therefore cannot have.
_RESERVED = {
    *("p", "group", "state", "step", "lr", "closure", "loss", "params", "maximize", "math", "torch", "self", "update"),
    *("horizon", "weight_decay", "defaults", "super", "dict", "ValueError", "RuntimeError"),
}

_DESCRIPTIONS = {
    "horizon": "number of steps that the schedule is laid over",
    "weight_decay": "decoupled weight decay: adds weight_decay * parameter to the update",
}

_TEMPLATE = '''\
"""{name}: an optimizer for PyTorch.

{formula}

{provenance}
"""

{imports}

__all__ = ["{name}"]


class {name}(torch.optim.Optimizer):
    """Subtracts ``lr * phi`` from each parameter, phi as above.

    Args:
        params: Parameters, or dictionaries that define parameter groups.
{documentation}
        maximize: Ascend instead of descend.
    """

    def __init__(
        self,
        params,
{signature}
        *,
        maximize=False,
    ):
{checks}
        defaults = dict(
{defaults}
            maximize=maximize,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns the loss that ``closure``, if given, evaluates anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
{unpack}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse or p.grad.is_complex():
                    raise RuntimeError("{name} takes dense real gradients only")
{body}
        return loss
'''


class TorchExporter:
    """Source of a ``torch.optim.Optimizer``: live states only, constants and hyperparameters as arguments."""

    filename = "optimizer.py"

    def export(self, rule: UpdateRule, name: str) -> str:
        """The source text; see :class:`sol_export.Exporter`."""
        numbered = rule.with_numbered_constants()
        names = {*numbered.values, *numbered.live}
        taken = {free for free in names if free in _RESERVED or free.startswith("__")}
        if taken:
            raise SolError(f"the emitted code cannot use the name(s) {', '.join(sorted(taken))} for this; rename them")
        arguments = _arguments(numbered)
        return _TEMPLATE.format(
            name=name,
            formula=textwrap.indent(_formula(rule), "    "),
            provenance=_wrapped(provenance_lines(rule, "torch")),
            imports="import math\n\nimport torch" if _uses_math(numbered) else "import torch",
            documentation="\n".join(f"        {a}: {_describe(a, numbered)}." for a in arguments),
            signature="\n".join(f"        {a}{'' if v is None else f'={_number(v)}'}," for a, v in arguments.items()),
            checks="\n".join(_checks(arguments, numbered)),
            defaults="\n".join(f"            {a}={a}," for a in arguments),
            unpack="\n".join(f'            {a} = group["{a}"]' for a in arguments),
            body=textwrap.indent("\n".join(_body(numbered)), " " * 16),
        )


def _arguments(rule: UpdateRule) -> dict[str, float | None]:
    """Arguments of the constructor with their defaults, those without one first."""
    values: dict[str, float | None] = {"lr": 1e-3 if rule.lr is None else rule.lr}
    values |= {_ARGUMENTS.get(name, name): value for name, value in rule.values.items()}
    values.setdefault("weight_decay", 0.0)
    return dict(sorted(values.items(), key=lambda item: item[1] is not None))


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and 1 < abs(value) < 1e15 else repr(float(value))


def _describe(argument: str, rule: UpdateRule) -> str:
    if argument == "lr":
        return "learning rate"
    known = rule.vocabulary.hyperparameters.get(argument)
    if known or argument in _DESCRIPTIONS:
        return known.description if known else _DESCRIPTIONS[argument]
    constant = symbol(argument)
    for term in rule.expression.as_ordered_terms():
        factor, rest = term.as_independent(constant, as_Add=False)
        if rest in (constant, -constant) and not factor.is_number:
            return f"coefficient of {format_expression(factor if rest == constant else -factor)}"
    return "constant of the formula"


def _checks(arguments: dict[str, float | None], rule: UpdateRule) -> list[str]:
    lines = []
    for argument in arguments:
        known = rule.vocabulary.hyperparameters.get(argument)
        lower_, upper = (known.lower, known.upper) if known else (0.0, math.inf)
        if argument == "horizon":
            lower_ = 1.0
        elif known is None and argument not in ("lr", "weight_decay"):
            continue  # a constant of the formula may be any number
        if lower_ == -math.inf and upper == math.inf:
            continue
        condition = f"{_bound(lower_)} <= {argument}" + (f" < {_bound(upper)}" if math.isfinite(upper) else "")
        lines += [
            f"        if not {condition}:",
            f'            raise ValueError(f"{argument} = {{{argument}}}, but it must be {_phrase(lower_, upper)}")',
        ]
    return lines


def _bound(value: float) -> str:
    return repr(int(value)) if value.is_integer() else repr(value)


def _phrase(lower_: float, upper: float) -> str:
    return f"in [{_bound(lower_)}, {_bound(upper)})" if math.isfinite(upper) else f"{_bound(lower_)} or more"


def _renamed(value: sympy.Expr) -> sympy.Expr:
    return value.xreplace({symbol(old): symbol(new) for old, new in _ARGUMENTS.items()})


_SCALAR = ExpressionPrinter("math.", {"abs": "abs", "min": "min"})


class _TensorPrinter(ExpressionPrinter):
    """Code on tensors; ``elementwise`` names those that are tensors, all others are numbers."""

    def __init__(self, elementwise: frozenset[str]) -> None:
        super().__init__("torch.", {"min": "torch.minimum"})
        self._elementwise = elementwise

    def _print_Min(self, expr: sympy.Min) -> str:  # noqa: N802  (SymPy dispatches on it)
        tensors = [x for x in expr.args if self._elementwise & {free.name for free in x.free_symbols}]
        numbers = [x for x in expr.args if x not in tensors]
        text = self._print(tensors[0]) if len(tensors) == 1 else super()._print_Min(sympy.Min(*tensors, evaluate=False))
        if not numbers:
            return text
        bounds = [_SCALAR.doprint(number) for number in numbers]  # torch.minimum takes tensors only
        bound = bounds[0] if len(bounds) == 1 else f"min({', '.join(bounds)})"
        return f"torch.clamp({text}, max={bound})"


def _code(value: sympy.Expr, printer: ExpressionPrinter) -> str:
    """Source text with blanks around * and /, as formatters put them."""
    return re.sub(r"(?<!\*)([*/])(?!\*)", r" \1 ", printer.doprint(value))


def _uses_math(rule: UpdateRule) -> bool:
    return any("math." in _SCALAR.doprint(a.value) for a in lower(rule).scalars)


def _body(rule: UpdateRule) -> list[str]:
    """The statements for one parameter."""
    program = lower(rule)
    if any(a.value.has(sympy.sign) for a in program.scalars):
        raise SolError("the sign of a schedule cannot be emitted; it is constant: write the number instead")
    tensors = frozenset({"g", "w", *(a.name for a in program.body), *(f"{state}_prev" for state in program.states)})
    printer = _TensorPrinter(tensors)
    lines = ['g = -p.grad if group["maximize"] else p.grad'] if program.uses("g") else []
    if program.states or program.uses("t"):
        lines += ["state = self.state[p]", "if not state:"]
        lines += ['    state["step"] = 0'] if program.uses("t") else []
        for name, init in program.states.items():
            empty = f"torch.full_like(p, {init!r}" if init else "torch.zeros_like(p"
            lines.append(f'    state["{name}"] = {empty}, memory_format=torch.preserve_format)')
    if program.uses("t"):
        lines += ['state["step"] += 1', 't = state["step"]']
    lines += [f"{a.name} = {_code(_renamed(a.value), _SCALAR)}" for a in program.scalars]
    lines += [f'{name}_prev = state["{name}"]' for name in program.states]
    if program.uses("w"):
        lines.append("w = p")
    for assignment in program.body:
        lines.append(f"{assignment.name} = {_code(_renamed(assignment.value), printer)}")
        if assignment.name in program.states:
            lines.append(f'state["{assignment.name}"] = {assignment.name}')
    (phi,) = program.outputs
    lines += _sum("update", _renamed(phi), printer)
    if "wd" not in rule.values:
        lines += ["if weight_decay:", "    p.mul_(1 - lr * weight_decay)"]
    elementwise = bool(tensors & {free.name for free in phi.free_symbols})
    return [*lines, "p.sub_(lr * update)" if elementwise else "p.sub_(torch.full_like(p, lr * update))"]


def _sum(name: str, value: sympy.Expr, printer: ExpressionPrinter) -> list[str]:
    """``name = value``, one additive term a line where it would not fit on one."""
    line = f"{name} = {_code(value, printer)}"
    if len(line) + 16 <= _WIDTH:
        return [line]
    terms = [_code(term, printer) for term in value.as_ordered_terms()]
    signed = [f"- {term[1:]}" if term.startswith("-") else f"+ {term}" for term in terms]
    signed[0] = terms[0]
    return [f"{name} = (", *(f"    {term}" for term in signed), ")"]


def _formula(rule: UpdateRule) -> str:
    """The rule in its own text form, wrapped between terms."""
    return "\n".join(textwrap.wrap(f"phi = {rule}", _WIDTH - 10, break_long_words=False, break_on_hyphens=False))


def _wrapped(lines: list[str]) -> str:
    return re.sub(r'["\\]', "'", "\n".join(lines))
