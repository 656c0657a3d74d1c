"""A rule as a list of LaTeX equations, shared by the exporters for people: LaTeX, Markdown and MathML."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import sympy

from sol_export.file_header import explained
from sol_symbols import INPUTS, Feature, SolError, UpdateRule, Vocabulary, latex, symbol

__all__ = ["Equation", "FormulaExporter", "Meaning", "checked_title", "equations", "meanings"]

_WIDTH = 64  # glyphs per line
_EVALUATED = r"\theta^{\mathrm{eval}}_t"


class FormulaExporter:
    """Base of the exporters for people.

    Args:
        digits: Significant digits of constants, at least 1.

    Raises:
        SolError: They are not a whole number of at least 1.
    """

    def __init__(self, digits: int = 4) -> None:
        if isinstance(digits, bool) or not isinstance(digits, int) or digits < 1:
            raise SolError(f"digits must be a whole number of at least 1, got {digits!r}")
        self.digits = digits

    def with_digits(self, digits: int) -> Self:
        """See :class:`sol_export.RoundingExporter`."""
        return type(self)(digits)


@dataclass(frozen=True)
class Equation:
    r"""``left = right``.

    Attributes:
        left: LaTeX.
        terms: LaTeX of the additive terms of the right-hand side; all but the first start with ``+`` or ``-``.
    """

    left: str
    terms: tuple[str, ...]

    @property
    def right(self) -> tuple[str, ...]:
        """The terms as lines, as many per line as fit."""
        lines: list[str] = []
        for term in self.terms:
            if lines and _glyphs(lines[-1]) + _glyphs(term) <= _WIDTH:
                lines[-1] += f" {term}"
            else:
                lines.append(term)
        return tuple(lines)


@dataclass(frozen=True)
class Meaning:
    """The meaning of a symbol.

    Attributes:
        symbol: LaTeX.
        description: Words, with formulas between dollar signs; empty if the equations say enough.
        value: LaTeX of its value; ``None`` if it has none or the user chooses it.
    """

    symbol: str
    description: str
    value: str | None = None

    @property
    def parts(self) -> list[str]:
        """The description, split: words at even positions, formulas at odd ones."""
        return re.split(r"\$([^$]+)\$", self.description)


def equations(rule: UpdateRule, digits: int | None) -> list[Equation]:
    """Return the equations of the rule's states and features, phi and the step, in order of dependency.

    Evaluation weights precede phi. A function argument that is too long becomes a separate equation, ``u_1 = ...``.
    """
    rows: list[Equation] = []
    before, after = (partial(latex, digits=digits, vocabulary=rule.vocabulary, after=x) for x in (False, True))
    for name in rule.live:
        left = latex(name, vocabulary=rule.vocabulary)
        show = after if name in rule.averages else before
        rows += _broken(left, rule.vocabulary.definitions[name], show, rows)
    if rule.evaluation is not None:
        rows += _broken(_EVALUATED, rule.evaluation, after, rows)
    rows += _broken(r"\phi_t", rule.expression, before, rows)
    return [*rows, Equation(r"\theta_t", (r"\theta_{t-1} - \alpha\,\phi_t",))]


def meanings(rule: UpdateRule, digits: int | None) -> list[Meaning]:
    """Return the meanings of the symbols in :func:`equations`."""
    symbol_of = partial(latex, vocabulary=rule.vocabulary)
    names = re.compile(rf"(?<!')\b({'|'.join(map(re.escape, {*rule.live, *rule.values}))})\b")

    def described(words: str) -> str:
        """Return ``words`` with the rule's names as formulas."""
        words = words.replace("$", "")
        return names.sub(lambda match: f"${symbol_of(match[0])}$", words) if rule.live or rule.values else words

    found = [Meaning(r"\theta_t", "parameter after step $t$, elementwise"), Meaning(r"\phi_t", "update")]
    found.append(Meaning(r"\alpha", "learning rate", _number(rule.lr, digits)))
    if rule.evaluation is not None:
        found.append(Meaning(_EVALUATED, "parameter to evaluate with after step $t$"))
    inputs = [entry for entry in rule.inputs if entry.name not in ("w", "T")]
    found += [Meaning(symbol_of(entry.name), entry.description) for entry in inputs]
    for name, value in rule.values.items():
        known = rule.vocabulary.hyperparameters.get(name)
        words = INPUTS["T"].description if name == "T" else known.description if known else "constant"
        found.append(Meaning(symbol_of(name), described(words), _number(value, digits)))
    for name in rule.live:
        state = rule.vocabulary.recurrences.get(name)
        if state:
            start = "; initially $0$" if state.init == 0 else f"; initially ${_number(state.init, digits)}$"
            found.append(Meaning(symbol_of(name), described(state.description) + start))
        else:
            found.append(Meaning(symbol_of(name), described(rule.vocabulary.features[name].description)))
    for operator in filter(explained, rule.calls):
        arguments = [symbol(name) for name in "xy"[: operator.arity]]
        plain = Vocabulary(features={name: Feature(name, "0", latex=name) for name in "xy"})
        found.append(Meaning(latex(operator(*arguments), vocabulary=plain), operator.description))
    return found


def checked_title(name: str) -> str:
    """Return ``name`` if it can be the title of a document.

    Raises:
        SolError: It is empty or is not one line of printable text.
    """
    if not name.strip() or not name.isprintable():
        raise SolError(f"{name!r} cannot be a title: use one line of printable text")
    return name


def _number(value: float | None, digits: int | None) -> str | None:
    return None if value is None else latex(sympy.Float(value), digits)


def _broken(left: str, value: sympy.Expr, show: Callable[..., str], before: list[Equation]) -> list[Equation]:
    """Return the equation ``left = value``, preceded by equations of the parts that are too long for a line."""
    parts: list[Equation] = []

    def shortened(node: sympy.Expr) -> sympy.Expr:
        if not node.args:
            return node
        node = node.func(*(shortened(argument) for argument in node.args), evaluate=False) if _nested(node) else node
        if node.is_Function or node.is_Pow:
            inner = node.args[0]
            if _glyphs(show(inner)) > _WIDTH:
                count = sum(row.left.startswith("u_") for row in (*before, *parts)) + 1
                parts.append(Equation(f"u_{{{count}}}", _terms(inner, show)))
                return node.func(symbol(f"_u{count}"), *node.args[1:], evaluate=False)
        return node

    if any(_glyphs(show(term)) > _WIDTH for term in value.as_ordered_terms()):
        value = shortened(value)
    return [*parts, Equation(left, _terms(value, show))]


def _nested(node: sympy.Expr) -> bool:
    return any(argument.args for argument in node.args)


def _terms(value: sympy.Expr, show: Callable[..., str]) -> tuple[str, ...]:
    """Return the signed terms."""
    texts = [show(term) for term in value.as_ordered_terms()]
    texts = [re.sub(r"\\mathrm{\\_u(\d+)}", r"u_{\1}", text) for text in texts]  # no rule has such a name
    return (texts[0], *(text if text.startswith("-") else f"+ {text}" for text in texts[1:]))


def _glyphs(text: str) -> int:
    """Estimate the width of the LaTeX ``text`` in characters."""
    letters = re.sub(r"\\(alpha|beta|ell|epsilon|iota|kappa|lambda|mu|nu|phi|pi|theta)", "x", text)
    return len(re.sub(r"\\(left|right|cdot|frac|hat|mathrm|operatorname|sqrt|tilde)|[\\,{}^_ ]", "", letters))
