"""Five ordinary trainings, with at most a hundred trainings of learning each, against the panel tuned there.

    python benchmarks/learn_ordinary.py --json benchmarks/learn_ordinary.json

The tasks, the panel and ``sol-general`` with the best of five rates are those of ``generalise.json``, by the same ten
held-out seeds. Learning starts from ``sol-general`` or ``sol-fits``: five trainings for the rate of the first, one for
the other as it is (and five if that is better), four to twenty for weight decay, one to record states, six generations
of eight candidates, and for the start and for each of five points of the search two validation episodes, and three at
1.4 times the rate, for the task alone (no reference networks). It needs ``SOL_DATA``. A repeated call continues.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy
import torch
from generalise_targets import ORDINARY, make

from sol_learner import LearnConfig, Learner
from sol_learner.inner import run_rule
from sol_learner.task import Stream
from sol_symbols import write_atomically

SETTINGS: dict[str, Any] = {
    **{"start": "prior", "guard": False, "tuning_episodes": 1, "record_episodes": 1, "population": 8},
    **{"polish_episodes": 1, "generations": 6, "validation_episodes": 2, "check": "rate", "check_episodes": 3},
    **{"front": False, "baselines": (), "evaluation_episodes": 1},
}
PANEL = Path(__file__).parent / "generalise.json"
SEEDS = 10


def measure(name: str, seed: int) -> dict[str, Any]:
    """The rule, what it cost, and its losses on the held-out seeds."""
    task, start = make(name), time.monotonic()
    result = Learner([task], LearnConfig(seed=seed, **SETTINGS)).run()
    found: dict[str, Any] = {"rule": str(result.rule), "trainings": sum(result.summary["trainings"].values())}
    found["seconds"] = time.monotonic() - start
    splits = ("train", "test")
    outcomes = [run_rule(task, result.rule, 0, Stream.EVALUATE, [e], splits=splits) for e in range(SEEDS)]
    return found | {split: [float(o.metrics[split]["loss"]) for o in outcomes] for split in splits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--targets", nargs="*", default=list(ORDINARY), choices=ORDINARY)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the learner")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    panel = json.loads(PANEL.read_text())["targets"]
    for name in arguments.targets:
        table = rows.setdefault(name, {})
        for seed in map(str, arguments.seeds):
            if seed not in table:
                table[seed] = measure(name, int(seed))
                write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")
            losses = panel[name]["losses"]
            best = losses[panel[name]["best"]]
            shown = []
            for split in ("train", "test"):
                own, chosen = (numpy.mean(who[split]) for who in (table[seed], losses["sol-general x"]))
                shown.append(
                    f"{own / numpy.mean(best[split]):.3f} (sol-general {chosen / numpy.mean(best[split]):.3f})"
                )
            cost = f"{table[seed]['trainings']} trainings"
            print(f"{name:<18}{panel[name]['best']:<10}train {shown[0]}, test {shown[1]}, {cost}", flush=True)


if __name__ == "__main__":
    main()
