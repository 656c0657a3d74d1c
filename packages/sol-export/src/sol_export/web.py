"""The formula for the web: Markdown with LaTeX between dollar signs, and an HTML page with MathML."""

from __future__ import annotations

import re
from functools import partial

from sol_export.equations import Equation, FormulaExporter, Meaning, checked_title, equations, meanings
from sol_export.file_header import provenance
from sol_export.latex import align
from sol_symbols import INPUTS, SolError, UpdateRule, latex
from sol_symbols.escaping import escaped

__all__ = ["MarkdownExporter", "MathMLExporter"]


class MarkdownExporter(FormulaExporter):
    """Markdown for GitHub, GitLab and Jupyter; constants are rounded to ``digits`` significant digits."""

    filename = "formula.md"
    description = "the formula as Markdown"

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`."""
        rows = [
            f"| {_cell(meaning.symbol)} | {_described(meaning)} | "
            + (f"{_cell(meaning.value)} |" if meaning.value is not None else "|")
            for meaning in meanings(rule, self.digits)
        ]
        text = "\n".join(
            [
                f"# {escaped(checked_title(name), 'markdown')}",
                "",
                f"$\\phi_t = {rule.latex(self.digits)}$",
                "",
                "```math",
                align(rule, self.digits, "aligned"),
                "```",
                "",
                "| symbol | meaning | value |",
                "| --- | --- | --- |",
                *rows,
                "",
                *(f"    {line}".rstrip() for line in provenance(rule, "markdown", name, self.digits).splitlines()),
                "",
            ]
        )
        return re.sub(r"\\operatorname\{(\w+)\}", r"\\mathop{\\mathrm{\1}}", text)  # GitHub rejects \operatorname


def _cell(formula: str) -> str:
    """A formula in a cell of a table, which a bar would end."""
    return "$" + formula.replace("|", r"\vert ") + "$"


def _described(meaning: Meaning) -> str:
    """The description with formulas between dollar signs."""
    return "".join(_cell(part) if i % 2 else escaped(part, "markdown") for i, part in enumerate(meaning.parts))


class MathMLExporter(FormulaExporter):
    """An HTML page whose formulas need no script; constants are rounded to ``digits`` significant digits."""

    filename = "formula.html"
    description = "the formula as a web page"

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text; see :class:`sol_export.Exporter`.

        Raises:
            SolError: The library that converts LaTeX to MathML is missing.
        """
        title = escaped(checked_title(name), "html")
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"/><style>{_STYLE}</style></head>\n'
            f"<body>\n{self.step(rule)}\n{self.formula(rule)}\n{self.symbols(rule)}\n"
            f"<pre>{escaped(provenance(rule, 'mathml', name, self.digits), 'html')}</pre>\n</body>\n</html>\n"
        )

    def step(self, rule: UpdateRule) -> str:
        """Return the optimizer's step as an HTML fragment."""
        return _formula(equations(rule, self.digits)[-1])

    def formula(self, rule: UpdateRule) -> str:
        """Return phi as an HTML fragment; each term is a separate formula to allow line breaks between terms."""
        return _formula(equations(rule, self.digits)[-2])

    def symbols(self, rule: UpdateRule) -> str:
        """Return a table of the formula's symbols as an HTML fragment: symbol, name, meaning and definition."""
        symbol_of = partial(latex, vocabulary=rule.vocabulary)
        known = {symbol_of(name): name for name in (*INPUTS, *rule.values, *rule.live)} | {r"\alpha": "lr"}
        definitions = {equation.left: equation for equation in equations(rule, self.digits)[:-2]}
        direct = {symbol_of(free.name) for free in rule.expression.free_symbols} | {r"\theta_t", r"\phi_t", r"\alpha"}
        sections: dict[bool, list[str]] = {True: [], False: []}
        parts = [Meaning(left, "subexpression of the formula") for left in definitions if left.startswith("u_")]
        for meaning in [*meanings(rule, self.digits), *parts]:
            shown = definitions.get(meaning.symbol)
            value = _formula(shown) if shown else "" if meaning.value is None else _math(meaning.value)
            name = f"<code>{escaped(known[meaning.symbol], 'html')}</code>" if meaning.symbol in known else ""
            cells = (_math(meaning.symbol), name, _words(meaning), value)
            sections[meaning.symbol in direct or meaning in parts].append(_row("td", *cells))
        used_above = '<tr><th colspan="4">used in the definitions above</th></tr>'
        rows = [*sections[True], *([used_above] if sections[False] else []), *sections[False]]
        head = _row("th", "symbol", "name", "meaning", "definition or value")
        return f'<table class="symbols"><thead>{head}</thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody></table>"


_STYLE = (
    "body{font:1rem/1.5 sans-serif;margin:1rem} td,th{text-align:left;padding:.2rem .8rem .2rem 0} pre{overflow:auto}"
)


def _row(kind: str, *cells: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def _formula(equation: Equation) -> str:
    first, *rest = equation.terms
    maths = [_math(f"{equation.left} = {{}}"), _math(first), *(_math(f"{{}} {term}") for term in rest)]  # {}: infix
    return f'<div class="formula">{" ".join(maths)}</div>'


def _math(source: str) -> str:
    """Convert LaTeX to MathML."""
    try:
        from latex2mathml.converter import convert
    except ImportError:
        raise SolError("MathML export needs latex2mathml; run: pip install latex2mathml") from None
    return re.sub(
        r"<mo>([a-z]+)</mo>", r'<mspace width="0.17em"/><mi>\1</mi>', convert(source)
    )  # functions such as sign are not infix operators


def _words(meaning: Meaning) -> str:
    """Return the description with formulas in MathML."""
    return "".join(_math(part) if i % 2 else escaped(part, "html") for i, part in enumerate(meaning.parts))
