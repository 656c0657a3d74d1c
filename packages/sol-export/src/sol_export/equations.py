"""A rule as a list of equations in LaTeX, which the exporters for people share: LaTeX, Markdown and MathML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import sympy

from sol_symbols import INPUTS, UpdateRule, Vocabulary, latex, symbol

__all__ = ["Equation", "Meaning", "equations", "meanings"]

_WIDTH = 64  # glyphs on a line


@dataclass(frozen=True)
class Equation:
    r"""``left = right``.

    Attributes:
        left: LaTeX.
        terms: LaTeX of the additive terms of the right-hand side; ``+`` or ``-`` begins all but the first.
    """

    left: str
    terms: tuple[str, ...]

    @property
    def right(self) -> tuple[str, ...]:
        """The terms as lines, as many on each as there is room for."""
        lines: list[str] = []
        for term in self.terms:
            if lines and _glyphs(lines[-1]) + _glyphs(term) <= _WIDTH:
                lines[-1] += f" {term}"
            else:
                lines.append(term)
        return tuple(lines)


@dataclass(frozen=True)
class Meaning:
    """What a symbol stands for.

    Attributes:
        symbol: LaTeX.
        description: Words, with formulas between dollar signs; nothing where the equations say it all.
        value: LaTeX of its value; ``None`` where it has none or leaves it to the user.
    """

    symbol: str
    description: str
    value: str | None = None

    @property
    def parts(self) -> list[str]:
        """The description's words and, at odd places, its formulas."""
        return re.split(r"\$([^$]+)\$", self.description)


def equations(rule: UpdateRule, digits: int | None) -> list[Equation]:
    """The states and features that the rule needs, phi, and the step; each after those that it needs itself.

    What is too long inside of a function becomes an equation of its own, ``u_1 = ...``.
    """
    rows: list[Equation] = []
    for name in rule.live:
        rows += _broken(
            latex(name, vocabulary=rule.vocabulary), rule.vocabulary.definitions[name], digits, rows, rule.vocabulary
        )
    rows += _broken(r"\phi_t", rule.expression, digits, rows, rule.vocabulary)
    return [*rows, Equation(r"\theta_t", (r"\theta_{t-1} - \alpha\,\phi_t",))]


def meanings(rule: UpdateRule, digits: int | None) -> list[Meaning]:
    """What the symbols of :func:`equations` stand for."""
    symbol_of = partial(latex, vocabulary=rule.vocabulary)
    names = re.compile(rf"(?<!')\b({'|'.join(map(re.escape, {*rule.live, *rule.values}))})\b")

    def described(words: str) -> str:
        """``words`` in which the rule's names are formulas."""
        words = words.replace("$", "")
        return names.sub(lambda match: f"${symbol_of(match[0])}$", words) if rule.live or rule.values else words

    used = {free.name for name in rule.live for free in rule.vocabulary.definitions[name].free_symbols}
    used |= {free.name for free in rule.expression.free_symbols}
    found = [Meaning(r"\theta_t", "parameter after step $t$, elementwise"), Meaning(r"\phi_t", "update")]
    found.append(Meaning(r"\alpha", "learning rate", _number(rule.lr, digits)))
    found += [
        Meaning(symbol_of(name), entry.description)
        for name, entry in INPUTS.items()
        if name in used and name not in ("w", "T")
    ]
    for name, value in rule.values.items():
        known = rule.vocabulary.hyperparameters.get(name)
        words = INPUTS["T"].description if name == "T" else known.description if known else "constant"
        found.append(Meaning(symbol_of(name), described(words), _number(value, digits)))
    for name in rule.live:
        state = rule.vocabulary.recurrences.get(name)
        if state:
            start = "; $0$ at first" if state.init == 0 else f"; ${_number(state.init, digits)}$ at first"
            found.append(Meaning(symbol_of(name), described(state.description) + start))
        else:
            found.append(Meaning(symbol_of(name), described(rule.vocabulary.features[name].description)))
    return found


def _number(value: float | None, digits: int | None) -> str | None:
    return None if value is None else latex(sympy.Float(value), digits)


def _broken(
    left: str, value: sympy.Expr, digits: int | None, before: list[Equation], vocabulary: Vocabulary
) -> list[Equation]:
    """The equation ``left = value``, after those of the parts that are too long for a line."""
    parts: list[Equation] = []

    def shortened(node: sympy.Expr) -> sympy.Expr:
        if not node.args:
            return node
        node = node.func(*(shortened(argument) for argument in node.args), evaluate=False) if _nested(node) else node
        if node.is_Function or node.is_Pow:
            inner = node.args[0]
            if _glyphs(latex(inner, digits, vocabulary)) > _WIDTH:
                count = sum(row.left.startswith("u_") for row in (*before, *parts)) + 1
                parts.append(Equation(f"u_{{{count}}}", _terms(inner, digits, vocabulary)))
                return node.func(symbol(f"u{count}"), *node.args[1:], evaluate=False)
        return node

    value = (
        shortened(value)
        if any(_glyphs(latex(term, digits, vocabulary)) > _WIDTH for term in value.as_ordered_terms())
        else value
    )
    return [*parts, Equation(left, _terms(value, digits, vocabulary))]


def _nested(node: sympy.Expr) -> bool:
    return any(argument.args for argument in node.args)


def _terms(value: sympy.Expr, digits: int | None, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The terms, signed."""
    texts = [
        re.sub(r"\\mathrm{u(\d+)}", r"u_{\1}", latex(term, digits, vocabulary)) for term in value.as_ordered_terms()
    ]
    return (texts[0], *(text if text.startswith("-") else f"+ {text}" for text in texts[1:]))


def _glyphs(text: str) -> int:
    """About how many characters the LaTeX ``text`` is wide."""
    letters = re.sub(r"\\(alpha|beta|ell|epsilon|iota|kappa|lambda|mu|nu|phi|pi|theta)", "x", text)
    return len(re.sub(r"\\(left|right|cdot|frac|hat|mathrm|operatorname|sqrt|tilde)|[\\,{}^_ ]", "", letters))
