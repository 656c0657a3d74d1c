"""The formula for the web: Markdown with LaTeX between dollar signs, and an HTML page with MathML."""

from __future__ import annotations

from html import escape

from sol_export.equations import equations, meanings
from sol_export.latex import align
from sol_export.text import provenance
from sol_symbols import SolError, UpdateRule

__all__ = ["MarkdownExporter", "MathMLExporter"]


class MarkdownExporter:
    """Markdown as GitHub, GitLab and Jupyter show it; constants are rounded to ``digits`` significant digits."""

    filename = "formula.md"

    def __init__(self, digits: int = 4) -> None:
        self.digits = digits

    def export(self, rule: UpdateRule, name: str) -> str:
        """The source text; see :class:`sol_export.Exporter`."""
        rows = [
            f"| ${meaning.symbol}$ | {meaning.description.replace('|', chr(92) + '|')} | "
            + (f"${meaning.value}$ |" if meaning.value is not None else "|")
            for meaning in meanings(rule, self.digits)
        ]
        text = "\n".join(
            [
                f"# {name}",
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
                *(f"    {line}".rstrip() for line in provenance(rule, "markdown", name).splitlines()),
                "",
            ]
        )
        return text.replace(r"\operatorname{sign}", r"\mathop{\mathrm{sign}}")  # GitHub refuses \operatorname


class MathMLExporter:
    """An HTML page whose formulas browsers show without a script; constants are rounded to ``digits`` digits."""

    filename = "formula.html"

    def __init__(self, digits: int = 4) -> None:
        self.digits = digits

    def export(self, rule: UpdateRule, name: str) -> str:
        """The source text; see :class:`sol_export.Exporter`.

        Raises:
            SolError: The library that turns LaTeX into MathML is missing.
        """
        try:
            from latex2mathml.converter import convert
        except ImportError:
            raise SolError("MathML needs latex2mathml: pip install latex2mathml") from None
        block = "".join(
            convert(rf"{equation.left} = {' '.join(equation.right)}", display="block")
            for equation in equations(rule, self.digits)
        )
        items = "\n".join(
            f"<li>{convert(meaning.symbol + (f' = {meaning.value}' if meaning.value is not None else ''))}: "
            + "".join(convert(part) if i % 2 else escape(part) for i, part in enumerate(meaning.parts))
            + "</li>"
            for meaning in meanings(rule, self.digits)
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(name)}</title></head>\n'
            f"<body>\n{block}\n<ul>\n{items}\n</ul>\n"
            f"<pre>{escape(provenance(rule, 'mathml', name))}</pre>\n</body>\n</html>\n"
        )
