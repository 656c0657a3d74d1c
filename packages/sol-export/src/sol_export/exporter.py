"""The interface of exporters, which turn a rule into a file in another language."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sol_export.verification import Executable, verify
from sol_symbols import SolError, UpdateRule
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin

__all__ = ["Exporter", "RoundingExporter", "export_rule", "exporters", "load_exporter", "verify_source"]


class Exporter(Protocol):
    """What an entry point in the group ``sol.exporters`` returns when called without arguments.

    Attributes:
        filename: Name of the file in the run folder.
        description: What the file is, in a few words, for the report of a run.
    """

    filename: str
    description: str

    def export(self, rule: UpdateRule, name: str) -> str:
        """Return the source text of ``rule``. ``name`` names the class or function, or is the title of the document.

        Raises:
            SolError: The language cannot express the rule, or does not allow the name.
        """


@runtime_checkable
class RoundingExporter(Exporter, Protocol):
    """An exporter that can round constants, as ``sol export --digits`` requires."""

    def with_digits(self, digits: int) -> Exporter:
        """Return an exporter that rounds constants to ``digits`` significant digits, at least 1."""


def exporters() -> tuple[str, ...]:
    """Return the names of the installed exporters."""
    return tuple(find_plugins(EXPORTERS))


def load_exporter(to: str) -> Exporter:
    """Return the installed exporter ``to``.

    Raises:
        SolError: No exporter has this name, or it cannot be imported.
    """
    plugins = find_plugins(EXPORTERS)
    if to not in plugins:
        raise SolError(f"no exporter {to!r}; installed: {', '.join(plugins)}")
    exporter: Exporter = load_plugin(EXPORTERS, plugins[to])()
    return exporter


def export_rule(rule: UpdateRule, to: str, name: str | None = None, digits: int | None = None) -> str:
    """Return the source text of a rule.

    Args:
        rule: The rule.
        to: Name of an exporter, such as ``torch`` or ``latex``.
        name: Name of the class or function, or title of the document; derived from the rule's name by default.
        digits: Significant digits of constants, for a :class:`RoundingExporter` only.

    Raises:
        SolError: There is no such exporter, it does not round constants, ``digits`` is not from 1 to 17, or the
            exporter rejects the rule or the name.
    """
    exporter = load_exporter(to)
    if digits is not None:
        if not 1 <= digits <= 17:
            raise SolError(f"digits must be from 1 to 17, all that a float64 has, got {digits}")
        if not isinstance(exporter, RoundingExporter):
            raise SolError(f"{to} source keeps constants exact; omit digits")
        exporter = exporter.with_digits(digits)
    return exporter.export(rule, rule.class_name if name is None else name)


def verify_source(rule: UpdateRule, source: str, to: str, name: str | None = None) -> dict[str, float] | None:
    """Run the source that :func:`export_rule` returned and compare it with the rule.

    Returns:
        The largest relative difference for each dtype; ``None`` if the language is not executable.

    Raises:
        SolError: The source does not match the rule.
        ImportError: A library that runs the language is not installed.

    >>> rule = UpdateRule.parse("ad")
    >>> verify_source(rule, export_rule(rule, "latex"), "latex") is None
    True
    """
    exporter = load_exporter(to)
    if not isinstance(exporter, Executable):
        return None
    return verify(rule, source, rule.class_name if name is None else name, exporter)
