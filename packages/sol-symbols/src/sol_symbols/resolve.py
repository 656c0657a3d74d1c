"""Finding the rule that a person means: a run folder, a rule file, a zoo name or a rule's text."""

from __future__ import annotations

from pathlib import Path

from sol_symbols.errors import RuleError, SolError
from sol_symbols.rule import UpdateRule
from sol_symbols.zoo import ZOO

__all__ = ["resolve_rule"]

MAX_BYTES = 10_000_000


def resolve_rule(text: str) -> UpdateRule:
    """The rule that ``text`` stands for.

    Tried in this order: a zoo name (``adam``); a folder that holds a ``rule.json`` (``runs/mnistnet``); a file in
    JSON or text form; the rule itself (``"ad + 0.1*sign(g)"``). Write ``./adam`` for a file of that name.

    Raises:
        SolError: None of them; the message says which names exist or where the fault lies.
    """
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
