"""What a comparison found: every number of every run, differences with tests, tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sol_learner.comparing.optimizer_specs import Settings
from sol_learner.comparing.significance import bootstrap_interval, holm, paired_test
from sol_learner.inner.episodes import Outcome
from sol_learner.task import Purpose
from sol_symbols import UpdateRule

__all__ = ["Comparison", "Contender", "finite_mean"]


@dataclass(frozen=True)
class Contender:
    """One optimizer in a comparison. S episodes, T steps.

    Attributes:
        name: Name in tables.
        rule: Its rule; ``None`` where it is no rule.
        settings: What it was run with: learning rate, and what else was tuned.
        trials: ``{"settings", "objective"}`` of all that was tried in tuning; empty where it was used as it is.
        outcome: Losses [T, 1, S] of each step's batch and metrics [1, S] by split; nan after a divergence.
        diverged: Step after which the run was not finite any more, by episode.
        failed: What went wrong, by episode; such a run has no numbers.
        seconds: Wall time of a step, [S].
        peak_bytes: Largest memory of the process, [S]; nan where unknown.
        state_bytes: Of the optimizer.
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

    @property
    def lr(self) -> float:
        """The learning rate that it was run at."""
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
        """Mean of the batch losses over the last T/20 steps at each step, [T, S]: the loss without a batch's chance."""
        losses = self.outcome.losses[:, 0].double()
        window = max(1, len(losses) // 20)
        sums = torch.cat([losses.new_zeros(1, losses.shape[1]), losses.cumsum(0)])
        ends = torch.arange(1, len(losses) + 1)
        starts = (ends - window).clamp(min=0)
        return (sums[ends] - sums[starts]) / (ends - starts).unsqueeze(1)

    @property
    def curve(self) -> tuple[Tensor, Tensor, int]:
        """Mean and standard deviation of the batch losses over runs, each [T], and how many runs these are.

        The runs are those that stayed finite. Where none did, they are all that began, and the curve ends, in nan,
        where the first of them diverged.
        """
        losses = self.outcome.losses[:, 0].double()
        whole = losses.isfinite().all(0)
        runs = losses[:, whole if whole.any() else losses[0].isfinite()]
        runs = runs.where(runs.isfinite(), math.nan)
        spread = runs.std(1, correction=1) if runs.shape[1] > 1 else 0 * runs.sum(1)
        return runs.mean(1), spread, runs.shape[1]

    def quantities(self, target: float | None) -> dict[str, Tensor]:
        """What is reported, each [S], by name; nan where a run has none.

        ``train loss``, ``test ...``: after the last step, over the whole split. ``best loss``: the lowest of
        :attr:`smooth`. ``area``: mean batch loss over all steps, the area under the curve. ``steps to target``: the
        first step at which :attr:`smooth` is at or below the target.
        """
        smooth = self.smooth
        named = {"train loss": self.metric("train", "loss"), "valid loss": self.metric("valid", "loss")}
        named |= {f"test {name}": self.metric("test", name) for name in self.outcome.metrics["test"]}
        finite = smooth.isfinite().all(0)
        named["best loss"] = smooth.nan_to_num(math.inf).amin(0).where(finite, math.nan)
        named["area"] = self.outcome.losses[:, 0].double().mean(0)
        if target is not None:
            reached = smooth <= target
            first = reached.double().argmax(0) + 1.0
            named["steps to target"] = first.where(reached.any(0), math.nan)
        return named


DERIVED = ("best loss", "area", "steps to target")
"""Quantities that come from the losses on the way."""


@dataclass(frozen=True)
class Comparison:
    """Contenders on the same evaluation episodes; the first is the one that the others are baselines for.

    Attributes:
        task: Name of the task.
        seed: Base seed of all random streams.
        episodes: Number of evaluation episodes, S.
        horizon: Inner steps, T.
        contenders: In the order they were given.
        target: The loss that ``steps to target`` counts to.
        protocol: What was tuned and how, threads, versions.
    """

    task: str
    seed: int
    episodes: int
    horizon: int
    contenders: list[Contender]
    target: float | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Quantities of the first table: training loss and everything that the task measures on the test split."""
        first = self.contenders[0].outcome.metrics["test"]
        return ["train loss", *(f"test {name}" for name in first)]

    @property
    def failures(self) -> list[str]:
        """A line for each run that failed."""
        return [f"{c.name}, seed {episode}: {error}" for c in self.contenders for episode, error in c.failed.items()]

    def differences(self) -> list[dict[str, Any]]:
        """The first contender minus each other, over episodes, for all that :meth:`Contender.quantities` measures.

        ``mean`` and ``interval`` of the difference, ``p`` of the paired test, ``p_holm`` adjusted for the number of
        baselines; ``None`` where there is none. See ``sol_learner.comparing.significance``.

        Raises:
            SolError: SciPy is not installed.
        """
        first, *others = (contender.quantities(self.target) for contender in self.contenders)
        rows: list[dict[str, Any]] = []
        for quantity in [*self.metrics, *(name for name in DERIVED if name in first)]:
            pairs = [(first[quantity].tolist(), other[quantity].tolist()) for other in others]
            values = [paired_test(mine, theirs) for mine, theirs in pairs]
            for contender, (mine, theirs), p, adjusted in zip(self.contenders[1:], pairs, values, holm(values)):
                difference = [a - b for a, b in zip(mine, theirs)]
                mean = sum(difference) / len(difference)
                rows.append(
                    {
                        "first": self.contenders[0].name,
                        "baseline": contender.name,
                        "quantity": quantity,
                        "mean": mean if math.isfinite(mean) else None,
                        "interval": bootstrap_interval(difference),
                        "p": p,
                        "p_holm": adjusted,
                    }
                )
        return rows

    def table(self) -> str:
        """Losses and metrics after the last step, for people: mean and standard deviation over episodes."""
        from sol_learner.comparing.tables import results  # it speaks of this class

        return results(self)

    def report(self, statistics: bool = False) -> str:
        """Tables of everything, 80 columns wide where names are short; with ``statistics``, intervals and tests too.

        Raises:
            SolError: Statistics are asked for and SciPy is not installed.
        """
        from sol_learner.comparing.tables import report

        return report(self, statistics)

    def record(self, statistics: bool = False) -> dict[str, Any]:
        """Everything, JSON-able; numbers that are not finite are ``None``. With ``statistics``, tests and intervals."""
        record: dict[str, Any] = {
            "task": self.task,
            "seed": self.seed,
            "stream": Purpose.EVALUATE.name.lower(),
            "episodes": list(range(self.episodes)),
            "horizon": self.horizon,
            "target": self.target,
            "protocol": {name: value for name, value in self.protocol.items() if name != "told"},
            "contenders": [self._entry(contender, statistics) for contender in self.contenders],
            "failures": self.failures,
        }
        if statistics:
            record["differences"] = self.differences()
        return record

    def _entry(self, contender: Contender, statistics: bool) -> dict[str, Any]:
        mean, spread, runs = contender.curve
        entry: dict[str, Any] = {
            "name": contender.name,
            "rule": None if contender.rule is None else str(contender.rule),
            "lr": contender.lr,
            "settings": dict(contender.settings),
            "tuning": contender.tuning,
            "trials": contender.trials,
            "metrics": {
                split: {name: _plain(values[0]) for name, values in metrics.items()}
                for split, metrics in contender.outcome.metrics.items()
            },
            "batch_loss": _plain(mean),
            "batch_loss_std": _plain(spread),
            "batch_loss_runs": runs,
            "diverged": {str(episode): step for episode, step in contender.diverged.items()},
            "failed": {str(episode): error for episode, error in contender.failed.items()},
            "state_bytes": contender.state_bytes,
        }
        derived = contender.quantities(self.target)
        further = [name for name in DERIVED if name in derived]
        entry |= {name.replace(" ", "_"): _plain(derived[name]) for name in further}
        if statistics:
            measured = [*self.metrics, *further]
            entry["intervals"] = {name: bootstrap_interval(derived[name].tolist()) for name in measured}
            entry["seconds_per_step"] = _plain(contender.seconds)
            entry["peak_bytes"] = _plain(contender.peak_bytes)
        return entry

    def csv(self) -> str:
        """A line for each run, with everything that it was measured by."""
        rows: list[dict[str, Any]] = []
        for contender in self.contenders:
            quantities = contender.quantities(self.target)
            for episode in range(self.episodes):
                row: dict[str, Any] = {"task": self.task, "optimizer": contender.name, "seed": episode}
                row |= {"base_seed": self.seed, "steps": self.horizon, **contender.settings}
                row |= {name.replace(" ", "_"): _cell(values[episode]) for name, values in quantities.items()}
                row |= {"ms_per_step": _cell(1e3 * contender.seconds[episode])}
                row |= {"peak_MB": _cell(contender.peak_bytes[episode] / 1e6), "state_bytes": contender.state_bytes}
                row |= {"diverged_after_step": contender.diverged.get(episode), "failed": contender.failed.get(episode)}
                rows.append(row)
        file = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue()


def finite_mean(values: Tensor) -> float:
    """Mean of what is finite; nan where nothing is."""
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else math.nan


def _plain(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _cell(value: Tensor) -> float | None:
    number = float(value)
    return float(f"{number:.8g}") if math.isfinite(number) else None
