"""The form of the JSON that reports are made of. Each file is checked once, at the door; what reads it then trusts it.

A form is ``str``, ``bool``, ``object`` (any JSON of plain numbers) or one of the classes below. Numbers are finite, and
those that are drawn as they are at most 1e100 in absolute value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sol_learner.comparing.verdict import OUTCOMES
from sol_symbols import SolError
from sol_symbols.errors import quoted
from sol_symbols.files import read_regular
from sol_symbols.resolve import MAX_BYTES

__all__ = ["COMPARISON", "FRONT", "LOG_LINE", "STUDY", "SUITE", "SUMMARY", "TABLES", "check", "read_json"]

_MOST = 1e100
_DEPTH = 60  # of tables and lists within each other


class _FormError(Exception):
    """What is wrong, and where."""


@dataclass(frozen=True)
class _Number:
    low: float = -_MOST
    high: float = _MOST

    def check(self, value: Any) -> None:
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise _FormError(f"must be a number from {self.low:g} to {self.high:g}, got {quoted(value)}")


@dataclass(frozen=True)
class _Loss:
    """A number, which may be infinite."""

    def check(self, value: Any) -> None:
        if not isinstance(value, float):
            _check(_Number(), value)


@dataclass(frozen=True)
class _Whole:
    low: int = 0
    high: int = 10**9

    def check(self, value: Any) -> None:
        if type(value) is not int or not self.low <= value <= self.high:
            raise _FormError(f"must be a whole number from {self.low} to {self.high}, got {quoted(value)}")


@dataclass(frozen=True)
class _Choice:
    names: tuple[str, ...]

    def check(self, value: Any) -> None:
        if value not in self.names:
            raise _FormError(f"must be one of {', '.join(self.names)}, got {quoted(value)}")


@dataclass(frozen=True)
class _Maybe:
    form: Any

    def check(self, value: Any) -> None:
        if value is not None:
            _check(self.form, value)


@dataclass(frozen=True)
class _Or:
    """One value, or a form."""

    value: Any
    form: Any

    def check(self, value: Any) -> None:
        if value != self.value:
            _check(self.form, value)


@dataclass(frozen=True)
class _Each:
    """A list; of ``size`` items, if given."""

    form: Any
    size: int | None = None

    def check(self, value: Any) -> None:
        if not isinstance(value, list) or self.size not in (None, len(value)):
            raise _FormError(f"must be a list{'' if self.size is None else f' of {self.size}'}, got {quoted(value)}")
        for number, item in enumerate(value):
            _check(self.form, item, f"[{number}]")


@dataclass(frozen=True)
class _Row:
    """A list of a name and numbers."""

    def check(self, value: Any) -> None:
        if not isinstance(value, list) or not value:
            raise _FormError(f"must be a name and numbers, got {quoted(value)}")
        _check(str, value[0], "[0]")
        _check(_Each(_Number()), value[1:])


@dataclass(frozen=True)
class _Trial:
    """A learning rate that was tried, and its objective."""

    def check(self, value: Any) -> None:
        _check(_Each(object, 2), value)
        _check(_Number(1e-100), value[0], "[0]")
        _check(_Maybe(_Number()), value[1], "[1]")


@dataclass(frozen=True)
class _Table:
    """A table of any keys."""

    form: Any

    def check(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise _FormError(f"must be a table, got {quoted(value)}")
        for key, item in value.items():
            _check(self.form, item, f".{key}")


class _Fields:
    """A table of known keys, ``needed`` and optional; others are ignored."""

    def __init__(self, needed: Mapping[str, Any], **optional: Any) -> None:
        self._needed, self._forms = needed, {**needed, **optional}

    def check(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise _FormError(f"must be a table, got {quoted(value)}")
        for key in self._needed:
            if key not in value:
                raise _FormError(f"has no {key!r}")
        for key, form in self._forms.items():
            if key in value:
                _check(form, value[key], f".{key}")


@dataclass(frozen=True)
class _Lengths:
    """A table whose lists under ``keys``, and in the tables under ``metrics``, fit each other."""

    form: Any

    def check(self, value: Any) -> None:
        _check(self.form, value)
        curve, spread = value.get("batch_loss"), value.get("batch_loss_std")
        if curve and spread and len(curve) != len(spread):
            raise _FormError("has a batch_loss and a batch_loss_std of different lengths")
        lists = [numbers for table in value.get("metrics", {}).values() for numbers in table.values()]
        lists += [value[key] for key in _OF_RUNS if isinstance(value.get(key), list)]
        if len({len(numbers) for numbers in lists if numbers}) > 1:
            raise _FormError("has lists of numbers of runs that have different lengths")


def _check(form: Any, value: Any, where: str = "") -> None:
    try:
        if form in (str, bool):
            if not isinstance(value, form):
                raise _FormError(f"must be a {'text' if form is str else 'true or false'}, got {quoted(value)}")
        elif form is object:
            _check_depth(value, _DEPTH)
        else:
            form.check(value)
    except _FormError as wrong:
        said = str(wrong)
        raise _FormError(f"{where}{'' if said.startswith(('.', '[')) else ' '}{said}") from None


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise _FormError("has too many tables and lists within each other")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)
    elif type(value) is int:
        _check(_Number(), value)


def check(form: Any, value: Any, path: Path, what: str) -> Any:
    """``value``, if it is of a form.

    Raises:
        SolError: It is not; the message says where and why.
    """
    try:
        _check(form, value)
    except _FormError as wrong:
        raise SolError(f"{path} is corrupted: invalid {what}: {str(wrong).strip().removeprefix('.')}") from None
    return value


def read_json(path: Path) -> Any:
    """The JSON of a regular file of at most 100 MB.

    Raises:
        SolError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_regular(path, 10 * MAX_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise SolError(f"cannot read {path}: {error}") from None


_FINITE = _Number(-sys.float_info.max, sys.float_info.max)
_NUMBERS = _Each(_Maybe(_FINITE))
_OF_RUNS = ("best_loss", "area", "steps_to_target", "seconds_to_target", "seconds_per_step", "peak_bytes")

_CONTRAST = _Fields(
    {"value": _FINITE, "interval": _Maybe(_Each(_FINITE, 2)), "p": _Maybe(_Number(0, 1)), "ratio": bool}
)

_RATIO = _Maybe(_Or("infinity", _FINITE))

_VERDICT = _Fields(
    {
        "first": str,
        "baseline": str,
        "described": str,
        "outcome": _Choice(tuple(OUTCOMES)),
        "train": _Maybe(_CONTRAST),
        "test": _Maybe(_CONTRAST),
        "steps_ratio": _RATIO,
        "seconds_ratio": _RATIO,
        "trainings": _Fields({"first": _Whole(), "baselines": _Each(_Whole())}),
        "line": str,
        "code": str,
    }
)

_SEEDS = _Maybe(_Table(object))

_OPTIMIZER = _Lengths(
    _Fields(
        {"name": str},
        rule=_Maybe(str),
        lr=_Maybe(_Number()),
        tuning=_Maybe(_Each(_Trial())),
        metrics=_Table(_Table(_NUMBERS)),
        batch_loss=_Maybe(_NUMBERS),
        batch_loss_std=_Maybe(_NUMBERS),
        batch_loss_runs=_Maybe(_Whole()),
        diverged=_SEEDS,
        failed=_SEEDS,
        **dict.fromkeys(_OF_RUNS, _Maybe(_NUMBERS)),
    )
)

COMPARISON = _Fields(
    {"task": str, "optimizers": _Each(_OPTIMIZER)},
    verdict=_Maybe(_VERDICT),
    horizon=_Maybe(_Whole(1)),
    seed=_Maybe(_Whole(high=10**30)),
    episodes=_Each(object),
    target=_Maybe(_Number()),
    differences=_Maybe(
        _Each(
            _Fields(
                {"baseline": str, "quantity": str},
                mean=_Maybe(_FINITE),
                interval=_Maybe(_Each(_FINITE, 2)),
                p_holm=_Maybe(_Number(0, 1)),
            )
        )
    ),
)

SUITE = _Fields(
    {
        "first": str,
        "line": str,
        "outcome": _Choice(tuple(OUTCOMES)),
        "problems": _Each(
            _Fields(
                {
                    "task": str,
                    "steps": _Whole(),
                    "outcome": _Choice(tuple(OUTCOMES)),
                    "baseline": str,
                    "train": _Maybe(_CONTRAST),
                    "test": _Maybe(_CONTRAST),
                    "p_holm": _Maybe(_Number(0, 1)),
                }
            )
        ),
        "profile": _Table(_Each(_Each(_Number(0), 2))),
    }
)

SUMMARY = _Fields(
    {},
    config=_Table(object),
    seconds=_Table(_Number(0, 1e12)),
    versions=_Table(object),
    files=_Table(str),
    omitted=_Each(str),
    tasks=_Each(str),
    gradient_rms=object,
    jobs=object,
    threads=object,
    ranks=object,
    machine=object,
    command=str,
    gave_start=bool,
    valid=_Table(_Table(_Loss())),
    comparison=_Each(COMPARISON),
)

FRONT = _Each(_Fields({"terms": _Whole(), "loss": _Maybe(_Loss()), "rule": _Table(object)}, holds=bool))

STUDY = _Fields({}, notes=_Each(object), budget=object, settings=object, shows=str, title=object, size=object)

TABLES = _Each(_Fields({"title": str, "head": _Each(str), "rows": _Each(_Row())}))

LOG_LINE = _Fields({"phase": str, "title": str, "step": _Whole(), "seconds": _Number(0, 1e12)})
