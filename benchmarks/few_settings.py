"""What tuning gets out of few settings by starting from a usual schedule, against the search for many settings.

    python benchmarks/few_settings.py --json benchmarks/few_settings.json

The panel is tuned on draws of ``sol_tasks.small_trainings`` with each number of trainings an optimizer, by the search
for few settings (``FEW`` above the number) and by the one for many (``FEW`` = 0). What is compared is the mean
objective over six evaluation episodes. Printed is the mean logarithm of the ratio, with its standard error. A repeated
call continues.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from sol_learner import compare
from sol_learner.comparing import PANEL, tuning
from sol_learner.task import Stream, Substream, Task, generator_for
from sol_symbols import write_atomically
from sol_tasks.small_trainings import small_trainings

SEED = 37
EPISODES = 6
WEIGHT = 0.4
LEAST, MOST = 1e-4, 1e6
"""Smaller and larger objectives, and those of what diverges, count as these."""


def objectives(task: Task, trainings: int, few: int) -> dict[str, float]:
    """Mean objective of each optimizer of the panel, tuned by one of the searches."""
    tuning.FEW = few
    comparison = compare(task, [*PANEL], episodes=EPISODES, trainings=trainings)
    found = {}
    for optimizer in comparison.optimizers:
        train, valid = (optimizer.metric(split, "loss") for split in ("train", "valid"))
        mean = float((WEIGHT * train + (1 - WEIGHT) * valid).mean())
        found[optimizer.name] = min(max(mean, LEAST), MOST) if math.isfinite(mean) else MOST
    return found


def said(rows: Sequence[dict[str, dict[str, float]]]) -> None:
    """Print the mean logarithms of the ratios of few to many."""
    for name in ("best", *PANEL):
        pairs = [
            [min(row[kind].values()) if name == "best" else row[kind][name] for kind in ("few", "many")] for row in rows
        ]
        logs = numpy.clip([math.log(few / many) for few, many in pairs], -2, 2)
        error = logs.std(ddof=1) / len(logs) ** 0.5 if len(logs) > 1 else math.nan
        print(f"  {name:<9} {logs.mean():+.3f} ± {error:.3f}  better on {(logs < 0).sum()} of {len(logs)}")


def main() -> None:
    """Measure what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("few-settings.json"))
    parser.add_argument("--trainings", type=int, nargs="+", default=[16])
    parser.add_argument("--draws", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, dict[str, Any]] = json.loads(given.json.read_text()) if given.json.exists() else {}
    family = small_trainings()
    for trainings in given.trainings:
        rows = record.setdefault(str(trainings), {})
        for draw in range(given.draws):
            if str(draw) not in rows:
                task = family.draw(generator_for(SEED, Stream.VALID, draw, Substream.RECORDING))
                found = {kind: objectives(task, trainings, few) for kind, few in (("few", 10**6), ("many", 0))}
                rows[str(draw)] = found
                write_atomically(given.json, json.dumps(record) + "\n")
        print(f"{trainings} trainings: objective by the search for few over that for many, logarithm")
        said([*rows.values()])


if __name__ == "__main__":
    main()
