"""What studies have in common: settings of baselines that are tuned, paired differences, what was computed on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from sol_learner import Checkpoints, Comparison, Task
from sol_learner.inner import run_rule, tune_learning_rate
from sol_learner.task import Stream
from sol_symbols import UpdateRule

HERE = Path(__file__).parent

FINALISTS = 3
"""Settings of a rule that are measured on more than one episode of the tuning stream."""

FURTHER = 3
"""How many more."""

Tuned = tuple[UpdateRule, tuple[float, list[tuple[float, float]]], list[dict[str, Any]]]
"""A rule, its learning rate with what was measured for it, and the same of every setting that was tried."""


def memory(name: str, **identity: Any) -> Checkpoints:
    """Where a study keeps its results; rerunning the command continues from there."""
    return Checkpoints(Path("runs/studies") / name, identity, resume=True)


def tune(task: Task, variants: Sequence[str], kept: Checkpoints, weight: float, coarse: int, fine: int) -> Tuned:
    """The best of several settings of a rule and their rates, chosen on the tuning stream.

    Every rate of the grids is tried on the first episode; the :data:`FINALISTS` best of all settings and rates on
    :data:`FURTHER` more, because one episode is easily a lucky one, and the best mean over all of these is chosen.
    """
    tried, pairs = {}, []
    for text in variants:
        rule = UpdateRule.parse(text)
        run = partial(tune_learning_rate, task, rule, 0, episodes=1, coarse=coarse, fine=fine, weight=weight)
        lr, table = kept.once(f"tuned/{text}", run)
        loss = min(loss for _, loss in table)
        tried[text] = {"rule": text, "lr": lr, "loss": loss, "measured": table, "finalists": []}
        pairs += [(loss, rate, text) for rate, loss in table]
    means = []
    for loss, rate, text in sorted(pairs)[:FINALISTS]:
        losses = [loss, *kept.once(f"further/{text}/{rate}", partial(_further, task, text, rate, weight))]
        tried[text]["finalists"].append({"lr": rate, "losses": losses})
        means.append((sum(losses) / len(losses), rate, text))
    _, lr, text = min(means)
    return UpdateRule.parse(text), (lr, [(rate, mean) for mean, rate, _ in means]), list(tried.values())


def _further(task: Task, text: str, rate: float, weight: float) -> list[float]:
    outcome = run_rule(task, UpdateRule.parse(text), 0, Stream.TUNE, range(1, 1 + FURTHER), rate)
    return outcome.objective(weight)[0].tolist()


def results(comparison: Comparison, metric: str) -> dict[str, Any]:
    """A metric on the test split: mean and spread of each optimizer, and the first against every other, paired."""
    scores = {c.name: c.metric("test", metric).tolist() for c in comparison.optimizers}
    ours, *others = scores
    return {
        f"test {metric}": {name: summary(values) for name, values in scores.items()},
        **{f"{metric}, {ours} - {other}": paired(scores[ours], scores[other]) for other in others},
    }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Mean of ours - theirs over seeds, its 95 % confidence interval (Student's t), and how often ours is larger."""
    difference = torch.tensor([a - b for a, b in zip(ours, theirs, strict=True)], dtype=torch.float64)
    count = len(difference)
    half = float(stats.t.ppf(0.975, count - 1) * difference.std() / math.sqrt(count)) if count > 1 else math.nan
    mean = float(difference.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "larger": int((difference > 0).sum()), "of": count}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    table = torch.tensor(values, dtype=torch.float64)
    return {"mean": float(table.mean()), "std": float(table.std()) if len(values) > 1 else 0.0}


def machine() -> dict[str, Any]:
    """What was computed on."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
