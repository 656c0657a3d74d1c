"""Stand-alone source from update rules: each file needs nothing of this project and provably is the rule."""

from sol_export.exporter import Exporter, export_rule, exporters, load_exporter, verify_source
from sol_export.verification import Executable, Trajectory

__version__ = "0.1.0"

__all__ = [
    "Executable",
    "Exporter",
    "Trajectory",
    "export_rule",
    "exporters",
    "load_exporter",
    "verify_source",
]
