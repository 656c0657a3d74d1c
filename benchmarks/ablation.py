"""What each part of the learner earns on MNISTNET: the default recipe, and the recipe with one part changed.

    python benchmarks/ablation.py --json benchmarks/ablation.json

Five seeds of the learner. Reported are the rule's final training and test loss over ten held-out seeds, relative to the
best of the panel in ``panel.json`` (the one with the lowest training loss; 240 trainings each, the same ten seeds), and
the trainings that learning spent. Rerun it with the same file to continue.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from sol_learner import LearnConfig, Learner, Workers, compare, load_task
from sol_learner.comparing import PANEL
from sol_symbols import write_atomically

PARTS: dict[str, dict[str, Any]] = {
    "default": {},
    "start at Adam": {"start": "adam"},
    "start at Adam, meta-training of 12 episodes": {"start": "adam", "episodes": 12},
    "no search": {"generations": 0},
    "no search of constants": {"constants": False},
    "no guard": {"guard": False},
    "8 generations after 12 steps of the gradient": {"generations": 8, "descent_steps": 12},
}
SPLITS = ("train", "test")


def panel() -> dict[str, float]:
    """Mean final losses of the best of the panel on MNISTNET."""
    record = json.loads((Path(__file__).parent / "panel.json").read_text())
    (task,) = (found for found in record["comparisons"] if found["task"] == "mnistnet")
    rows = {who["name"]: who["metrics"] for who in task["optimizers"]}
    best = min(PANEL, key=lambda name: statistics.mean(rows[name]["train"]["loss"]))
    return {split: statistics.mean(rows[best][split]["loss"]) for split in SPLITS}


def measure(name: str, seed: int, jobs: int) -> dict[str, Any]:
    """A run of the learner and its rule's losses on the held-out seeds."""
    config = LearnConfig(seed=seed, front=False, baselines=(), **PARTS[name])
    start, workers = time.monotonic(), Workers(jobs)
    result = Learner([load_task("mnistnet")], config, workers=workers).run()
    workers.close()
    row: dict[str, Any] = {
        "rule": str(result.rule),
        "terms": result.rule.complexity.terms,
        "trainings": sum(result.summary["trainings"].values()),
        "seconds": time.monotonic() - start,
    }
    (learned,) = compare("mnistnet", {"learned": result.rule}).optimizers
    return row | {split: learned.metric(split, "loss").tolist() for split in SPLITS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    best = panel()
    record = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}

    def ratio(row: dict[str, Any], split: str) -> float:
        return statistics.mean(row[split]) / best[split]

    for seed in arguments.seeds:
        for name in arguments.only:
            rows = record.setdefault(name, {})
            if str(seed) not in rows:
                rows[str(seed)] = measure(name, seed, arguments.jobs)
                if arguments.json:
                    write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")
            row = rows[str(seed)]
            print(f"seed {seed}  {name:<44}", *(f"{ratio(row, split):.3f}" for split in SPLITS), flush=True)
    print()
    for name, rows in record.items():
        cells = [f"{round(statistics.mean(row['trainings'] for row in rows.values())):>5} trainings"]
        for split in SPLITS:
            ratios = [ratio(row, split) for row in rows.values()]
            cells.append(f"{split} {statistics.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        print(f"{name:<44} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
