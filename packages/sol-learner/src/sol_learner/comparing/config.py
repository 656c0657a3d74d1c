"""Every number of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from sol_symbols import SolError

__all__ = ["TUNING", "TUNING_SPLITS", "CompareConfig"]

TUNING = ("lr", "full", "none")
"""What is tuned: the learning rate; also momenta, averaging, weight decay and schedule; nothing."""

TUNING_SPLITS = ("train", "valid")
"""Splits whose loss tuning can minimise."""


@dataclass(frozen=True)
class CompareConfig:
    """Every number of a comparison.

    Attributes:
        episodes: Held-out seeds: episodes 0, 1, ... of the evaluation stream.
        seed: Base seed of all random streams and of Optuna.
        steps: Inner steps, which schedules are laid over; 0 for the task's horizon.
        tune: What is tuned: lr, full (also momenta, averaging, weight decay and schedule) or none.
        trials: Settings tried of each optimizer that is tuned.
        tune_for: Split whose loss after the last step tuning minimises: train or valid.
        tuning_episodes: Episodes of the tuning stream that this loss is averaged over.
        target: Loss for steps to target; None for the mean final loss of the second optimizer, the first baseline.
        threads: Threads of each run, 0 for all. The same number gives the same results.

    Raises:
        SolError: A value is out of range; the message says which.
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
                raise SolError(f"{name} = {getattr(self, name)!r}; choose one of: {', '.join(choices)}")
        least = {"episodes": 1, "seed": 0, "steps": 0, "trials": 1, "tuning_episodes": 1, "threads": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise SolError(f"{name} must be at least {low}, got {getattr(self, name)}")
