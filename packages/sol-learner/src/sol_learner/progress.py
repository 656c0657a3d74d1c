"""What a run tells while it works, and how it is stopped: by a budget of time or by Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from sol_symbols import SolError

__all__ = ["Clock", "Interrupted", "Progress", "Silent", "open_progress"]


class Interrupted(Exception):  # noqa: N818  (an outcome, not an error)
    """The clock asks the present phase to stop with what it has."""


class Clock:
    """Measures a run and says when a phase has to end.

    Args:
        budget: Seconds for the whole run, or ``None`` for as long as the plan takes.
    """

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and not budget > 0:
            raise SolError(f"a budget of {budget} seconds; give more than 0")
        self.budget, self.cancelled = budget, False
        self._start = time.monotonic()
        self._deadline = float("inf")

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

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
            self.cancelled = True
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
