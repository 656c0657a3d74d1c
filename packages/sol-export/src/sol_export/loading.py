"""Optimizers ready for use, from a rule or from an emitted file."""

from __future__ import annotations

import importlib.abc
import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sol_export.exporter import export_rule, verify_source
from sol_symbols import SolError, UpdateRule
from sol_symbols.resolve import resolve_rule

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["Emitted", "load_optimizer", "read_emitted"]


class _Source(importlib.abc.ExecutionLoader):
    """Loads a module from its text, which tracebacks and :mod:`inspect` then show."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:
        """The text."""
        return self.text

    def get_filename(self, fullname: str) -> str:
        """A name for tracebacks; there is no such file."""
        return f"{fullname}.py"


def load_optimizer(rule: UpdateRule | str | Path, *, verify: bool = True) -> type[Optimizer]:
    """Return the PyTorch optimizer class of a rule: that of the file which ``sol export --to torch`` writes.

    The class takes part in ``inspect.getsource``, in tracebacks, and in pickling within this process and its forks; for
    other processes and for release, write the file. One rule has one class.

    Args:
        rule: A rule, or what the command line takes for one: zoo name, formula, rule file or run folder, the last two
            as text or as a path.
        verify: Whether to run the class and compare it with the rule first, which takes about a second.

    Raises:
        SolError: There is no such rule, PyTorch source cannot express it, or it does not match the rule.
        ImportError: PyTorch is not installed.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = load_optimizer("ld*sign(g)")(model.parameters(), lr=0.01, horizon=100)
    >>> type(optimizer).__name__
    'Learned'
    """
    rule = resolve_rule(rule)
    name = f"sol_export.loaded_{rule.class_name.lower()}_{rule.digest[:16]}"
    if name not in sys.modules:
        source = export_rule(rule, "torch")
        if verify:
            verify_source(rule, source, "torch")
        loader = _Source(source)
        spec = importlib.util.spec_from_loader(name, loader, origin=loader.get_filename(name))
        if spec is None:
            raise ImportError(f"cannot load {name}")
        spec.has_location = True
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        sys.modules[name] = module
    kind: type[Optimizer] = getattr(sys.modules[name], rule.class_name)
    return kind


@dataclass(frozen=True)
class Emitted:
    """What the header of an emitted file says.

    Attributes:
        to: The exporter.
        name: Name of the class or function, as it was given to the exporter.
        rule: The rule's text; ``RULE`` if the text alone does not define the rule.
    """

    to: str
    name: str
    rule: str


def read_emitted(path: Path) -> Emitted:
    """Read the header of an emitted file; nothing is run.

    Raises:
        SolError: The file cannot be read or has no such header.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SolError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    found = re.search(r"^ *(sol export --to .*(?:\n +\S.*)*)", text, re.MULTILINE)
    try:
        words = shlex.split(" ".join(found[1].split())) if found else []
    except ValueError:
        words = []
    if len(words) < 7 or words[4] != "--name":
        raise SolError(f"{path} is not a file that sol export wrote: its header has no line 'sol export --to ...'")
    return Emitted(words[3], words[5], words[-1])
