"""The sub-command that this package adds to ``sol``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sol_export.exporter import export_rule, exporters
from sol_symbols import resolve_rule, write_atomically

__all__ = ["Export"]


class Export:
    """Write a rule as stand-alone source: PyTorch, LaTeX, ..."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        parser.add_argument("rule", metavar="RULE", help='run folder, rule file, zoo name, or "formula"')
        parser.add_argument("--to", required=True, choices=exporters(), help="language")
        parser.add_argument(
            "-o", "--output", metavar="FILE", type=Path, help="file to write; standard output if absent"
        )
        parser.add_argument("--name", help="name of the class; made from the rule's name if absent")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        text = export_rule(resolve_rule(arguments.rule), arguments.to, arguments.name)
        if arguments.output is None:
            print(text, end="")
        else:
            write_atomically(arguments.output, text)
            print(f"wrote {arguments.output}")
        return 0
