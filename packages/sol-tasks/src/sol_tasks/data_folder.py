"""The data folder that users point to, and the cache for data that libraries download."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from sol_symbols import SolError

__all__ = ["Splits", "cache_folder", "find_data", "require_data"]

Splits = dict[str, tuple[Tensor, Tensor]]
"""Inputs [N, ...] and labels [N] of ``train``, ``valid`` and ``test``."""


def find_data(what: str, data: str | Path, subfolder: str, *patterns: str, advice: str) -> Path:
    """The first file or folder that matches one of ``patterns``, in ``data/subfolder`` or else in ``data`` itself.

    Args:
        what: Name of the data, for the message.
        data: The user's data folder.
        subfolder: Where shared data folders keep this kind of data.
        patterns: Relative paths, which may contain ``*``; earlier ones win.
        advice: How to get the data, for the message.

    Raises:
        SolError: Nothing matches.
    """
    for folder in (Path(data) / subfolder, Path(data)):
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                return path
    raise SolError(f"no {what} in {data}: looked for {' or '.join(patterns)} there and in {subfolder}/; {advice}")


def require_data(data: str | Path | None, task: str) -> Path:
    """``data``, for a task without default data.

    Raises:
        SolError: There is no data folder.
    """
    if data is None:
        raise SolError(f"{task} needs a data folder: pass --data DIR or set SOL_DATA")
    return Path(data)


def cache_folder() -> Path:
    """Where downloads go: ``$XDG_CACHE_HOME/sol``, by default ``~/.cache/sol``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sol"
