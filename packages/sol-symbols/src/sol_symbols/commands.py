"""The sub-commands that this package adds to ``sol``."""

from __future__ import annotations

import argparse

from sol_symbols.grammar import format_expression
from sol_symbols.resolve import resolve_rule

__all__ = ["Show"]


class Show:
    """Show a rule: its formula, what its names mean, and how long it is."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        parser.add_argument("rule", metavar="RULE", help='run folder, rule file, zoo name, or "formula"')

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        rule = resolve_rule(arguments.rule)
        if rule.name:
            print(f"name        {rule.name}")
        print(f"update      {rule}")
        for name in rule.live:
            before = " (state)" if name in rule.states else ""
            print(f"  {name:<10}= {format_expression(rule.vocabulary.definitions[name])}{before}")
        values = {"lr": rule.lr, **rule.values}
        print("values      " + ", ".join(f"{k} = {'open' if v is None else f'{v:g}'}" for k, v in values.items()))
        size = rule.complexity
        print(f"complexity  {size.terms} terms, {size.nodes} nodes, {size.states} states per parameter")
        for key, value in rule.provenance.items():
            print(f"{key:<11} {value}")
        return 0
