"""Settings of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from sol_symbols import SolError

__all__ = ["TUNING", "TUNING_SPLITS", "CompareConfig"]

TUNING = ("lr", "full", "none")
"""What is tuned: the learning rate, also momenta, averaging, weight decay and schedule, or nothing."""

TUNING_SPLITS = ("train", "valid")
"""Splits whose loss tuning can minimize."""


@dataclass(frozen=True)
class CompareConfig:
    """All settings of a comparison.

    Attributes:
        episodes: Held-out seeds: episodes 0, 1, ... of the evaluation stream.
        seed: Base seed of all random streams and of Optuna.
        steps: Inner steps, which is also the length of schedules; 0 uses the task's horizon.
        tune: What is tuned: lr, full (also momenta, averaging, weight decay and schedule) or none.
        trials: Trials per tuned optimizer.
        tune_for: Split whose final loss tuning minimizes: train or valid.
        tuning_episodes: Episodes of the tuning stream over which this loss is averaged.
        target: Loss that defines steps to target; None uses the mean final loss of the best baseline.
        threads: Threads per run, 0 for all. Results are reproducible for the same number of threads.

    Raises:
        SolError: A value is out of range.
    """

    episodes: int = 10
    seed: int = 0
    steps: int = 0
    tune: str = "lr"
    trials: int = 20
    tune_for: str = "train"
    tuning_episodes: int = 3
    target: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name, choices in (("tune", TUNING), ("tune_for", TUNING_SPLITS)):
            if getattr(self, name) not in choices:
                raise SolError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        least = {"episodes": 1, "seed": 0, "steps": 0, "trials": 1, "tuning_episodes": 1, "threads": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise SolError(f"{name} must be at least {low}, got {getattr(self, name)}")
