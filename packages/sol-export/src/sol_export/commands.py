"""The commands ``sol export`` and ``sol verify``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sol_symbols.files import write_atomically
from sol_symbols.plugins import EXPORTERS, find_plugins

if TYPE_CHECKING:  # imported where they are used: sol --help loads neither SymPy nor NumPy
    from sol_symbols.rule import UpdateRule

__all__ = ["Export", "Verify"]


class Export:
    """Export a rule as stand-alone source: PyTorch, Optax, LaTeX, ..."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and positional arguments."""
        from sol_symbols.resolve import add_rule_argument

        add_rule_argument(parser)
        parser.add_argument("--to", required=True, choices=[*find_plugins(EXPORTERS)], help="target language")
        parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="output file (default: standard output)")
        parser.add_argument("--name", help="name of the class or function, or document title (default: from the rule)")
        parser.add_argument(
            "--digits", metavar="N", type=int, help="significant digits of constants, for LaTeX, Markdown and MathML"
        )
        parser.add_argument(
            "--verify",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="run the source and compare it with the rule before writing (default)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
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


class Verify:
    """Verify an emitted file, or any optimizer class of PyTorch: run it, and compare it with a formula.

    The file is run as code: verify only what you trust.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and positional arguments."""
        parser.add_argument(
            "file",
            metavar="FILE",
            help="a file of sol export, such as optimizer.py, or a class: FILE.py:CLASS or torch:NAME, with RULE",
        )
        parser.add_argument(
            "rule",
            metavar="RULE",
            nargs="?",
            help="run folder, rule file, zoo name, or formula (default: the header's)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from sol_symbols.resolve import resolve_rule

        rule = None if arguments.rule is None else resolve_rule(arguments.rule)
        print(f"{arguments.file}: {_verified_file(arguments.file, rule)}")
        return 0


def _verified_file(text: str, rule: UpdateRule | None) -> str:
    """Verify what the command's FILE names, and summarize the outcome in one line."""
    from sol_export.exporter import load_exporter
    from sol_export.loading import read_emitted
    from sol_export.verification import Executable, is_class, load_class, verify, verify_class
    from sol_symbols.errors import SolError
    from sol_symbols.rule import UpdateRule

    if is_class(text):
        if rule is None:
            raise SolError(f"{text} has no formula of its own; give one as RULE: sol verify {text} RULE")
        formula = rule
        return _outcome(lambda: verify_class(formula, load_class(text), text))
    path = Path(text)
    try:
        header = read_emitted(path)
    except SolError as error:
        hint = f"; for an optimizer class in it, write {text}:CLASS RULE" if path.is_file() else ""
        raise SolError(f"{error}{hint if path.suffix == '.py' else ''}") from None
    if rule is None and header.rule == "RULE":
        raise SolError(f"the header of {text} does not define its rule; give the rule's file as RULE")
    formula = UpdateRule.parse(header.rule) if rule is None else rule
    exporter = load_exporter(header.to)
    if not isinstance(exporter, Executable):
        return _not_executable(header.to)
    source = path.read_text(encoding="utf-8")
    remark = "The file was changed, or is of another rule"
    return _outcome(lambda: verify(formula, source, header.name, exporter, remark))


def _verified(rule: UpdateRule, source: str, to: str, name: str | None) -> str:
    """Verify the source and summarize the outcome in one line."""
    from sol_export.exporter import verify_source

    return _outcome(lambda: verify_source(rule, source, to, name)) or _not_executable(to)


def _not_executable(to: str) -> str:
    return f"not verified: {to} is not executable"


def _outcome(run: Callable[[], Mapping[str, float] | None]) -> str:
    """The line about a verification; empty if there was none."""
    from sol_export.verification import STEPS, TOLERANCES

    try:
        differences = run()
    except ImportError as error:
        return f"not verified: {error.name or 'a required library'} is not installed"
    if differences is None:
        return ""
    each = ", ".join(f"{difference:.2g} in {dtype}" for dtype, difference in differences.items())
    amplified = any(difference > TOLERANCES[dtype] for dtype, difference in differences.items())
    note = "; the rule amplifies rounding errors, and differences of that size are not counted" if amplified else ""
    equal = f"equal over {STEPS} steps, up to rounding"
    return f"verified against the rule; largest relative difference per step: {each}; {equal}{note}"
