"""Stand-alone source from update rules. Each file is self-contained and can be verified against its rule.

A name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sol_symbols.lazy import lazy_names

if TYPE_CHECKING:
    from sol_export.exporter import Exporter, RoundingExporter, export_rule, exporters, load_exporter, verify_source
    from sol_export.loading import load_optimizer
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
    "load_optimizer",
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
    "load_optimizer": "loading",
    "verify_source": "exporter",
}
"""The module of each name."""

if not TYPE_CHECKING:  # otherwise every name would exist for type checkers
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
