"""The glossary: what a rule may be made of, written down from the tables that define it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sol_symbols.grammar import format_expression, format_number, symbol
from sol_symbols.latex_printer import latex
from sol_symbols.operators import OPERATORS
from sol_symbols.vocabulary import INPUTS, STANDARD
from sol_symbols.zoo import ZOO

__all__ = ["glossary_markdown"]

_TERMS = (
    ("optimizee", "the model that is being trained, by the optimizer that is learned or shown"),
    ("update rule, phi", "the elementwise formula whose value, times lr, the optimizer subtracts from the parameters"),
    ("lr", "learning rate: multiplies the rule, `params - lr * phi`; not part of the formula"),
    ("operator", "a function that formulas are built with; the table below is the only one"),
    ("input", "what is given from outside at every step"),
    (
        "state",
        "a number kept per parameter, defined by a recurrence; `s` is its value after this step, `s_prev` before",
    ),
    ("feature", "a named formula over inputs, states and hyperparameters"),
    ("hyperparameter", "a number that stays the same during a run and has a default"),
    ("constant", "a number of one formula, written out or named: `c*g where c = 0.5`"),
    ("horizon, T", "the number of steps that a schedule is laid over; decays are 0 from there on"),
    ("live", "used by a rule; only live states are kept"),
    ("complexity", "additive terms, nodes of the expression, and states per parameter"),
    ("parity", "odd: mirrored gradients give the mirrored update, as with all the classics"),
    ("scaling degree", "the k in phi(c g_1..c g_t) = c^k phi(g_1..g_t): 0 for Adam, 1 for gradient descent"),
)


def glossary_markdown() -> str:
    """The glossary as Markdown."""
    states = {f"`{name}`": (state, STANDARD.definitions[name]) for name, state in STANDARD.recurrences.items()}
    features = {f"`{name}`": (feature, STANDARD.definitions[name]) for name, feature in STANDARD.features.items()}
    sections = [
        "# Glossary",
        "Written by `sol glossary -o docs/glossary.md` from the tables in the code.",
        _table(("word", "meaning"), _TERMS),
        "## Operators",
        "A formula is made of the names below, numbers, `+ - * / **`, parentheses and these functions.",
        _table(("operator", "meaning"), ((f"`{_call(name)}`", o.description) for name, o in OPERATORS.items())),
        "## Inputs",
        _table(
            ("name", "in LaTeX", "meaning"), ((f"`{i.name}`", _math(i.name), i.description) for i in INPUTS.values())
        ),
        "## Hyperparameters",
        _table(
            ("name", "in LaTeX", "default", "allowed", "meaning"),
            (
                (f"`{h.name}`", _math(h.name), format_number(h.default), f"[{h.lower:g}, {h.upper:g})", h.description)
                for h in STANDARD.hyperparameters.values()
                if h.default is not None
            ),
        ),
        "## States",
        _table(
            ("name", "in LaTeX", "starts at", "update", "meaning"),
            (
                (n, _math(s.name), format_number(s.init), f"`{format_expression(d)}`", s.description)
                for n, (s, d) in states.items()
            ),
        ),
        "## Features",
        _table(
            ("name", "in LaTeX", "definition", "meaning"),
            ((n, _math(f.name), f"`{format_expression(d)}`", f.description) for n, (f, d) in features.items()),
        ),
        "## Zoo",
        _table(
            ("rule", "update", "source", "same as", "remark"),
            (
                (f"`{name}`", f"`{rule}`", *(str(rule.provenance.get(k, "")) for k in ("source", "same as", "remark")))
                for name, rule in ZOO.items()
            ),
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _call(name: str) -> str:
    return f"{name}({', '.join('xy'[: OPERATORS[name].arity])})"


def _math(name: str) -> str:
    inline = name in STANDARD.features and STANDARD.features[name].inline
    return f"${latex(STANDARD.definitions[name] if inline else symbol(name))}$"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
