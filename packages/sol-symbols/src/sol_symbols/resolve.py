"""Find the rule that a person means: a run folder, a rule file, a zoo name or a rule's text."""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

from sol_symbols.errors import RuleError, SolError, quoted
from sol_symbols.operators import calls
from sol_symbols.rule import UpdateRule
from sol_symbols.storage import WHERE, parts_of, read_values
from sol_symbols.vocabulary import STANDARD
from sol_symbols.zoo import ZOO

__all__ = ["add_rule_argument", "resolve_rule", "rule_of"]

MAX_BYTES = 10_000_000
MAX_SHOWN = 5
"""Rules that a message lists."""
MAX_LOOKED_AT = 50
"""Entries of a folder that are looked at for such a list."""
_PATH = re.compile(r"[^\s()*+=,]+")
"""Text that can be a path and is no formula with operators."""
_ONLY_PATH = re.compile(r"\.{0,2}/|~|.*\.[A-Za-z_]{2}")
"""How such text begins if no formula does: at a root, or with a name that has a suffix."""
_NAME = re.compile(r"([A-Za-z]\w*)(?:[ -]\w+)*", re.ASCII)
"""Text that can be a misspelt name of the zoo."""
_EMITTED = re.compile(r"^[^\w\n]*sol export --to ", re.MULTILINE)
"""The line of an emitted file that says how it was made."""


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


def resolve_rule(rule: UpdateRule | str | Path, complexity: int | None = None) -> UpdateRule:
    """The rule that a text or a path stands for; a rule stands for itself.

    Text is tried in this order: a zoo name (``adam``, or ``adam where lr = 0.01``); a folder that holds a ``rule.json``
    (``runs/mnistnet``); a file in JSON or text form; the rule itself (``"ad + 0.1*sign(g)"``). Write ``./adam`` for a
    file of that name. ``matrices: RULE; vectors: RULE`` joins two of these by the parameters' number of dimensions.
    A path is that of a folder or a file.

    Args:
        rule: As above.
        complexity: For a run folder: the rule of the run's front with the lowest loss and at most this many terms,
            one that holds on variants of the task if there is one.

    Raises:
        SolError: It is none of these; the message lists the names or shows the error in the text.
    """
    if not isinstance(rule, UpdateRule | str | Path):
        raise SolError(f"rule must be text, a path or an UpdateRule, got {type(rule).__name__}")
    if complexity is not None:
        return _on_front(Path(str(rule)), complexity)
    if isinstance(rule, UpdateRule):
        return rule
    text = str(rule)
    if isinstance(rule, str):
        name, *rest = WHERE.split(text, maxsplit=1)
        if name.strip() in ZOO:
            return _with_values(ZOO[name.strip()], text, len(text) - len(rest[0])) if rest else ZOO[name.strip()]
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
    if isinstance(rule, Path):
        raise SolError(_not_found(text) + _rules_beside(path))
    try:
        return UpdateRule.parse(text)
    except RuleError as error:
        raise SolError(_no_rule(text, error)) from None


def _no_rule(text: str, error: RuleError) -> str:
    """What to say of a text that is no rule: it is a misspelt name, a path of nothing, or a formula with an error."""
    name = WHERE.split(text, maxsplit=1)[0].strip()
    word = _NAME.fullmatch(name)
    if word and len(name) > 2 and word[1] not in STANDARD.names:  # otherwise a formula that begins with a symbol
        known = [*ZOO, *STANDARD.names, *calls()]
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)
        if near and near[0] in ZOO:
            return f"no rule {quoted(name)}; did you mean {near[0]!r}?"
    like_path = _PATH.fullmatch(text) is not None
    only_path = like_path and _ONLY_PATH.match(text) is not None
    if "/" in text or only_path:
        beside = _rules_beside(Path(text))
        if beside or like_path:
            formula = not (beside or only_path) and any(map(_is_symbol, {*re.findall(r"\b[A-Za-z_]\w*", text)}))
            why = str(error).partition("\n")[0]
            return _not_found(text) + (f"; as a formula: {why}" if formula else beside)
    return f"{error}\nA rule is a run folder, a rule file, a formula in quotes, or one of: {', '.join(ZOO)}"


def _is_symbol(word: str) -> bool:
    """Whether formulas have a symbol of that name, or nearly so: ``mhat`` for ``m_hat``."""
    return bool(difflib.get_close_matches(word, STANDARD.names, n=1, cutoff=0.85))


def _not_found(path: str) -> str:
    return f"no such run folder or rule file: {_shown(path)}"


def _shown(path: str) -> str:
    return path if len(path) < 200 else quoted(path)


def _rules_beside(path: Path) -> str:
    """The rules in the folder of a path that does not exist, those with similar names first."""
    folder = path.parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, names, n=MAX_LOOKED_AT, cutoff=0)
    found = itertools.islice((quoted(name) for name in close if _has_rule(folder / name)), MAX_SHOWN)
    listed = ", ".join(found)
    return f"; {'this folder' if folder == Path() else _shown(str(folder))} holds {listed}" if listed else ""


def _has_rule(path: Path) -> bool:
    """Whether it is a run folder or, if its name says so, a rule file."""
    try:
        if path.is_dir():
            return (path / "rule.json").is_file()
        if path.suffix not in (".json", ".txt"):
            return False
        _read(path)
    except (OSError, SolError):
        return False
    return True


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
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}") from None
    except RuleError as error:
        if _EMITTED.search(text):
            raise SolError(
                f"{path} is an emitted file, not a rule; pass the run folder, or the formula of its header in quotes"
            ) from None
        raise SolError(f"{path}: {error}") from None
