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
from sol_symbols.hoisting import hoisted
from sol_symbols.latex import latex
from sol_symbols.operators import OPERATORS, Operator
from sol_symbols.program import Assignment, Program, lower, lower_features
from sol_symbols.ranges import FORMATS, NumberFormat, Ranges
from sol_symbols.resolve import add_rule_argument, resolve_rule, rule_of
from sol_symbols.responses import Line, Panel, responses
from sol_symbols.rule import Complexity, UpdateRule
from sol_symbols.simplify import Simplification, round_constants, simplify
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
    "probed_parity",
    "probed_scaling_degree",
    "resolve_rule",
    "responses",
    "round_constants",
    "rule_of",
    "scaling_degree",
    "simplify",
    "symbol",
    "write_atomically",
]
