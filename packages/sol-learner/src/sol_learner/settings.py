"""Dataclasses of settings: from names and plain values, with explanations from their docstrings."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from sol_symbols import SolError
from sol_symbols.errors import quoted

__all__ = [
    "LARGEST_SEED",
    "MOST",
    "as_text",
    "converted",
    "explanations",
    "names_checked",
    "require_known",
    "settings_from",
    "with_current_names",
]

Settings = TypeVar("Settings")

MOST = 1_000_000
"""Largest number of seeds, trainings, steps and the like: more is a typing error."""

LARGEST_SEED = 2**32 - 1

_MEANT = dict.fromkeys(("horizon", "epochs", "iterations", "max_steps", "num_steps"), "steps")
"""What is meant by names of others."""

_LARGEST = {int: MOST, float: 10**9}
"""Largest values of settings."""


def explanations(cls: type) -> dict[str, str]:
    """What each setting of a dataclass means, one line each, by name; from its docstring."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:")[2].partition("Raises:")[0]
    return {name: " ".join(text.split()) for name, text in re.findall(r"(\w+): ((?:.|\n {8})+)", section)}


def names_checked(cls: type[Settings]) -> type[Settings]:
    """Decorate a dataclass of settings: an unknown keyword is a :class:`~sol_symbols.SolError` that names the nearest.

    Names of earlier versions, in the class's ``earlier_names``, are taken as what they are called now.

    >>> @names_checked
    ... @dataclasses.dataclass
    ... class Size:
    ...     width: int = 1
    >>> Size(widht=2)
    Traceback (most recent call last):
    sol_symbols.errors.SolError: no setting 'widht'; did you mean 'width'?
    """
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    original = cls.__init__

    @functools.wraps(original)
    def checked(self: Settings, *args: Any, **settings: Any) -> None:
        given = with_current_names(cls, settings)
        for name in given:
            require_known(name, fields)
        original(self, *args, **given)

    cls.__init__ = checked  # type: ignore[method-assign, assignment]
    return cls


def _current(cls: type, name: str) -> str:
    names: dict[str, str] = getattr(cls, "earlier_names", {})
    return names.get(name, name)


def with_current_names(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with the names of earlier versions replaced."""
    return {_current(cls, name): value for name, value in settings.items()}


def require_known(name: str, known: Collection[str]) -> None:
    """Check that a name is known.

    Raises:
        SolError: It is not; the message names what is meant, if that can be told.
    """
    if name not in known:
        meant = _MEANT.get(name)
        near = [meant] if meant in known else difflib.get_close_matches(name, known, n=1)
        raise SolError(f"no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def settings_from(cls: type[Settings], settings: Mapping[str, Any]) -> Settings:
    """A dataclass of settings from names and plain values: lists for tuples, text for numbers and lists.

    Raises:
        SolError: Unknown setting, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in settings.items():
        name = _current(cls, key.replace("-", "_"))
        if name not in fields:
            require_known(key, fields)
        if name in values:
            raise SolError(f"the setting {name!r} is set twice")
        values[name] = converted(name, value, fields[name].default)
    return cls(**values)


def as_text(value: Any) -> str:
    """A setting's value in the notation of the command line.

    >>> as_text((("mul", "sign"), ("add",))), as_text(True), as_text(())
    ('mul,sign/add', 'true', '')
    """
    if isinstance(value, list | tuple):
        separator = "/" if any(isinstance(item, list | tuple) for item in value) else ","
        return separator.join(as_text(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at_commas(text: str) -> list[str]:
    """The parts between commas outside parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def converted(name: str, value: Any, default: Any) -> Any:
    """``value`` as the type of ``default``; unchanged if that is ``None``."""
    if default is None:
        return value
    if isinstance(default, tuple) and default and isinstance(default[0], tuple):
        layers = value.split("/") if isinstance(value, str) else value
        layers = layers if isinstance(layers, list | tuple) else [layers]
        return tuple(converted(name, layer, ("",)) for layer in layers)
    if isinstance(default, tuple):
        items = _at_commas(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            items = [items]
        sample: Any = 0 if name in ("unroll", "horizons") else ""
        return tuple(converted(name, item, sample) for item in items)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    cls = type(default)
    if isinstance(value, str) and cls is not str:
        words: dict[str, Any] = {"true": True, "false": False} if cls is bool else {}
        try:
            value = words[value] if cls is bool else cls(value)
        except (ValueError, KeyError):
            raise SolError(f"{name} must be {names[cls]}, got {value!r}") from None
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not cls:
        raise SolError(f"{name} must be {names[cls]}, got {quoted(value)}")
    if cls in _LARGEST:
        most = _LARGEST[cls] if name != "seed" else LARGEST_SEED
        if abs(value) > most:
            raise SolError(f"{name} must be at most {most:,}, got {quoted(value)}")
    return value
