"""Optional dependencies: imported when a task needs them; the error says what to install."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from sol_symbols import SolError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, hint: str = "") -> ModuleType:
    """Import ``module``, which an extra of sol-tasks installs, and hide deprecation warnings that its import raises.

    Args:
        module: Dotted name.
        extra: Name of the extra.
        hint: What else to do, appended to the message.

    Raises:
        SolError: The module is not installed or fails to import; the message contains the install command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ImportError as error:
        advice = f"; {hint}" if hint else ""
        raise SolError(f"cannot import {module} ({error}): pip install 'sol-tasks[{extra}]'{advice}") from error
