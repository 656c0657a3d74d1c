"""Finding the rule that a person means: a run folder, a rule file, a zoo name or a rule's text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sol_symbols.errors import RuleError, SolError
from sol_symbols.rule import UpdateRule
from sol_symbols.zoo import ZOO

__all__ = ["add_rule_argument", "resolve_rule", "rule_of"]

MAX_BYTES = 10_000_000


def add_rule_argument(parser: argparse.ArgumentParser) -> None:
    """The operand RULE and the option ``--complexity``, as every command has them; :func:`rule_of` reads them."""
    parser.add_argument("rule", metavar="RULE", help='run folder, rule file, zoo name, or "formula"')
    parser.add_argument(
        "--complexity",
        type=int,
        metavar="N",
        help="of a run folder, the best rule of at most N terms on its front instead of the run's own choice",
    )


def rule_of(arguments: argparse.Namespace) -> UpdateRule:
    """The rule that a command was given.

    Raises:
        SolError: As :func:`resolve_rule`.
    """
    return resolve_rule(arguments.rule, arguments.complexity)


def resolve_rule(text: str, complexity: int | None = None) -> UpdateRule:
    """The rule that ``text`` stands for.

    Tried in this order: a zoo name (``adam``); a folder that holds a ``rule.json`` (``runs/mnistnet``); a file in
    JSON or text form; the rule itself (``"ad + 0.1*sign(g)"``). Write ``./adam`` for a file of that name.

    Args:
        text: As above.
        complexity: Of a run folder, take the rule of at most so many terms that has the lowest loss on the run's front.

    Raises:
        SolError: None of them; the message says which names exist or where the fault lies.
    """
    if complexity is not None:
        return _on_front(Path(text), complexity)
    if text in ZOO:
        return ZOO[text]
    path = Path(text)
    try:
        if path.is_dir() and text:
            return _read(path / "rule.json")
        if path.is_file():
            return _read(path)
    except (OSError, ValueError):  # too long, or with characters that no file name has: then it is a rule's text
        pass
    if text.endswith((".json", ".txt")) or ("/" in text and " " not in text):
        raise SolError(f"no such run folder or rule file: {text}")
    try:
        return UpdateRule.parse(text)
    except RuleError as error:
        raise SolError(
            f"{error}\nA rule is a run folder, a rule file, a formula in quotes, or one of: {', '.join(ZOO)}"
        ) from None


def _on_front(folder: Path, complexity: int) -> UpdateRule:
    path = folder / "front.json"
    if not path.is_file() or not folder.name:
        raise SolError(f"a complexity picks a rule of a run, but {folder} is not the folder of a finished run")
    try:
        front = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(front, list) and front):
            raise ValueError("it is not a list of rules")
        points = [(int(point["terms"]), float(point["loss"]), point["rule"]) for point in front]
        short = [point for point in points if point[0] <= complexity]
        if not short:
            raise SolError(
                f"{path} has no rule of {complexity} terms or fewer, only of {sorted({p[0] for p in points})}"
            )
        return UpdateRule.from_json(json.dumps(min(short, key=lambda point: point[1])[2]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SolError(f"{path} cannot be read: {error}") from None


def _read(path: Path) -> UpdateRule:
    if not path.is_file():
        raise SolError(f"{path.parent} holds no {path.name}: not the folder of a finished run")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SolError(f"{path} is larger than {MAX_BYTES:,} bytes: not a rule")
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            return UpdateRule.from_json(text)
        return UpdateRule.parse(" ".join(text.split()), name=path.stem)
    except UnicodeDecodeError:
        raise SolError(f"{path} is not a text file") from None
    except RuleError as error:
        raise SolError(f"{path}: {error}") from None
