"""Find commands, tasks and exporters of the installed packages by their entry points."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from sol_symbols.errors import SolError

__all__ = ["COMMANDS", "EXPORTERS", "TASKS", "find_plugins", "load_plugin"]

COMMANDS = "sol.commands"
"""Entry point group of sub-commands."""

EXPORTERS = "sol.exporters"
"""Entry point group of exporters."""

TASKS = "sol.tasks"
"""Entry point group of tasks."""


def find_plugins(group: str) -> dict[str, metadata.EntryPoint]:
    """Entry points of ``group`` by name.

    Raises:
        SolError: Two installed distributions offer the same name.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        twin = found.get(point.name)
        if twin is not None and twin.value != point.value:
            raise SolError(
                f"{_origin(point)} and {_origin(twin)} both offer {point.name!r} in {group}; uninstall one of them"
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def load_plugin(group: str, point: metadata.EntryPoint) -> Any:
    """The object behind an entry point.

    Raises:
        SolError: It cannot be imported; the message names the distribution.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise SolError(f"{point.name!r} in {group}, offered by {_origin(point)}, cannot be loaded: {error}") from error


def _origin(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
