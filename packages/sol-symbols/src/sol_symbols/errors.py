"""Errors for the users of ``sol``.

Every error that the caller can fix derives from :class:`SolError`; the command line prints its message and exits with
status 2. Any other exception is a bug in this project and keeps its traceback.
"""

import reprlib

__all__ = ["RuleError", "SolError", "printable", "quoted"]

_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = _QUOTES.maxlong = 60


def quoted(value: object) -> str:
    """``repr(value)``, without its middle if it is long: a person must be able to read the message.

    >>> quoted("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    return _QUOTES.repr(value)


def printable(text: str) -> str:
    """``text`` of others for a terminal: control sequences, invisible and undecodable characters as escapes.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t\xa0" else c.encode("unicode_escape").decode() for c in text)


class SolError(Exception):
    """A request that cannot be fulfilled; the message says what was given and what is allowed."""


class RuleError(SolError, ValueError):
    """A rule, expression or rule file is malformed.

    Args:
        message: What is wrong.
        text: The source text, if the error is in a text.
        offset: Index of the error in ``text``; the message then shows the text with a caret below it.
    """

    def __init__(self, message: str, text: str | None = None, offset: int | None = None) -> None:
        self.text, self.offset = text, offset
        if text is not None and offset is not None:
            message = f"{message}\n{_excerpt(text, offset)}"
        super().__init__(message)


def _excerpt(text: str, offset: int, width: int = 60) -> str:
    """At most ``2 * width`` characters of the line at ``offset``, and a caret below the error."""
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    left, right = max(start, offset - width), min(end, offset + width)
    line = ("…" if left > start else "") + text[left:right] + ("…" if right < end else "")
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return f"  {line}\n  {' ' * (offset - left + (left > start))}^"
