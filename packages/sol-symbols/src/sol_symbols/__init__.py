"""Operator algebra and update rules: the symbolic core of ``sol``. Needs SymPy and NumPy only."""

from sol_symbols.errors import RuleError, SolError
from sol_symbols.evaluate import Evaluator, RuleEvaluator, evaluator, feature_evaluator
from sol_symbols.files import write_atomically
from sol_symbols.grammar import (
    ExpressionPrinter,
    expand_terms,
    format_expression,
    format_number,
    parse_expression,
    symbol,
)
from sol_symbols.latex import latex
from sol_symbols.operators import OPERATORS, Operator
from sol_symbols.program import Assignment, Program, lower, lower_features
from sol_symbols.resolve import resolve_rule
from sol_symbols.rule import Complexity, UpdateRule
from sol_symbols.storage import SCHEMA
from sol_symbols.symmetry import parity, scaling_degree
from sol_symbols.vocabulary import INPUTS, STANDARD, Feature, Hyperparameter, Recurrence, Vocabulary
from sol_symbols.zoo import ZOO

__version__ = "0.1.0"

__all__ = [
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
    "Operator",
    "Program",
    "Recurrence",
    "RuleError",
    "RuleEvaluator",
    "SolError",
    "UpdateRule",
    "Vocabulary",
    "evaluator",
    "expand_terms",
    "feature_evaluator",
    "format_expression",
    "format_number",
    "latex",
    "lower",
    "lower_features",
    "parity",
    "parse_expression",
    "resolve_rule",
    "scaling_degree",
    "symbol",
    "write_atomically",
]
