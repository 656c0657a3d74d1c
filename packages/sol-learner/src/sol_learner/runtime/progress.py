"""What a run tells while it works, and how it is stopped: by a budget of time or by Ctrl-C."""

from __future__ import annotations

import json
import math
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from sol_learner.runtime.ranks import Ranks
from sol_symbols import SolError

__all__ = [
    "Clock",
    "Interrupted",
    "MetricsFile",
    "Progress",
    "Several",
    "Silent",
    "TensorBoard",
    "open_progress",
    "parse_duration",
]


class Interrupted(Exception):  # noqa: N818  (an outcome, not an error)
    """The clock asks the present phase to stop with what it has."""


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``5min``, ``1.5h``.

    Raises:
        SolError: The text is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(s|m|min|h|)", text.strip())
    if not match or not float(match[1]):
        raise SolError(f"{text!r} is not a time; write 90s, 5min or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


class Clock:
    """Measures a run and says when a phase has to end.

    Args:
        budget: Time for the whole run, in seconds or as text (``"5min"``), or ``None`` for as long as the plan takes.
        ranks: Processes of the run, which stop together; this one alone by default.

    Raises:
        SolError: The budget is not a time.
    """

    def __init__(self, budget: float | str | None = None, ranks: Ranks | None = None) -> None:
        budget = parse_duration(budget) if isinstance(budget, str) else budget
        if budget is not None and not budget > 0:
            raise SolError(f"a budget of {budget} seconds; give more than 0")
        self.budget, self._ranks, self._asked = budget, ranks, False
        self._start = time.monotonic()
        self._deadline = float("inf")

    @property
    def cancelled(self) -> bool:
        """Whether the run was asked to stop, on any of its ranks."""
        return self._asked if self._ranks is None else self._ranks.stopping

    def cancel(self) -> None:
        """Ask the run to stop with what it has."""
        self._asked = True
        if self._ranks is not None:
            self._ranks.asked = True

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def credit(self, seconds: float) -> None:
        """Count ``seconds`` that an earlier part of the run took."""
        self._start -= seconds

    def allow(self, share: float) -> None:
        """Let the present phase go on until ``share`` of the budget is used up."""
        self._deadline = float("inf") if self.budget is None else share * self.budget

    @property
    def over(self) -> bool:
        """Whether the present phase should end."""
        return self.cancelled or self.elapsed > self._deadline

    def check(self) -> None:
        """Raise :class:`Interrupted` when the present phase should end."""
        if self.over:
            raise Interrupted

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C ends the present phase and skips the rest; the second one ends the process."""

        def cancel(number: int, frame: FrameType | None) -> None:
            self.cancel()
            signal.signal(signal.SIGINT, previous)
            print("\nstopping; what was reached is written (Ctrl-C again: stop at once)", file=sys.stderr)

        previous = signal.signal(signal.SIGINT, cancel)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


class Progress(Protocol):
    """Where a run reports to."""

    def phase(self, name: str, steps: int) -> None:
        """A phase of so many steps begins."""

    def step(self, done: int, **numbers: float) -> None:
        """``done`` steps of the phase are through; ``numbers`` are worth showing."""

    def note(self, text: str) -> None:
        """Something to remember, one line."""


class Silent:
    """Reports nothing."""

    def phase(self, name: str, steps: int) -> None:
        """Ignored."""

    def step(self, done: int, **numbers: float) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


def _text(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())


class _Lines:
    """One line a phase and one every ten seconds, for logs."""

    def __init__(self) -> None:
        self._name, self._steps, self._last, self._start = "", 0, 0.0, time.monotonic()

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", file=sys.stderr, flush=True)

    def phase(self, name: str, steps: int) -> None:
        self._name, self._steps, self._last = name, steps, time.monotonic()
        self._print(name)

    def step(self, done: int, **numbers: float) -> None:
        if time.monotonic() - self._last > 10 or done == self._steps:
            self._last = time.monotonic()
            self._print(f"{self._name} {done}/{self._steps}  {_text(numbers)}")

    def note(self, text: str) -> None:
        self._print(text)


class MetricsFile:
    """Every number of every step as a line of JSON: ``{"phase", "step", "seconds", ...}``.

    A resumed run tells its finished steps again, so the file is whole without going on where an old one ended.

    Args:
        path: Written anew.

    Raises:
        SolError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._name, self._start = path, "", time.monotonic()
        self._write("w", "")

    def _write(self, mode: str, text: str) -> None:
        try:
            with open(self._path, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SolError(f"cannot write {self._path}: {error.strerror}") from error

    def _line(self, **record: object) -> None:
        self._write("a", json.dumps({"phase": self._name, **record}) + "\n")

    def phase(self, name: str, steps: int) -> None:
        """Steps from now on belong to ``name``."""
        self._name = name

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
        self._writer, self._name = SummaryWriter(str(folder)), ""

    def phase(self, name: str, steps: int) -> None:
        """Tags from now on begin with ``name``."""
        self._name = name

    def step(self, done: int, **numbers: float) -> None:
        """One event a number."""
        for name, value in numbers.items():
            self._writer.add_scalar(f"{self._name}/{name}", value, done)

    def note(self, text: str) -> None:
        """A text event."""
        self._writer.add_text("note", text)


class Several:
    """Reports to all of ``reporters``."""

    def __init__(self, *reporters: Progress) -> None:
        self._reporters = reporters

    def phase(self, name: str, steps: int) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.phase(name, steps)

    def step(self, done: int, **numbers: float) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.step(done, **numbers)

    def note(self, text: str) -> None:
        """To all."""
        for reporter in self._reporters:
            reporter.note(text)


@contextmanager
def open_progress() -> Iterator[Progress]:
    """A live display on a terminal, sparse lines elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("[cyan]{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Live(bars)


class _Live:
    """One bar a phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def phase(self, name: str, steps: int) -> None:
        self._bar = self._bars.add_task(name, total=steps, numbers="")

    def step(self, done: int, **numbers: float) -> None:
        self._bars.update(self._bar, completed=done, numbers=_text(numbers))

    def note(self, text: str) -> None:
        self._bars.console.print(text, style="dim")
