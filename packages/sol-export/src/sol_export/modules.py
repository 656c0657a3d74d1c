"""Importing emitted Python source, to run it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["imported"]


def imported(path: Path) -> ModuleType:
    """The module at ``path``, which is not entered among the imported ones."""
    spec = importlib.util.spec_from_file_location(f"sol_emitted_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
