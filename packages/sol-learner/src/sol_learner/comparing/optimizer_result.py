"""One optimizer in a comparison: its settings and all numbers of its runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sol_learner.comparing.spaces import Settings
from sol_learner.comparing.verdict import Side, standing
from sol_learner.inner.episodes import Outcome
from sol_symbols import UpdateRule

__all__ = ["OptimizerResult", "finite_mean"]


@dataclass(frozen=True)
class OptimizerResult:
    """One optimizer in a comparison. S episodes, T steps.

    Attributes:
        name: Name in tables.
        rule: Its rule; ``None`` if it is not a rule.
        settings: Learning rate and other tuned hyperparameters.
        trials: ``{"settings", "objective", "losses"}`` of each tuning trial; empty if it was not tuned.
        outcome: Losses [T, 1, S] of each step's batch and metrics [1, S] by split; nan after divergence.
        diverged: Last step before the run became non-finite, by episode.
        failed: Error message by episode; a failed run has no numbers.
        seconds: Wall time per step, [S].
        peak_bytes: Peak memory of the process, [S]; nan if unknown.
        state_bytes: Size of the optimizer state.
        trainings: Trainings spent on choosing its settings; for a learned rule, those of the learner. 0 if none.
    """

    name: str
    rule: UpdateRule | None
    settings: Settings
    trials: list[dict[str, Any]]
    outcome: Outcome
    diverged: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: Tensor = field(default_factory=lambda: torch.empty(0))
    peak_bytes: Tensor = field(default_factory=lambda: torch.empty(0))
    state_bytes: int | None = None
    trainings: int = 0

    @property
    def lr(self) -> float:
        """The learning rate of its runs."""
        return float(self.settings["lr"])

    @property
    def tuning(self) -> list[tuple[float, float | None]]:
        """(learning rate, objective) of every trial."""
        return [(float(trial["settings"]["lr"]), trial["objective"]) for trial in self.trials]

    def metric(self, split: str, name: str) -> Tensor:
        """A metric after the last step, [S], float64."""
        return self.outcome.metrics[split][name][0]

    @property
    def smooth(self) -> Tensor:
        """Batch losses averaged over the last T/20 steps, [T, S], which reduces batch noise."""
        losses = self.outcome.losses[:, 0].double()
        window = max(1, len(losses) // 20)
        counts = torch.arange(1, window).unsqueeze(1)
        begin = losses[: window - 1].cumsum(0) / counts[: len(losses)]
        return torch.cat([begin, losses.unfold(0, window, 1).mean(-1)])

    @property
    def curve(self) -> tuple[Tensor, Tensor, int]:
        """Mean and standard deviation of the batch losses over runs, each [T], and the number of runs.

        Only runs that stayed finite count. If none did, all runs with a finite first loss count, and the curve becomes
        nan where the first of them diverged.
        """
        losses = self.outcome.losses[:, 0].double()
        whole = losses.isfinite().all(0)
        runs = losses[:, whole if whole.any() else losses[0].isfinite()]
        runs = runs.where(runs.isfinite(), math.nan)
        spread = runs.std(1, correction=1) if runs.shape[1] > 1 else 0 * runs.sum(1)
        return runs.mean(1), spread, runs.shape[1]

    def quantities(self, target: float | None) -> dict[str, Tensor]:
        """Reported quantities by name, each [S]; nan where a run has none.

        ``train loss``, ``valid loss``, ``test ...``: after the last step, over the whole split. ``best loss``: the
        minimum of :attr:`smooth`. ``area``: mean batch loss over all steps, the area under the curve. ``steps to
        target``: the first step at which :attr:`smooth` is at or below the target; infinite if there is none, also for
        a run that diverged. ``seconds to target``: the same times the seconds per step.
        """
        smooth = self.smooth
        named = {"train loss": self.metric("train", "loss"), "valid loss": self.metric("valid", "loss")}
        named |= {f"test {name}": self.metric("test", name) for name in self.outcome.metrics["test"]}
        finite = smooth.isfinite().all(0)
        named["best loss"] = smooth.nan_to_num(math.inf).amin(0).where(finite, math.nan)
        named["area"] = self.outcome.losses[:, 0].double().mean(0)
        if target is not None:
            reached = smooth <= target
            first = (reached.double().argmax(0) + 1.0).where(reached.any(0), math.inf)
            first[list(self.failed)] = math.nan
            named["steps to target"] = first
            if len(self.seconds):
                named["seconds to target"] = first * self.seconds
        return named

    def side(self, target: float | None) -> Side:
        """What a verdict needs of it."""
        quantities = {name: values.numpy() for name, values in self.quantities(target).items()}
        return Side(
            self.name,
            quantities["train loss"],
            quantities.get("test loss"),
            self.settings,
            self.rule,
            self.trainings,
            quantities.get("steps to target"),
            quantities.get("seconds to target"),
        )

    @property
    def standing(self) -> tuple[int, float]:
        """Sort key, the best first: runs without a final training loss, then its mean over the others."""
        return standing(self.metric("train", "loss").numpy())


def finite_mean(values: Tensor) -> float:
    """Mean of the finite values; nan if there are none."""
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else math.nan
