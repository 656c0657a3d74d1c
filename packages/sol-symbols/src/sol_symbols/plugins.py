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

_OURS = ("sol_symbols.", "sol_export.", "sol_learner.", "sol_tasks.")


class _Clash(metadata.EntryPoint):
    """A name that several distributions offer: it can be listed, and loading it says what to do."""

    def load(self) -> Any:
        raise ImportError(vars(self)["said"])


def find_plugins(group: str) -> dict[str, metadata.EntryPoint]:
    """Entry points of ``group`` by name.

    If two installed distributions offer one name, this project's is used; if neither is this project's, loading the
    entry point raises an error that names both.
    """
    offered: dict[str, list[metadata.EntryPoint]] = {}
    for point in metadata.entry_points(group=group):
        offered.setdefault(point.name, []).append(point)
    found = {}
    for name, points in sorted(offered.items()):
        found[name] = next((point for point in points if point.value.startswith(_OURS)), points[0])
        if len({point.value for point in points}) > 1 and not found[name].value.startswith(_OURS):
            found[name] = _Clash(name, points[0].value, group)
            both = " and ".join(map(_origin, points))
            vars(found[name])["said"] = f"{both} both offer {name!r} in {group}; uninstall one of them"
    return found


def load_plugin(group: str, point: metadata.EntryPoint) -> Any:
    """The object behind an entry point.

    Raises:
        SolError: It cannot be imported, whatever its code raises; the message names the distribution.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # the code of others
        said = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise SolError(f"{point.name!r} in {group}, offered by {_origin(point)}, cannot be loaded: {said}") from error


def _origin(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
