"""Operator algebra and update rules: the symbolic core of ``sol``. Needs SymPy and NumPy only.

A name is loaded when it is first used, so that ``import sol_symbols`` and the ``sol`` command start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sol_symbols.errors import RuleError, SolError
    from sol_symbols.evaluation import Evaluator, feature_evaluator
    from sol_symbols.files import write_atomically
    from sol_symbols.grammar import (
        ExpressionPrinter,
        expand_terms,
        format_expression,
        format_number,
        parse_expression,
        symbol,
    )
    from sol_symbols.hoisting import hoisted
    from sol_symbols.latex_printer import latex
    from sol_symbols.operators import OPERATORS, Operator
    from sol_symbols.plotting import plot
    from sol_symbols.program import Assignment, Program, lower_features
    from sol_symbols.ranges import FORMATS, NumberFormat, Ranges, value_ranges
    from sol_symbols.resolve import add_rule_argument, resolve_rule, rule_of
    from sol_symbols.response_curves import Line, Panel, responses
    from sol_symbols.rule import Complexity, RuleEvaluator, UpdateRule, evaluator, lower
    from sol_symbols.simplification import Simplification, round_constants, simplify
    from sol_symbols.storage import SCHEMA
    from sol_symbols.symmetry import parity, probed_parity, probed_scaling_degree, scaling_degree
    from sol_symbols.vocabulary import INPUTS, STANDARD, Feature, Hyperparameter, Recurrence, Vocabulary
    from sol_symbols.zoo import ZOO

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "INPUTS",
    "OPERATORS",
    "SCHEMA",
    "STANDARD",
    "ZOO",
    "Assignment",
    "Complexity",
    "Evaluator",
    "ExpressionPrinter",
    "Feature",
    "Hyperparameter",
    "Line",
    "NumberFormat",
    "Operator",
    "Panel",
    "Program",
    "Ranges",
    "Recurrence",
    "RuleError",
    "RuleEvaluator",
    "Simplification",
    "SolError",
    "UpdateRule",
    "Vocabulary",
    "add_rule_argument",
    "evaluator",
    "expand_terms",
    "feature_evaluator",
    "format_expression",
    "format_number",
    "hoisted",
    "latex",
    "lower",
    "lower_features",
    "parity",
    "parse_expression",
    "plot",
    "probed_parity",
    "probed_scaling_degree",
    "resolve_rule",
    "responses",
    "round_constants",
    "rule_of",
    "scaling_degree",
    "simplify",
    "symbol",
    "value_ranges",
    "write_atomically",
]

_HOME = {
    "Assignment": "program",
    "Complexity": "rule",
    "Evaluator": "evaluation",
    "ExpressionPrinter": "grammar",
    "FORMATS": "ranges",
    "Feature": "vocabulary",
    "Hyperparameter": "vocabulary",
    "INPUTS": "vocabulary",
    "Line": "response_curves",
    "NumberFormat": "ranges",
    "OPERATORS": "operators",
    "Operator": "operators",
    "Panel": "response_curves",
    "Program": "program",
    "Ranges": "ranges",
    "Recurrence": "vocabulary",
    "RuleError": "errors",
    "RuleEvaluator": "rule",
    "SCHEMA": "storage",
    "STANDARD": "vocabulary",
    "Simplification": "simplification",
    "SolError": "errors",
    "UpdateRule": "rule",
    "Vocabulary": "vocabulary",
    "ZOO": "zoo",
    "add_rule_argument": "resolve",
    "evaluator": "rule",
    "expand_terms": "grammar",
    "feature_evaluator": "evaluation",
    "format_expression": "grammar",
    "format_number": "grammar",
    "hoisted": "hoisting",
    "latex": "latex_printer",
    "lower": "rule",
    "lower_features": "program",
    "parity": "symmetry",
    "parse_expression": "grammar",
    "plot": "plotting",
    "probed_parity": "symmetry",
    "probed_scaling_degree": "symmetry",
    "resolve_rule": "resolve",
    "responses": "response_curves",
    "round_constants": "simplification",
    "rule_of": "resolve",
    "scaling_degree": "symmetry",
    "simplify": "simplification",
    "symbol": "grammar",
    "value_ranges": "ranges",
    "write_atomically": "files",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sol_symbols' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sol_symbols.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
