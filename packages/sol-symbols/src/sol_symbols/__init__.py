"""Operator algebra and update rules: the symbolic core of ``sol``. Needs SymPy and NumPy only.

Modules are imported when one of their names is first used: neither reading rules nor ``sol --help`` waits for NumPy.
"""

from typing import TYPE_CHECKING

from sol_symbols.lazy import lazy_names

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
    from sol_symbols.kinds import Kind, Layout
    from sol_symbols.latex_printer import latex
    from sol_symbols.operators import OPERATORS, REDUCTIONS, Operator, Reduction
    from sol_symbols.plotting import plot
    from sol_symbols.program import Assignment, Program, lower_features
    from sol_symbols.ranges import FORMATS, NumberFormat, Ranges, value_ranges
    from sol_symbols.resolve import add_rule_argument, resolve_rule, rule_of
    from sol_symbols.response_curves import Line, Panel, responses
    from sol_symbols.rule import Complexity, RuleEvaluator, UpdateRule, evaluator, lower, lower_evaluation
    from sol_symbols.simplification import Simplification, round_constants, simplify
    from sol_symbols.storage import SCHEMA
    from sol_symbols.symmetry import parity, probed_parity, probed_scaling_degree, scaling_degree
    from sol_symbols.vocabulary import INPUTS, STANDARD, Feature, Hyperparameter, Input, Recurrence, Vocabulary
    from sol_symbols.zoo import ZOO

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "INPUTS",
    "OPERATORS",
    "REDUCTIONS",
    "SCHEMA",
    "STANDARD",
    "ZOO",
    "Assignment",
    "Complexity",
    "Evaluator",
    "ExpressionPrinter",
    "Feature",
    "Hyperparameter",
    "Input",
    "Kind",
    "Layout",
    "Line",
    "NumberFormat",
    "Operator",
    "Panel",
    "Program",
    "Ranges",
    "Recurrence",
    "Reduction",
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
    "lower_evaluation",
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

_MODULES = {
    "errors": (
        "RuleError",
        "SolError",
    ),
    "evaluation": (
        "Evaluator",
        "feature_evaluator",
    ),
    "files": ("write_atomically",),
    "grammar": (
        "ExpressionPrinter",
        "expand_terms",
        "format_expression",
        "format_number",
        "parse_expression",
        "symbol",
    ),
    "hoisting": ("hoisted",),
    "kinds": (
        "Kind",
        "Layout",
    ),
    "latex_printer": ("latex",),
    "operators": (
        "OPERATORS",
        "REDUCTIONS",
        "Operator",
        "Reduction",
    ),
    "plotting": ("plot",),
    "program": (
        "Assignment",
        "Program",
        "lower_features",
    ),
    "ranges": (
        "FORMATS",
        "NumberFormat",
        "Ranges",
        "value_ranges",
    ),
    "resolve": (
        "add_rule_argument",
        "resolve_rule",
        "rule_of",
    ),
    "response_curves": (
        "Line",
        "Panel",
        "responses",
    ),
    "rule": (
        "Complexity",
        "RuleEvaluator",
        "UpdateRule",
        "evaluator",
        "lower",
        "lower_evaluation",
    ),
    "simplification": (
        "Simplification",
        "round_constants",
        "simplify",
    ),
    "storage": ("SCHEMA",),
    "symmetry": (
        "parity",
        "probed_parity",
        "probed_scaling_degree",
        "scaling_degree",
    ),
    "vocabulary": (
        "INPUTS",
        "STANDARD",
        "Feature",
        "Hyperparameter",
        "Input",
        "Recurrence",
        "Vocabulary",
    ),
    "zoo": ("ZOO",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # otherwise every name would exist for type checkers
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
