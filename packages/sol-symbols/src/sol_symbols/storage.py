"""Reading the two stored forms of a rule, text and JSON. Every field is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from sol_symbols.errors import RuleError, quoted
from sol_symbols.grammar import MAX_CHARACTERS, format_expression, parse_expression
from sol_symbols.kinds import Kind
from sol_symbols.vocabulary import STANDARD, Feature, Hyperparameter, Recurrence, Vocabulary, as_float, finite

__all__ = ["SCHEMA", "WHERE", "parts_of", "read_record", "read_text", "read_values", "require_used"]

SCHEMA = 5
"""The newest version of the JSON form, which this release reads. Rules are written in the oldest that can hold them.

1: elementwise rules. 2: kinds; reductions, ``max``, ``clip``, ``step``, ``inv0``, ``fan_in`` and ``is_vector``.
3: ``orth``; evaluation weights. 4: ``matrices`` and ``vectors``. 5: ``loss``.
"""

WHERE = re.compile(r"\swhere\s")
"""Stands between an expression and its values."""
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*([^,=\s]*)\s*$", re.ASCII)

_FIELDS: dict[str, Any] = {
    "expression": str,
    "lr": int | float | None,
    "values": dict,
    "states": dict,
    "features": dict,
    "name": str,
    "provenance": dict,
}


_PART = re.compile(r"\s*(matrices|vectors)\s*:", re.ASCII)


def parts_of(text: str) -> dict[str, str] | None:
    """The two texts of ``matrices: RULE; vectors: RULE``, in either order; ``None`` for any other text.

    Raises:
        RuleError: One of them is missing or given twice.

    >>> parts_of("vectors: ad; matrices: orth(m)")
    {'vectors': ' ad', 'matrices': ' orth(m)'}
    """
    if not _PART.match(text):
        return None
    found: dict[str, str] = {}
    position = 0
    for part in text.split(";"):
        name = _PART.match(part)
        if not name or name[1] in found:
            raise RuleError("expected 'matrices: RULE; vectors: RULE'", text, position)
        found[name[1]] = part[name.end() :]
        position += len(part) + 1
    if len(found) < 2:
        absent = ({"matrices", "vectors"} - {*found}).pop()
        raise RuleError(f"expected '; {absent}: RULE' as well", text, len(text))
    return found


def read_values(text: str, position: int) -> tuple[dict[str, float | None], dict[str, int]]:
    """The numbers after ``where``, and where each name stands: ``NAME = NUMBER, ...`` from a position of the text.

    Raises:
        RuleError: It is something else; the message shows where.
    """
    values: dict[str, float | None] = {}
    places: dict[str, int] = {}
    for part in text[position:].split(","):
        match = _ASSIGNMENT.match(part)
        if not match or match[1] in values:
            raise RuleError("expected one NAME = NUMBER for each name after 'where'", text, position)
        try:
            values[match[1]] = finite(match[1], float(match[2]))
        except ValueError:
            raise RuleError(f"{quoted(match[2])} is not a number", text, position + match.start(2)) from None
        places[match[1]] = position + match.start(1)
        position += len(part) + 1
    return values, places


def read_text(text: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """The arguments of :class:`~sol_symbols.UpdateRule` in its text form.

    ``EXPRESSION evaluate WEIGHTS where NAME = NUMBER, ...``, of which the second and the third part can be missing.

    Raises:
        RuleError: The text is not a rule; the message shows where.
    """
    if len(text) > MAX_CHARACTERS:
        raise RuleError(f"a rule can have at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
    separator = WHERE.search(text)
    where = separator[0] if separator else ""
    head = text[: separator.start()] if separator else text
    values, places = read_values(text, len(head) + len(where)) if where else ({}, {})
    lr = values.pop("lr", None)
    words = {*re.findall(r"\w+", head)}
    for name in values:  # one that is not in the vocabulary; see `require_used` for the others
        if name not in vocabulary.names and name not in words:
            raise RuleError(f"{quoted(name)} does not occur in the rule", text, places[name])
    names = {**dict.fromkeys(values, Kind.RUN), **vocabulary.kinds}
    phi, *weights = re.split(r"\sevaluate\s", head, maxsplit=1)
    evaluation = parse_expression(weights[0], {**names, "lr": Kind.RUN}) if weights else None
    fields = {"values": values, "lr": lr, "vocabulary": vocabulary, "evaluation": evaluation}
    return {"expression": parse_expression(phi, names), **fields}


def require_used(text: str, values: Iterable[str]) -> None:
    """Check that a rule has all values that its text form gives.

    Args:
        text: The rule's text form.
        values: Names of the values that the rule has.

    Raises:
        RuleError: One is missing, since the expression does not use it. A horizon T does no harm.
    """
    separator = WHERE.search(text)
    if separator:
        known = {"lr", "T", *values, *re.findall(r"\w+", text[: separator.start()])}  # what is written can cancel
        for name, place in read_values(text, separator.end())[1].items():
            if name not in known:
                hint = "; add + wd*w for decoupled weight decay" if name == "wd" else ""
                raise RuleError(f"the rule does not use {quoted(name)}{hint}", text, place)


def read_record(text: str) -> dict[str, Any]:
    """The arguments of :class:`~sol_symbols.UpdateRule` in its JSON form.

    Raises:
        RuleError: The text is not JSON, not a rule, or of another schema than this release reads.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"not JSON: {error}") from None
    if not isinstance(record, dict) or "schema" not in record:
        raise RuleError("not a rule: expected a JSON object with the keys schema, expression, values, ...")
    if type(record["schema"]) is not int or not 1 <= record["schema"] <= SCHEMA:
        raise RuleError(
            f"rule of schema {quoted(record['schema'])}; this release reads schemas 1 to {SCHEMA}. Upgrade sol-symbols."
        )
    for key, kind in _FIELDS.items():
        if key not in record:
            raise RuleError(f"not a rule: it has no {key!r}")
        if not isinstance(record.get(key), kind) or isinstance(record.get(key), bool):
            raise RuleError(f"not a rule: {key!r} is {quoted(record.get(key))}")
    if not isinstance(record.get("evaluation"), str | None):
        raise RuleError(f"not a rule: 'evaluation' is {quoted(record['evaluation'])}")
    entries: list[Hyperparameter | Recurrence | Feature] = [
        *_read_hyperparameters(record),
        *(_read_state(name, state) for name, state in record["states"].items()),
        *(_read_feature(name, definition) for name, definition in record["features"].items()),
    ]
    standard = {*STANDARD.recurrences.values(), *STANDARD.features.values()}
    own = [entry for entry in entries if entry not in standard]
    vocabulary = STANDARD.extended(*own) if own else STANDARD
    for name, value in record["values"].items():
        if not (value is None or _is_number(value)):
            raise RuleError(f"not a rule: the value of {quoted(name)} is {quoted(value)}")
    fields = ("expression", "values", "lr", "name", "provenance")
    read = {field: record[field] for field in fields}
    return {**read, "vocabulary": vocabulary, "evaluation": record.get("evaluation")}


def _read_hyperparameters(record: dict[str, Any]) -> list[Hyperparameter]:
    """Hyperparameters of definitions that the standard vocabulary lacks, with any finite number in the values."""
    texts = [definition for definition in record["features"].values() if isinstance(definition, str)]
    texts += [str(state.get("update")) for state in record["states"].values() if isinstance(state, dict)]
    words = {word for text in texts for word in re.findall(r"\w+", text)} - {*record["states"], *record["features"]}
    unknown = [name for name in record["values"] if name in words and name not in STANDARD.names]
    return [Hyperparameter(name, None, -math.inf, math.inf, "constant of the definitions") for name in unknown]


def _read_state(name: str, state: object) -> Recurrence:
    if not (isinstance(state, dict) and isinstance(state.get("update"), str)):
        raise RuleError(f"not a rule: state {quoted(name)} is {quoted(state)}")
    init = state.get("init")
    if init is None or not _is_number(init):
        raise RuleError(f"not a rule: state {quoted(name)} starts at {quoted(init)}")
    kinds = {kind.label: kind for kind in Kind}
    label = state.get("kind", Kind.COORDINATE.label)
    if not isinstance(label, str) or label not in kinds:
        raise RuleError(f"not a rule: state {quoted(name)} is of kind {quoted(label)}; kinds: {', '.join(kinds)}")
    known = STANDARD.recurrences.get(name)
    start = finite(name, as_float(name, init))
    read = Recurrence(name, state["update"], start, known.description if known else "", kind=kinds[label])
    same = known and _same(name, read.update) and (known.init, known.kind) == (read.init, read.kind)
    return known if known and same else read


def _read_feature(name: str, definition: object) -> Feature:
    if not isinstance(definition, str):
        raise RuleError(f"not a rule: feature {quoted(name)} is {quoted(definition)}")
    known = STANDARD.features.get(name)
    return known if known and _same(name, definition) else Feature(name, definition)


def _same(name: str, definition: str) -> bool:
    """Whether the standard definition of ``name`` prints as ``definition``."""
    return format_expression(STANDARD.definitions[name]) == definition


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
