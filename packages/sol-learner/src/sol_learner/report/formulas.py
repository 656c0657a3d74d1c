"""Formulas on the page: MathML if an exporter for it is installed, plain text otherwise."""

from __future__ import annotations

from typing import Any

import sympy
from markupsafe import Markup

from sol_symbols import UpdateRule, format_expression
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin

__all__ = ["Formulas", "rounded"]


class Formulas:
    """Renders the formulas of a page."""

    def __init__(self) -> None:
        point = find_plugins(EXPORTERS).get("mathml")
        exporter = load_plugin(EXPORTERS, point)() if point else None
        self._exporter = exporter if hasattr(exporter, "formula") and hasattr(exporter, "symbols") else None

    def formula(self, rule: UpdateRule) -> Markup:
        """phi of a rule."""
        if self._exporter:
            return Markup(self._exporter.formula(rule))
        return Markup('<div class="formula"><code>φ = {}</code></div>').format(rounded(rule))

    def step(self, rule: UpdateRule) -> Markup:
        """The update step of the optimizer."""
        if self._exporter:
            return Markup(self._exporter.step(rule))
        return Markup('<div class="formula"><code>w ← w − lr · φ</code></div>')

    def symbols(self, rule: UpdateRule) -> Markup:
        """A table of the formula's symbols and their meanings."""
        if self._exporter:
            return Markup(self._exporter.symbols(rule))
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
