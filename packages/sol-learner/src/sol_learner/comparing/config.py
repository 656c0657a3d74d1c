"""Settings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sol_learner.inner.episodes import WEIGHT, shares
from sol_learner.settings import names_checked
from sol_symbols import SolError

__all__ = ["CRITERIA", "TUNING", "CompareConfig"]

TUNING = ("full", "lr", "none")
"""What is tuned: everything (rate, momenta, averaging, eps, weight decay, schedule), the rate, or nothing."""

CRITERIA = ("objective", "train", "valid")
"""What tuning minimizes: the objective that rules are learned for, or the loss on one split."""


@names_checked
@dataclass(frozen=True)
class CompareConfig:
    """All settings of a comparison.

    Attributes:
        episodes: Held-out seeds: episodes 0, 1, ... of the evaluation stream.
        seed: Base seed of all random streams and of Optuna.
        steps: Inner steps, which is also the length of schedules; 0 uses the task's horizon.
        tune: What is tuned: full (learning rate, momenta, averaging, eps, weight decay, schedule), lr (a constant
            learning rate) or none.
        trainings: Trainings that tuning may spend on each optimizer.
        tune_for: What tuning minimizes after the last step: objective, train or valid.
        objective: Weight of the training loss in the objective; the validation loss gets the rest.
        tuning_episodes: Episodes of the tuning stream that each setting trains on in the search.
        target: Loss that defines steps to target; None uses the mean final loss of the best baseline.
        threads: Threads per run, 0 for all. Results are reproducible for the same number of threads.

    Raises:
        SolError: A value is out of range.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {"trials": "trainings"}

    episodes: int = 10
    seed: int = 0
    steps: int = 0
    tune: str = "full"
    trainings: int = 240
    tune_for: str = "objective"
    objective: float = WEIGHT
    tuning_episodes: int = 1
    target: float | None = None
    threads: int = 1

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each split's final loss in what tuning minimizes."""
        return shares({"objective": self.objective, "train": 1.0, "valid": 0.0}[self.tune_for])

    def __post_init__(self) -> None:
        for name, choices in (("tune", TUNING), ("tune_for", CRITERIA)):
            if getattr(self, name) not in choices:
                raise SolError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 <= self.objective <= 1:
            raise SolError(f"objective must be from 0 to 1, got {self.objective}")
        least = {"episodes": 1, "seed": 0, "steps": 0, "trainings": 1, "tuning_episodes": 1, "threads": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise SolError(f"{name} must be at least {low}, got {getattr(self, name)}")
