"""What the studies have in common: paired differences, the machine, writing JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from pathlib import Path

import torch
from scipy import stats

from sol_learner import Candidates, Family, Polished, Progress, RuleOptimizer, Task, polish, record
from sol_symbols import STANDARD, ZOO, UpdateRule


def search(task: Task, rule: UpdateRule, generations: int, population: int, progress: Progress) -> Polished:
    """The last phase of learning alone: CMA-ES on the coefficients of ``rule``, an episode for each candidate."""
    family = Family((task,), (1.0,), 0.5)
    candidates = Candidates(family, 0, 0, 4)
    values = {name: h.default for name, h in STANDARD.hyperparameters.items() if h.default is not None}
    samples = record(family, RuleOptimizer(ZOO["adam"]), rule.lr, values, STANDARD, 0, candidates.fresh(1), 200)
    settings = {"generations": generations, "population": population, "episodes": 1, "sigma": 0.3, "seed": 0}
    return polish(rule, samples, candidates, progress=progress, **settings)


def paired(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Mean of ours - theirs over seeds, its 95 % confidence interval (Student's t), and how often ours is larger."""
    difference = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
    count = len(difference)
    half = float(stats.t.ppf(0.975, count - 1) * difference.std() / math.sqrt(count)) if count > 1 else math.nan
    mean = float(difference.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "larger": int((difference > 0).sum()), "of": count}


def summary(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    table = torch.tensor(values, dtype=torch.float64)
    return {"mean": float(table.mean()), "std": float(table.std()) if len(values) > 1 else 0.0}


def machine() -> dict[str, object]:
    """Where the numbers come from."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(path: Path, record: dict[str, object]) -> None:
    """Write ``record``, readable, with the machine."""
    path.write_text(json.dumps({**record, "machine": machine()}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}", flush=True)
