"""LaTeX source: a document with the states, the features and the update, set as aligned equations."""

from __future__ import annotations

import sympy

from sol_export.exporter import provenance_lines
from sol_symbols import UpdateRule, latex

__all__ = ["LatexExporter"]

_TERMS_PER_LINE = 3

_TEMPLATE = r"""% {title}
{provenance}
\documentclass{{article}}
\usepackage{{amsmath}}
\begin{{document}}
\begin{{align*}}
{rows}
\end{{align*}}
with gradient $g_t$ at step $t$, parameters $\theta_t$, {values}.
\end{{document}}
"""


class LatexExporter:
    """A stand-alone document; constants are rounded to ``digits`` significant digits."""

    filename = "formula.tex"

    def __init__(self, digits: int = 4) -> None:
        self.digits = digits

    def export(self, rule: UpdateRule, name: str) -> str:
        """The source text; see :class:`sol_export.Exporter`."""
        rows = [
            rf"{latex(definition)} &= {latex(rule.vocabulary.definitions[definition], self.digits)} \\"
            for definition in rule.live
        ]
        terms = rule.expression.as_ordered_terms()
        lines = [
            latex(sympy.Add(*terms[start : start + _TERMS_PER_LINE], evaluate=False), self.digits)
            for start in range(0, len(terms), _TERMS_PER_LINE)
        ]
        continued = [lines[0], *(line if line.startswith("-") else f"+ {line}" for line in lines[1:])]
        rows.append(r"\phi_t &= " + " \\\\\n&\\quad ".join(continued) + r" \\")
        rows.append(r"\theta_t &= \theta_{t-1} - \alpha\,\phi_t")
        return _TEMPLATE.format(
            title=name,
            provenance="\n".join(f"% {line}" for line in provenance_lines(rule, "latex")),
            rows="\n".join(rows),
            values=self._values(rule),
        )

    def _values(self, rule: UpdateRule) -> str:
        values = {r"\alpha": rule.lr, **{latex(name): value for name, value in rule.values.items()}}
        given = [
            f"${name} = {latex(sympy.Float(value), self.digits)}$"
            for name, value in values.items()
            if value is not None
        ]
        free = [f"${name}$ chosen by the user" for name, value in values.items() if value is None]
        return ", ".join([*given, *free])
