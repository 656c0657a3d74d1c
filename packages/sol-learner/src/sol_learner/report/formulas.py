"""Formulas on the page: MathML if an exporter for it is installed, plain text otherwise."""

from __future__ import annotations

from typing import Any

import sympy
from markupsafe import Markup

from sol_symbols import UpdateRule, format_expression
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin

__all__ = ["Formulas", "rounded"]


class Formulas:
    """Renders the formulas of a page. Where the exporter fails, plain text takes the place of what it lacks."""

    def __init__(self) -> None:
        point = find_plugins(EXPORTERS).get("mathml")
        try:
            self._exporter = load_plugin(EXPORTERS, point)() if point else None
        except Exception:  # of another package
            self._exporter = None

    def _rendered(self, part: str, rule: UpdateRule) -> Markup | None:
        try:
            return Markup(getattr(self._exporter, part)(rule))
        except Exception:  # it cannot express this rule, or there is none
            return None

    def formula(self, rule: UpdateRule) -> Markup:
        """phi of a rule."""
        plain = Markup('<div class="formula"><code>φ = {}</code></div>')
        return self._rendered("formula", rule) or plain.format(rounded(rule))

    def step(self, rule: UpdateRule) -> Markup:
        """The update step of the optimizer."""
        return self._rendered("step", rule) or Markup('<div class="formula"><code>w ← w − lr · φ</code></div>')

    def symbols(self, rule: UpdateRule) -> Markup:
        """A table of the formula's symbols and their meanings."""
        found = self._rendered("symbols", rule)
        if found is not None:
            return found
        tables: dict[str, Any] = {**rule.vocabulary.features, **rule.vocabulary.recurrences}
        rows = Markup("").join(
            Markup("<tr><td><code>{}</code></td><td>{}</td><td><code>{}</code></td></tr>").format(
                name, tables[name].description, format_expression(rule.vocabulary.definitions[name])
            )
            for name in rule.live
        )
        head = Markup("<tr><th>name</th><th>meaning</th><th>definition</th></tr>")
        return Markup('<table class="symbols"><thead>{}</thead><tbody>{}</tbody></table>').format(head, rows)


def rounded(rule: UpdateRule, digits: int = 4) -> str:
    """phi as text, with constants rounded to ``digits`` significant digits."""
    numbers = {number: sympy.Float(f"{float(number):.{digits}g}") for number in rule.expression.atoms(sympy.Float)}
    return format_expression(rule.expression.xreplace(numbers))
