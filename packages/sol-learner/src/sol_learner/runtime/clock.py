"""Time of a run: its budget, its deadline for each phase, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sol_learner.runtime.ranks import Ranks
from sol_symbols import SolError

__all__ = ["Clock", "Interrupted", "parse_duration"]


class Interrupted(Exception):  # noqa: N818  (an outcome, not an error)
    """The clock stops the current phase, which keeps what it has."""


def parse_duration(text: str) -> float:
    """Seconds in ``90s``, ``5min``, ``1.5h``.

    Raises:
        SolError: The text is none of these, or not more than 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(s|m|min|h)", text.strip())
    if not match:
        raise SolError(f"{text.strip()!r} is not a time; use 90s, 5min or 1h")
    if not float(match[1]):
        raise SolError(f"a time must be more than 0, got {text.strip()!r}")
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


class Clock:
    """Times a run and ends its phases.

    Args:
        budget: Time for the whole run, in seconds or as text (``"5min"``), or ``None`` for no limit.
        ranks: Processes of the run, which stop together; this one alone by default.

    Raises:
        SolError: The budget is not a time.
    """

    def __init__(self, budget: float | str | None = None, ranks: Ranks | None = None) -> None:
        budget = parse_duration(budget) if isinstance(budget, str) else budget
        if isinstance(budget, bool) or not isinstance(budget, int | float | None):
            raise SolError(f"budget must be seconds or text such as '5min', got {budget!r}")
        if budget is not None and not budget > 0:
            raise SolError(f"budget must be more than 0 seconds, got {budget}")
        self.budget, self._ranks, self._asked = budget, ranks, False
        self._start = time.monotonic()
        self._deadline = float("inf")

    @property
    def cancelled(self) -> bool:
        """Whether the run was asked to stop, on any of its ranks."""
        return self._asked if self._ranks is None else self._ranks.stopping

    def cancel(self) -> None:
        """Stop the run; it keeps what it has."""
        self._asked = True
        if self._ranks is not None:
            self._ranks.asked = True

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def credit(self, seconds: float) -> None:
        """Add ``seconds`` that an earlier part of the run took."""
        self._start -= seconds

    def allow(self, share: float) -> None:
        """Let the current phase run until ``share`` of the budget is used up."""
        self._deadline = float("inf") if self.budget is None else share * self.budget

    @contextmanager
    def reserving(self, seconds: float) -> Iterator[None]:
        """End the phase ``seconds`` earlier in the context, which leaves them for what comes after it.

        Minus infinity lets the context take its time.
        """
        before = self._deadline
        self._deadline -= seconds
        try:
            yield
        finally:
            self._deadline = before

    @property
    def limited(self) -> bool:
        """Whether the current phase has a deadline."""
        return self._deadline < float("inf")

    @property
    def over(self) -> bool:
        """Whether the current phase should end."""
        return self.cancelled or self.elapsed > self._deadline

    def check(self) -> None:
        """Raise :class:`Interrupted` if the current phase should end."""
        if self.over:
            raise Interrupted

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C ends the current phase and skips the rest; the second ends the process."""

        def cancel(number: int, frame: FrameType | None) -> None:
            self.cancel()
            signal.signal(signal.SIGINT, previous)
            print("\nstopping; what is complete is kept (press Ctrl-C again to stop at once)", file=sys.stderr)

        previous = signal.signal(signal.SIGINT, cancel)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
