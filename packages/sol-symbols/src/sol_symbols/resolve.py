"""Find the rule that a person means: a run folder, a rule file, a zoo name or a rule's text."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

from sol_symbols.errors import RuleError, SolError, quoted
from sol_symbols.rule import UpdateRule
from sol_symbols.storage import parts_of, read_values
from sol_symbols.zoo import ZOO

__all__ = ["add_rule_argument", "resolve_rule", "rule_of"]

MAX_BYTES = 10_000_000
_PATH = re.compile(r"[^\s()*+=,]+")
"""Text that can be a path and is no formula with operators."""


def add_rule_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument RULE and the option ``--complexity`` of all commands; :func:`rule_of` reads them."""
    parser.add_argument("rule", metavar="RULE", help='run folder, rule file, zoo name, or "formula"')
    parser.add_argument(
        "--complexity",
        type=int,
        metavar="N",
        help="for a run folder: the best rule of its front with at most N terms, not the run's own choice",
    )


def rule_of(arguments: argparse.Namespace) -> UpdateRule:
    """The rule in a command's arguments.

    Raises:
        SolError: See :func:`resolve_rule`.
    """
    return resolve_rule(arguments.rule, arguments.complexity)


def resolve_rule(text: str, complexity: int | None = None) -> UpdateRule:
    """The rule that ``text`` stands for.

    Tried in this order: a zoo name (``adam``, or ``adam where lr = 0.01``); a folder that holds a ``rule.json``
    (``runs/mnistnet``); a file in JSON or text form; the rule itself (``"ad + 0.1*sign(g)"``). Write ``./adam`` for a
    file of that name. ``matrices: RULE; vectors: RULE`` joins two of these by the parameters' number of dimensions.

    Args:
        text: As above.
        complexity: For a run folder: the rule of the run's front with the lowest loss and at most this many terms,
            one that holds on variants of the task if there is one.

    Raises:
        SolError: It is none of these; the message lists the names or shows the error in the text.
    """
    if complexity is not None:
        return _on_front(Path(text), complexity)
    name, where, _ = text.partition(" where ")
    if name.strip() in ZOO:
        return _with_values(ZOO[name.strip()], text, len(name + where)) if where else ZOO[name.strip()]
    parts = parts_of(text)
    if parts is not None:
        return UpdateRule.by_shape(**{name: resolve_rule(part.strip()) for name, part in parts.items()})
    path = Path(text)
    try:
        if path.is_dir() and text:
            return _read(path / "rule.json")
        if path.is_file():
            return _read(path)
    except (OSError, ValueError):  # too long for a file name, or with other characters: a rule's text
        pass
    try:
        return UpdateRule.parse(text)
    except RuleError as error:
        if _PATH.fullmatch(text) and ("/" in text or text.endswith((".json", ".txt"))):
            path_or_formula = text if len(text) < 200 else quoted(text)
            why = str(error).partition("\n")[0]
            raise SolError(f"no such run folder or rule file: {path_or_formula}; as a formula: {why}") from None
        raise SolError(
            f"{error}\nA rule is a run folder, a rule file, a formula in quotes, or one of: {', '.join(ZOO)}"
        ) from None


def _with_values(rule: UpdateRule, text: str, position: int) -> UpdateRule:
    """A rule of the zoo with other numbers, which stand in the text."""
    values, places = read_values(text, position)
    lr = values.pop("lr", rule.lr)
    for name, place in places.items():
        if name not in rule.values and name != "lr":
            known = ", ".join(["lr", *rule.values])
            raise RuleError(f"{rule.name} has no {quoted(name)}; it has {known}", text, place)
    return replace(rule, values={**rule.values, **values}, lr=lr)


def _on_front(folder: Path, complexity: int) -> UpdateRule:
    path = folder / "front.json"
    try:
        if not path.is_file() or not folder.name:
            raise SolError(f"--complexity needs the folder of a finished run, got {quoted(str(folder))}")
        front = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(front, list) and front):
            raise ValueError("not a list of rules")
        points = [(int(p["terms"]), (not p.get("holds", True), float(p["loss"])), p["rule"]) for p in front]
        short = [point for point in points if point[0] <= complexity]
        if not short:
            raise SolError(
                f"{path} has no rule with at most {complexity} terms, only with {sorted({p[0] for p in points})}"
            )
        return UpdateRule.from_json(json.dumps(min(short, key=lambda point: point[1])[2]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SolError(f"cannot read {quoted(str(path))}: {getattr(error, 'strerror', None) or error}") from None


def _read(path: Path) -> UpdateRule:
    if not path.is_file():
        raise SolError(f"{path.parent} has no {path.name}: it is not the folder of a finished run")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SolError(f"{path} is larger than {MAX_BYTES:,} bytes: it is not a rule")
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            return UpdateRule.from_json(text)
        return UpdateRule.parse(" ".join(text.split()), name=path.stem)
    except UnicodeDecodeError:
        raise SolError(f"{path} is not a text file") from None
    except RuleError as error:
        raise SolError(f"{path}: {error}") from None
