"""The sub-command that this package adds to ``sol``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sol_symbols.files import write_atomically
from sol_symbols.plugins import EXPORTERS, find_plugins

if TYPE_CHECKING:  # imported where they are used, so that sol --help loads neither SymPy nor NumPy
    from sol_symbols.rule import UpdateRule

__all__ = ["Export"]


class Export:
    """Write a rule as stand-alone source: PyTorch, LaTeX, ..."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        from sol_symbols.resolve import add_rule_argument

        add_rule_argument(parser)
        parser.add_argument("--to", required=True, choices=[*find_plugins(EXPORTERS)], help="language")
        parser.add_argument(
            "-o", "--output", metavar="FILE", type=Path, help="file to write; standard output if absent"
        )
        parser.add_argument("--name", help="name of the class; made from the rule's name if absent")
        parser.add_argument(
            "--digits", metavar="N", type=int, help="significant digits of constants in LaTeX and the like"
        )
        parser.add_argument(
            "--verify",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="run the source and compare it with the rule before it is written (default)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        from sol_export.exporter import export_rule
        from sol_symbols.resolve import rule_of

        rule = rule_of(arguments)
        text = export_rule(rule, arguments.to, arguments.name, arguments.digits)
        note = _verified(rule, text, arguments.to, arguments.name) if arguments.verify else "not verified"
        if arguments.output is None:
            print(text, end="")
            print(note, file=sys.stderr)
        else:
            write_atomically(arguments.output, text)
            print(f"wrote {arguments.output}; {note}")
        return 0


def _verified(rule: UpdateRule, source: str, to: str, name: str | None) -> str:
    """What came out of the verification, in one line."""
    from sol_export.exporter import verify_source

    try:
        differences = verify_source(rule, source, to, name)
    except ImportError as error:
        return f"not verified, because {error.name or 'what runs it'} is not installed"
    if differences is None:
        return f"{to} does not run, so there is nothing to verify"
    each = ", ".join(f"{difference:.2g} in {dtype}" for dtype, difference in differences.items())
    return f"verified against the rule: largest relative difference in a step {each}"
