"""Text of others in documents: shown as it is, and never a command of the document's language.

For terminals, see :func:`sol_symbols.errors.printable`.
"""

from __future__ import annotations

import html

__all__ = ["escaped"]

_TEX = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    **{character: f"${character}$" for character in "<=>|"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}
"""LaTeX's special characters, and those that its text font lacks."""

_MARKDOWN = {character: f"\\{character}" for character in r"\`*_[]<>#|$~&!"}

_TABLES = {
    "tex": str.maketrans(_TEX),
    "markdown": str.maketrans(_MARKDOWN),
    "plot": str.maketrans({"$": r"\$"}),  # matplotlib reads formulas between dollar signs
}


def escaped(text: str, medium: str) -> str:
    """``text`` of one line as ``medium`` has to spell it: ``tex``, ``markdown``, ``html`` or ``plot`` (matplotlib).

    >>> escaped("50% of <b>", "tex"), escaped("[a](b) | *c*", "markdown"), escaped("$x", "plot")
    ('50\\\\% of $<$b$>$', '\\\\[a\\\\](b) \\\\| \\\\*c\\\\*', '\\\\$x')
    """
    return html.escape(text) if medium == "html" else text.translate(_TABLES[medium])
