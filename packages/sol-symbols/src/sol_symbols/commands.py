"""The sub-commands that this package adds to ``sol``. NumPy is imported when they run: ``sol --help`` must not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sol_symbols.errors import SolError, printable
from sol_symbols.files import write_atomically

if TYPE_CHECKING:  # imported where they are used: sol --help loads neither SymPy nor NumPy
    from sol_symbols.rule import UpdateRule

__all__ = ["Glossary", "Show"]


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SolError(f"{text!r} is not a positive number")
    return value


class Show:
    """Show a rule: its formula, the meaning of its names, its size and where it can overflow."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add options and positional arguments."""

        from sol_symbols.resolve import add_rule_argument

        add_rule_argument(parser)
        parser.add_argument("--gradient", type=_positive, default=100.0, metavar="G", help="ranges for |g| <= G (100)")
        parser.add_argument(
            "--plot", type=Path, metavar="FILE", help="plot phi over g, momentum and t/T (png, svg, pdf)"
        )
        parser.add_argument(
            "--scale", type=_positive, default=1.0, metavar="S", help="size of the gradients in the plot (1)"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""

        from sol_symbols.grammar import format_expression
        from sol_symbols.plotting import plot
        from sol_symbols.ranges import value_ranges
        from sol_symbols.resolve import rule_of
        from sol_symbols.simplification import simplify

        rule = rule_of(arguments)
        if rule.name:
            print(f"name        {printable(rule.name)}")
        print(f"update      {rule}")
        short = simplify(rule).rule
        if short != rule:
            print(f"shorter     {short}")
        for name in rule.live:
            before = " (state)" if name in rule.states else ""
            print(f"  {name:<10}= {format_expression(rule.vocabulary.definitions[name])}{before}")
        values = {"lr": rule.lr, **rule.values}
        print("values      " + ", ".join(f"{k} = {'open' if v is None else f'{v:g}'}" for k, v in values.items()))
        size = rule.complexity
        print(f"complexity  {size.terms} terms, {size.nodes} nodes, {rule.memory}")
        print(f"symmetry    {_symmetry(rule)}")
        ranges = value_ranges(rule, arguments.gradient)
        low, high = ranges.bounds["phi"]
        print(
            f"range       phi in [{low:.3g}, {high:.3g}] for |g| <= {ranges.gradient:g}, the first {ranges.steps} steps"
        )
        for warning in ranges.warnings:
            print(f"  warning   {warning}")
        for key, value in rule.provenance.items():
            print(printable(f"{key:<11} {value}"))
        if arguments.plot:
            plot(rule, arguments.plot, arguments.scale)
            print(f"wrote {arguments.plot}")
        return 0


def _symmetry(rule: UpdateRule) -> str:
    """Parity and scaling degree by the formula's form, and by evaluation where that differs."""
    from sol_symbols.symmetry import parity, probed_parity, probed_scaling_degree, scaling_degree

    names = {-1: "odd", 1: "even", 0: "neither odd nor even"}
    sign, degree = parity(rule.expression, rule.vocabulary), scaling_degree(rule.expression, rule.vocabulary)
    form = (names[sign], "no scaling degree" if degree is None else f"scaling degree {degree}")
    sign, degree = probed_parity(rule), probed_scaling_degree(rule)
    probes = (names[sign], "no scaling degree" if degree is None else f"scaling degree {degree:g}")
    lines = [x if x == y else f"{x} by its form, {y} by probes" for x, y in zip(form, probes)]
    return "; ".join(lines)


class Glossary:
    """List operators, inputs, hyperparameters, states and features, or the rules of the zoo."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add options and positional arguments."""
        parser.add_argument("--zoo", action="store_true", help="published optimizers instead, with formulas and memory")
        parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write Markdown to FILE")

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""

        from sol_symbols.glossary import glossary_markdown, zoo_markdown

        text = zoo_markdown() if arguments.zoo else glossary_markdown()
        if arguments.output is None:
            print(text, end="")
        else:
            write_atomically(arguments.output, text)
            print(f"wrote {arguments.output}")
        return 0
