"""What studies have in common: their folders, paired differences, what was computed on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from sol_learner import Checkpoints, Comparison

HERE = Path(__file__).parent


def memory(name: str, **identity: Any) -> Checkpoints:
    """Where a study keeps its results; rerunning the command continues from there."""
    return Checkpoints(Path("runs/studies") / name, identity, resume=True)


def results(comparison: Comparison, metric: str) -> dict[str, Any]:
    """A metric on the test split: mean and spread of each optimizer, and the first against every other, paired."""
    scores = {c.name: c.metric("test", metric).tolist() for c in comparison.optimizers}
    ours, *others = scores
    return {
        f"test {metric}": {name: summary(values) for name, values in scores.items()},
        **{f"{metric}, {ours} - {other}": paired(scores[ours], scores[other]) for other in others},
    }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Mean of ours - theirs over seeds or images, and how often ours is larger.

    Its 95 % confidence interval and the two-sided p are of Student's t; p is ``None`` if all differences are equal.
    """
    difference = torch.tensor([a - b for a, b in zip(ours, theirs, strict=True)], dtype=torch.float64)
    count = len(difference)
    half = float(stats.t.ppf(0.975, count - 1) * difference.std() / math.sqrt(count)) if count > 1 else math.nan
    mean, p = float(difference.mean()), float(stats.ttest_1samp(difference, 0).pvalue) if count > 1 else math.nan
    larger = int((difference > 0).sum())
    tested = {"low": mean - half, "high": mean + half, "p": p if math.isfinite(p) else None}
    return {"mean": mean, **tested, "larger": larger, "of": count}


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
