"""Finding data sets: in the folder that the user names, or in the cache of what was fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sol_symbols.errors import SolError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Splits", "cache_folder", "find_data"]

Splits = dict[str, tuple["Tensor", "Tensor"]]
"""Inputs and labels by split: ``train``, ``valid`` and ``test``."""


def cache_folder() -> Path:
    """Where fetched data is kept: ``$XDG_CACHE_HOME/sol``, by default ``~/.cache/sol``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sol"


def find_data(data: Path, what: str, places: Sequence[str], advice: str) -> Path:
    """The first file or folder in ``data`` that matches one of ``places``.

    Args:
        data: The user's data folder.
        what: Name of the data set, for the error message.
        places: Glob patterns relative to ``data``, best first.
        advice: How to get the data set.

    Raises:
        SolError: There is none; the message lists the places and repeats the advice.
    """
    for place in places:
        for path in sorted(Path(data).glob(place)):
            return path
    raise SolError(f"no {what} in {data}: looked for {', '.join(places)}; {advice}")
