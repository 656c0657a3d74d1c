"""The port of exporters: what turns a rule into a file of some other language."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sol_export.verification import Executable, verify
from sol_symbols import SolError, UpdateRule
from sol_symbols.plugins import EXPORTERS, find_plugins, load_plugin

__all__ = ["Exporter", "RoundingExporter", "export_rule", "exporters", "load_exporter", "verify_source"]


class Exporter(Protocol):
    """What an entry point of the group ``sol.exporters`` is, once called without arguments.

    Attributes:
        filename: Name of the file in a run's folder.
        description: What the file is, in a few words, for the report of a run.
    """

    filename: str
    description: str

    def export(self, rule: UpdateRule, name: str) -> str:
        """Source text of ``rule`` under the class or function name ``name``.

        Raises:
            SolError: The rule cannot be expressed in this language, or the language does not allow the name.
        """


@runtime_checkable
class RoundingExporter(Exporter, Protocol):
    """An exporter for people, which can round constants."""

    def rounded(self, digits: int) -> Exporter:
        """The exporter with constants rounded to ``digits`` significant digits."""


def exporters() -> tuple[str, ...]:
    """Names of the installed exporters."""
    return tuple(find_plugins(EXPORTERS))


def load_exporter(to: str) -> Exporter:
    """The installed exporter ``to``.

    Raises:
        SolError: There is none of this name, or it cannot be imported.
    """
    plugins = find_plugins(EXPORTERS)
    if to not in plugins:
        raise SolError(f"no exporter {to!r}; installed: {', '.join(plugins)}")
    exporter: Exporter = load_plugin(EXPORTERS, plugins[to])()
    return exporter


def export_rule(rule: UpdateRule, to: str, name: str | None = None, digits: int | None = None) -> str:
    """Source text of a rule.

    Args:
        rule: The rule.
        to: Name of an exporter, such as ``torch`` or ``latex``.
        name: Class name; made from the rule's own name by default.
        digits: Significant digits of constants, for a :class:`RoundingExporter`.

    Raises:
        SolError: There is no such exporter, it does not round, or the language does not allow ``name``.
    """
    exporter = load_exporter(to)
    if digits is not None:
        if not isinstance(exporter, RoundingExporter):
            raise SolError(
                f"{to} source keeps constants exact; drop digits, or export a formula (latex, markdown, mathml)"
            )
        exporter = exporter.rounded(digits)
    return exporter.export(rule, rule.class_name if name is None else name)


def verify_source(rule: UpdateRule, source: str, to: str, name: str | None = None) -> dict[str, float] | None:
    """Run what :func:`export_rule` made of a rule against the rule itself.

    Returns:
        The largest relative difference for each dtype; ``None`` where the language is not one that runs.

    Raises:
        SolError: The source is not the rule.
        ImportError: What runs the language is not installed.

    >>> rule = UpdateRule.parse("ad")
    >>> verify_source(rule, export_rule(rule, "latex"), "latex") is None
    True
    """
    exporter = load_exporter(to)
    if not isinstance(exporter, Executable):
        return None
    return verify(rule, source, rule.class_name if name is None else name, exporter)
