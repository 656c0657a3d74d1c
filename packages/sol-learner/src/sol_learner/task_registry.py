"""Find tasks: what the installed packages register under the entry point group ``sol.tasks``.

An entry point is a function ``make(data: Path | None, device: torch.device) -> Task``. It may have an attribute
``requires``, a mapping from modules that the task imports to the packages that pip must install for them.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import shlex
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sol_learner.user_code import from_file, parts_of
from sol_symbols import SolError
from sol_symbols.errors import printable
from sol_symbols.plugins import TASKS, find_plugins, load_plugin

if TYPE_CHECKING:  # sol tasks does not load PyTorch
    import torch

    from sol_learner.task import Task

__all__ = ["Recipe", "describe", "find_tasks", "install_line", "load_task", "missing", "parse_device", "short_name"]


def find_tasks() -> dict[str, metadata.EntryPoint]:
    """Entry points of the installed tasks by name."""
    return find_plugins(TASKS)


def missing(point: metadata.EntryPoint) -> list[str]:
    """What pip must install before the task can be built; usually nothing.

    Raises:
        SolError: The entry point itself cannot be imported.
    """
    requires: Mapping[str, str] = getattr(load_plugin(TASKS, point), "requires", {})
    absent = [what for module, what in requires.items() if importlib.util.find_spec(module) is None]
    return list(dict.fromkeys(absent))


def install_line(requirements: Sequence[str]) -> str:
    """The command that installs ``requirements``.

    >>> install_line(["sol-tasks[graph]"])
    "pip install 'sol-tasks[graph]'"
    """
    return " ".join(["pip install", *map(shlex.quote, requirements)])


def describe(point: metadata.EntryPoint) -> tuple[str, bool]:
    """The first line of a task's docstring, or why it is unavailable; and whether it can be built here."""
    try:
        absent = missing(point)
        summary = printable(str(load_plugin(TASKS, point).__doc__ or "")).strip().partition("\n")[0]
    except (Exception, SystemExit) as error:  # a task that cannot be loaded must not hide the others
        return printable(str(error)).partition("\n")[0], False
    return (f"{summary} Needs: {install_line(absent)}", False) if absent else (summary, True)


def load_task(name: str, data: str | Path | None = None, device: torch.device | str = "cpu") -> Task:
    """Make the task that is registered as ``name``, or one of a file.

    Args:
        name: As in ``sol tasks``, or ``FILE.py:NAME``: a class or a function that makes the task, with ``data`` and
            ``device`` where it takes them, or the task itself.
        data: Folder with data sets; the task's own default data without it.
        device: Where models and data live.

    Raises:
        SolError: Unknown task, a package that it needs is not installed, or its data cannot be read.
    """
    data = None if data is None else Path(data)
    if data is not None and not data.is_dir():
        raise SolError(f"no such data folder: {data}")
    parts = parts_of(name)
    if parts is not None:
        return _of_file(*parts, data, device)
    known = find_tasks()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise SolError(f"no task {name!r}{hint} sol tasks lists the installed ones; FILE.py:CLASS names one of yours")
    absent = missing(known[name])
    if absent:
        raise SolError(f"the task {name!r} needs more packages: {install_line(absent)}")
    try:
        return load_plugin(TASKS, known[name])(data=data, device=parse_device(str(device)))
    except SystemExit as error:
        raise SolError(f"the task {name!r} cannot be made: it called sys.exit({error.code!r})") from error


def _of_file(path: Path, name: str, data: Path | None, device: torch.device | str) -> Task:
    found = from_file(path, name)
    if not isinstance(found, type) and hasattr(found, "build"):
        return cast("Task", found)
    if not callable(found):
        raise SolError(f"{path}:{name} must be a task, or a class or function that makes one, got {found!r}")
    offered = {"data": data, "device": parse_device(str(device))}
    try:
        taken = inspect.signature(found).parameters
        return cast("Task", found(**{key: value for key, value in offered.items() if key in taken}))
    except Exception as error:  # code of users can raise anything
        raise SolError(f"{path}:{name} cannot be made: {type(error).__name__}: {error}") from error


def short_name(task: str) -> str:
    """A task's name as a folder: of ``FILE.py:NAME``, the NAME."""
    return task.rpartition(":")[2]


def parse_device(text: str | None) -> torch.device:
    """The device that ``text`` names; for ``None``, CUDA if available, else the CPU.

    Raises:
        SolError: Not a device, or not available on this machine.
    """
    import torch

    if text is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
        torch.ones(1, device=device).sum().item()  # "meta" has no numbers
    except Exception as error:  # each backend has its own
        raise SolError(f"cannot use the device {text!r}: {str(error).partition(chr(10))[0]}") from None
    return device


@dataclass(frozen=True)
class Recipe:
    """A task for other processes: each of them builds it once, with :meth:`load`.

    Attributes:
        make: Returns the task; a function that other processes can import.
        arguments: Its positional arguments, hashable.
        options: Its keyword arguments.
    """

    make: Callable[..., Task]
    arguments: tuple[Hashable, ...] = ()
    options: tuple[tuple[str, Hashable], ...] = ()

    def load(self) -> Task:
        """The task, the same object at every call."""
        return _made(self)


@functools.lru_cache(maxsize=4)
def _made(recipe: Recipe) -> Task:
    return recipe.make(*recipe.arguments, **dict(recipe.options))
