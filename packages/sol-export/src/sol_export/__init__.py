"""Stand-alone source from update rules. Each file is self-contained and can be verified against its rule.

A name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sol_export.exporter import Exporter, RoundingExporter, export_rule, exporters, load_exporter, verify_source
    from sol_export.verification import Executable, Trajectory

__version__ = "0.1.0"

__all__ = [
    "Executable",
    "Exporter",
    "RoundingExporter",
    "Trajectory",
    "export_rule",
    "exporters",
    "load_exporter",
    "verify_source",
]

_HOME = {
    "Executable": "verification",
    "Exporter": "exporter",
    "RoundingExporter": "exporter",
    "Trajectory": "verification",
    "export_rule": "exporter",
    "exporters": "exporter",
    "load_exporter": "exporter",
    "verify_source": "exporter",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sol_export' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sol_export.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
