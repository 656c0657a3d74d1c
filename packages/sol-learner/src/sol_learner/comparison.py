"""Rules against each other on episodes that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sol_learner.checkpoints import Checkpoints
from sol_learner.episodes import Outcome, run_rule, tune_learning_rate
from sol_learner.progress import Clock, Progress
from sol_learner.task import Purpose, Task
from sol_symbols import UpdateRule

__all__ = ["Comparison", "Contender", "compare"]


@dataclass(frozen=True)
class Contender:
    """One rule in a comparison.

    Attributes:
        name: Name in tables.
        rule: The rule.
        lr: The learning rate that it was run at.
        tuning: Every (rate, mean objective) tried on the tuning stream; empty where the rule came with its
            own learning rate.
        outcome: Its episodes.
    """

    name: str
    rule: UpdateRule
    lr: float
    tuning: list[tuple[float, float]]
    outcome: Outcome

    def metric(self, split: str, name: str) -> Tensor:
        """A metric after the last step, [S]."""
        return self.outcome.metrics[split][name][0]


@dataclass(frozen=True)
class Comparison:
    """Contenders on the same evaluation episodes; the first is the one that the others are baselines for."""

    task: str
    seed: int
    episodes: int
    horizon: int
    contenders: list[Contender]

    def table(self) -> str:
        """A table for people: mean and standard deviation over episodes."""
        metrics = [("train", "loss"), ("test", "loss")]
        if "accuracy" in self.contenders[0].outcome.metrics["test"]:
            metrics.append(("test", "accuracy"))
        head = ["optimizer", "lr", *(f"{split} {name}" for split, name in metrics)]
        rows = [head]
        for contender in self.contenders:
            tuned = " tuned" if contender.tuning else ""
            cells = [contender.name, f"{contender.lr:.3g}{tuned}"]
            for split, name in metrics:
                values = contender.metric(split, name)
                cells.append(f"{values.mean():.4f} ± {values.std():.4f}")
            rows.append(cells)
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        note = f"{self.task}, {self.horizon} steps; mean ± standard deviation over {self.episodes} held-out seeds"
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:], note])

    def record(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "task": self.task,
            "seed": self.seed,
            "stream": Purpose.EVALUATE.name.lower(),
            "episodes": list(range(self.episodes)),
            "horizon": self.horizon,
            "contenders": [
                {
                    "name": contender.name,
                    "rule": str(contender.rule),
                    "lr": contender.lr,
                    "tuning": contender.tuning,
                    "metrics": {
                        split: {name: values[0].tolist() for name, values in metrics.items()}
                        for split, metrics in contender.outcome.metrics.items()
                    },
                    "batch_loss": contender.outcome.losses[:, 0].mean(1).tolist(),
                    "batch_loss_std": contender.outcome.losses[:, 0].std(1).tolist(),
                }
                for contender in self.contenders
            ],
        }


def compare(
    task: Task,
    rules: Mapping[str, UpdateRule],
    *,
    seed: int,
    episodes: int,
    progress: Progress,
    clock: Clock | None = None,
    tuned: Mapping[str, tuple[float, list[tuple[float, float]]]] | None = None,
    objective: float = 0.5,
    memory: Checkpoints | None = None,
) -> Comparison:
    """Run each rule on the same held-out episodes.

    A rule that brings a learning rate is used as it is; the others are tuned on the tuning stream, every one with the
    same budget.

    Args:
        task: The task.
        rules: Rules by their names in the table.
        seed: Base seed.
        episodes: Episodes of the evaluation stream.
        progress: Where to report.
        clock: Interrupts.
        tuned: Results of :func:`tune_learning_rate` that are at hand already.
        objective: Weight of the training loss in what baselines are tuned by; the rest is the validation loss's.
        memory: Keeps each rule's result, so that an interrupted comparison goes on where it was.

    Raises:
        Interrupted: By the clock.
    """
    memory = memory or Checkpoints()
    splits = ("train", "valid", "test")

    def measured(name: str, rule: UpdateRule) -> dict[str, Any]:
        if rule.lr is not None:
            lr, tuning = rule.lr, list[tuple[float, float]]()
        else:
            lr, tuning = (tuned or {}).get(name) or tune_learning_rate(task, rule, seed, clock=clock, weight=objective)
        outcome = run_rule(
            task, rule, seed, Purpose.EVALUATE, range(episodes), torch.tensor([lr]).double(), splits=splits, clock=clock
        )
        metrics = {split: {k: v.tolist() for k, v in table.items()} for split, table in outcome.metrics.items()}
        return {"lr": lr, "tuning": tuning, "losses": outcome.losses.tolist(), "metrics": metrics}

    progress.phase("comparing", len(rules))
    contenders = []
    for name, rule in rules.items():
        found = memory.once(f"compare/{task.name}/{rule.digest}", partial(measured, name, rule))
        metrics = {
            split: {k: torch.tensor(v, dtype=torch.float64) for k, v in table.items()}
            for split, table in found["metrics"].items()
        }
        outcome = Outcome(torch.tensor(found["losses"]), metrics)
        tuning = [(rate, loss) for rate, loss in found["tuning"]]
        contenders.append(Contender(name, rule, found["lr"], tuning, outcome))
        progress.step(len(contenders), loss=float(outcome.objective(objective).mean()))
    return Comparison(task.name, seed, episodes, task.horizon, contenders)
