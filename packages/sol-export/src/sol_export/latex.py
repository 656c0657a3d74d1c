"""LaTeX source: a document with the states, features and update as aligned equations."""

from __future__ import annotations

from sol_export.equations import FormulaExporter, Meaning, checked_title, equations, meanings
from sol_export.file_header import provenance
from sol_symbols import UpdateRule
from sol_symbols.escaping import escaped

__all__ = ["LatexExporter", "align"]

_TEMPLATE = r"""% {title}
{provenance}
%
% In one line: $\phi_t = {one_line}$
\documentclass{{article}}
\usepackage{{amsmath}}
\usepackage[margin=25mm]{{geometry}}
\allowdisplaybreaks
\begin{{document}}
{equations}
\begin{{flushleft}}
where \\
{meanings}
\end{{flushleft}}
\end{{document}}
"""


class LatexExporter(FormulaExporter):
    """A stand-alone document; constants are rounded to ``digits`` significant digits."""

    filename = "formula.tex"
    description = "the formula for a paper"

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`."""
        return _TEMPLATE.format(
            title=checked_title(name),
            provenance="\n".join(
                f"% {line}".rstrip() for line in provenance(rule, "latex", name, self.digits).splitlines()
            ),
            equations=align(rule, self.digits),
            meanings=" \\\\\n".join(_item(meaning) for meaning in meanings(rule, self.digits)),
            one_line=rule.latex(self.digits),
        )


def align(rule: UpdateRule, digits: int | None = 4, environment: str = "align*") -> str:
    """Return the rule's equations as one ``amsmath`` environment, ready to paste into a paper."""
    rows = [rf"{equation.left} &= " + " \\\\\n&\\quad ".join(equation.right) for equation in equations(rule, digits)]
    body = " \\\\\n".join(rows)
    return f"\\begin{{{environment}}}\n{body}\n\\end{{{environment}}}"


def _item(meaning: Meaning) -> str:
    symbol = meaning.symbol + (f" = {meaning.value}" if meaning.value is not None else "")
    words = "".join(f"${part}$" if i % 2 else escaped(part, "tex") for i, part in enumerate(meaning.parts))
    return f"${symbol}$" + (f": {words}" if words else "")
