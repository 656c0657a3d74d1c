"""MNISTNET over more steps: rules learned at that length, against the panel tuned there with as many trainings.

    python benchmarks/longer_training.py --steps 400 1000 --json benchmarks/longer_training.json

Each length is a run of ``sol learn mnistnet --steps T`` without the front. A repeated call continues with the lengths
that are missing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from sol_learner import LearnConfig, Learner, Workers, load_task
from sol_symbols import write_atomically


def measure(steps: int, jobs: int) -> dict[str, Any]:
    """The verdict of a run, its rule, and the losses of all optimizers on ten held-out seeds."""
    config = LearnConfig(steps=steps, front=False)
    result = Learner([load_task("mnistnet")], config, workers=Workers(jobs)).run()
    (comparison,) = result.comparisons
    verdict = comparison.verdict()
    assert verdict is not None
    losses = {
        who.name: {split: who.metric(split, "loss").tolist() for split in ("train", "test")}
        for who in comparison.optimizers
    }
    kept = {name: result.summary[name] for name in ("trainings", "seconds", "config")}
    return {"verdict": verdict.line, "rule": str(result.rule), "losses": losses, **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[400, 1000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for steps in arguments.steps:
        if str(steps) not in rows:
            rows[str(steps)] = measure(steps, arguments.jobs)
            write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")
        print(f"T = {steps}: {rows[str(steps)]['verdict']}")


if __name__ == "__main__":
    main()
