"""Progress reports of a run: to a terminal, a log, a file, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from sol_symbols import SolError, write_atomically
from sol_symbols.errors import printable
from sol_symbols.files import append_text

__all__ = [
    "MetricsFile",
    "MultiProgress",
    "NullProgress",
    "Phase",
    "Progress",
    "TensorBoard",
    "Timed",
    "open_progress",
]


class Phase(StrEnum):
    """What a run is doing. Logs and reports identify phases by these values; the titles are for people."""

    TUNE = "tune"
    META_TRAIN = "meta-train"
    LIBRARY = "library"
    PRUNE = "prune"
    POLISH = "polish"
    CHECK = "check"
    FRONT = "front"
    COMPARE = "compare"
    DISTIL = "distil"


LEFT = "left_s"
"""Name of the seconds that are left of a run, among the numbers of a step."""


class Progress(Protocol):
    """Where a run reports to."""

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """A phase of ``steps`` steps begins. One phase may have several parts, each with its own title."""

    def step(self, done: int, **numbers: float) -> None:
        """``done`` steps of the phase are complete; ``numbers`` are worth showing."""

    def note(self, text: str) -> None:
        """A message of one line."""


class NullProgress:
    """Reports nothing."""

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """Ignored."""

    def step(self, done: int, **numbers: float) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


def _text(numbers: dict[str, float]) -> str:
    shown = [f"{name} {value:.4g}" for name, value in numbers.items() if name != LEFT]
    return "  ".join([*shown, *([f"{numbers[LEFT]:.0f} s left"] if LEFT in numbers else [])])


class _Lines:
    """One line per phase and one every ten seconds, for logs."""

    def __init__(self) -> None:
        self._title, self._steps, self._last, self._start = "", 0, 0.0, time.monotonic()

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {printable(text)}", file=sys.stderr, flush=True)

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        self._title, self._steps, self._last = title, steps, time.monotonic()
        self._print(title)

    def step(self, done: int, **numbers: float) -> None:
        if time.monotonic() - self._last > 10 or done == self._steps:
            self._last = time.monotonic()
            self._print(f"{self._title} {done}/{self._steps}  {_text(numbers)}")

    def note(self, text: str) -> None:
        self._print(text)


class MetricsFile:
    """Every number of every step as a line of JSON: ``{"phase", "title", "step", "seconds", ...}``.

    A resumed run reports its finished steps again, so the file is complete without appending to an old one.

    Args:
        path: Overwritten.

    Raises:
        SolError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._start = path, time.monotonic()
        self._phase: dict[str, str] = {}
        write_atomically(path, "")

    def _line(self, **record: object) -> None:
        append_text(self._path, json.dumps({**self._phase, **record}) + "\n")

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """The following steps belong to ``phase``."""
        self._phase = {"phase": phase.value, "title": title}

    def step(self, done: int, **numbers: float) -> None:
        """One line."""
        seconds = round(time.monotonic() - self._start, 3)
        finite = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        self._line(step=done, seconds=seconds, **finite)

    def note(self, text: str) -> None:
        """One line."""
        self._line(note=text)


class TensorBoard:
    """The same numbers as TensorBoard events, one tag ``phase/number`` each.

    Args:
        folder: For the events.

    Raises:
        SolError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SolError("TensorBoard events need the package tensorboard: pip install tensorboard") from None
        self._writer, self._title = SummaryWriter(str(folder)), ""

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """The following tags begin with ``title``."""
        self._title = title

    def step(self, done: int, **numbers: float) -> None:
        """One event per number."""
        for name, value in numbers.items():
            self._writer.add_scalar(f"{self._title}/{name}", value, done)

    def note(self, text: str) -> None:
        """A text event."""
        self._writer.add_text("note", text)


class MultiProgress:
    """Reports to all of ``reporters``."""

    def __init__(self, *reporters: Progress) -> None:
        self._reporters = reporters

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.phase(phase, title, steps)

    def step(self, done: int, **numbers: float) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.step(done, **numbers)

    def note(self, text: str) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.note(text)


class Timed:
    """Reports to ``reporter``, with the seconds that are left of the run."""

    def __init__(self, reporter: Progress, left: Callable[[], float]) -> None:
        self._reporter, self._left = reporter, left

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        """To the reporter."""
        self._reporter.phase(phase, title, steps)

    def step(self, done: int, **numbers: float) -> None:
        """To the reporter, with :data:`LEFT`."""
        self._reporter.step(done, **numbers, **{LEFT: round(self._left(), 1)})

    def note(self, text: str) -> None:
        """To the reporter."""
        self._reporter.note(text)


@contextmanager
def open_progress() -> Iterator[Progress]:
    """A live display on a terminal, sparse lines elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bars(Console(stderr=True)) as bars:
        yield _Live(bars)


def _bars(console: Console) -> Bars:
    """Titles and numbers are texts, not rich's markup: a name may have brackets."""
    return Bars(
        TextColumn("{task.description:<22}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", style="cyan", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


class _Live:
    """One bar per phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def phase(self, phase: Phase, title: str, steps: int) -> None:
        self._bar = self._bars.add_task(printable(title), total=steps, numbers="")

    def step(self, done: int, **numbers: float) -> None:
        self._bars.update(self._bar, completed=done, numbers=_text(numbers))

    def note(self, text: str) -> None:
        self._bars.console.print(printable(text), style="dim", markup=False)
