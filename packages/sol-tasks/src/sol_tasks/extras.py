"""Optional dependencies: imported when a task needs them, with the line that installs them where they are missing."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from sol_symbols.errors import SolError

__all__ = ["import_extra", "needs"]

Make = TypeVar("Make", bound=Callable[..., Any])


def import_extra(module: str, extra: str, hint: str = "") -> ModuleType:
    """Import ``module``, which the extra ``extra`` of sol-tasks brings.

    Deprecation warnings that a library's own import raises are the library's affair and not shown.

    Args:
        module: Dotted name.
        extra: Name of the extra.
        hint: What else to do, shown after the install line.

    Raises:
        SolError: The module is not installed, or does not import; the message holds the install line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ImportError as error:
        advice = f"; {hint}" if hint else ""
        raise SolError(f"this needs {module} ({error}): pip install 'sol-tasks[{extra}]'{advice}") from error


def needs(extra: str, *modules: str) -> Callable[[Make], Make]:
    """Declare on a task's entry point which modules it imports and which extra of sol-tasks brings them.

    ``sol tasks`` reads the attribute ``requires``, a mapping from import names to what pip installs, and greys tasks
    that cannot be made.

    >>> @needs("graph", "torch_geometric")
    ... def make(data, device): ...
    >>> make.requires
    {'torch_geometric': 'sol-tasks[graph]'}
    """

    def mark(make: Make) -> Make:
        vars(make)["requires"] = dict.fromkeys(modules, f"sol-tasks[{extra}]")
        return make

    return mark
