"""Objects from Python files that users name as ``FILE.py:NAME``."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from sol_symbols import SolError

__all__ = ["file_digest", "from_file", "parts_of"]


def parts_of(text: str) -> tuple[Path, str] | None:
    """The file and the name in ``FILE.py:NAME`` (or ``FILE.py``, with an empty name); ``None`` for other texts.

    >>> parts_of("train.py:Digits")
    (PosixPath('train.py'), 'Digits')
    """
    source, colon, name = text.rpartition(":")
    if colon and source.endswith(".py"):
        return Path(source), name
    return (Path(text), "") if text.endswith(".py") else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        SolError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}") from None


def from_file(path: Path, name: str) -> Any:
    """The object ``name`` of a Python file, which is run once for each of its contents.

    The file finds modules in its folder, as a script does, but its ``__name__`` is not ``"__main__"``.

    Raises:
        SolError: The file cannot be read or run, or has no such object.
    """
    module = _run(str(path.resolve()), file_digest(path))
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        fault = f"{path} has no class {name!r}" if name else f"name a class of {path}, as {path}:CLASS"
        raise SolError(f"{fault}; available: {', '.join(own) or 'none'}")
    return getattr(module, name)


@functools.lru_cache(maxsize=64)
def _run(path: str, digest: str) -> ModuleType:
    """``digest`` is part of the name, so that a module is one version of a file."""
    spec = importlib.util.spec_from_file_location(f"sol_file_{Path(path).stem}_{digest[:16]}", path)
    if spec is None or spec.loader is None:
        raise SolError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # files of users can raise anything
        del sys.modules[module.__name__]
        raise SolError(f"cannot import {path}: {type(error).__name__}: {error}") from None
    cloudpickle.register_pickle_by_value(module)  # other processes cannot import it
    return module
