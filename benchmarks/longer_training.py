"""Training four times as long: a rule learned at 400 steps, and one learned at 100, against an Adam tuned at 400.

    sol learn mnistnet --out runs/mnistnet
    sol learn mnistnet --steps 400 --objective 0.7 --out runs/t400
    python benchmarks/longer_training.py runs/t400 runs/mnistnet --json benchmarks/longer_training.json

Adam's rate (13 values), beta1 (0.8, 0.9, 0.95), beta2 (0.99, 0.999) and schedule (none, linear, cosine) are tuned
together on four episodes of the tuning stream at 400 steps, by final training loss and, in a second row, by the mean
of training and validation loss. Learned rules are laid over 400 steps as they are. Ten seeds of the evaluation stream.
"""

import argparse
import itertools
import json
from pathlib import Path

import torch

from sol_learner import load_task
from sol_learner.inner import run_rule
from sol_learner.task import Stream
from sol_symbols import UpdateRule, resolve_rule, write_atomically

STEPS = 400
RATES = [0.02 * 10 ** (power / 6) for power in range(-6, 7)]
SCHEDULES = {"none": "ad", "linear": "ad*ld", "cosine": "ad*cd"}


def tune_adam(task):
    """The best Adam by each criterion: its objective, schedule and values."""
    grid = list(itertools.product(RATES, (0.8, 0.9, 0.95), (0.99, 0.999)))
    lr, beta1, beta2 = (torch.tensor(column, dtype=torch.float64) for column in zip(*grid))
    best = {}
    for schedule, text in SCHEDULES.items():
        outcome = run_rule(
            *(task, UpdateRule.parse(text), 0, Stream.TUNE, range(4), lr),
            values={"beta1": beta1, "beta2": beta2},
            horizon=STEPS,
        )
        for criterion, weight in {"train": 1.0, "train + valid": 0.5}.items():
            values = outcome.objective(weight).mean(1)
            found = (float(values.min()), schedule, grid[int(values.argmin())])
            best[criterion] = min(best.get(criterion, found), found)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders or zoo names")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task, optimizers = load_task("mnistnet"), {}
    tuned = tune_adam(task)
    for criterion, (_, schedule, (lr, beta1, beta2)) in tuned.items():
        text = f"{SCHEDULES[schedule]} where beta1 = {beta1}, beta2 = {beta2}, lr = {lr}"
        optimizers[f"adam by {criterion}"] = UpdateRule.parse(text)
    for run in arguments.runs:
        optimizers[Path(run).name] = resolve_rule(run)
    record = {"steps": STEPS, "evaluation episodes": arguments.seeds, "results": {}}
    for name, rule in optimizers.items():
        outcome = run_rule(
            *(task, rule, 0, Stream.EVALUATE, range(arguments.seeds)), splits=("train", "test"), horizon=STEPS
        )
        record["results"][name] = {
            "rule": str(rule),
            **{
                f"{split} {metric}": {"mean": float(v.mean()), "sd": float(v.std()), "values": v[0].tolist()}
                for split, table in outcome.metrics.items()
                for metric, v in table.items()
            },
        }
    base = record["results"]["adam by train"]
    for name, row in record["results"].items():
        row["ratio to adam by train"] = {k: row[k]["mean"] / base[k]["mean"] for k in ("train loss", "test loss")}
        cells = "  ".join(f"{k} {row[k]['mean']:.4f} ± {row[k]['sd']:.4f}" for k in ("train loss", "test loss"))
        ratios = " ".join(f"{v:.3f}" for v in row["ratio to adam by train"].values())
        print(f"{name:<24} {cells}   ratio {ratios}   {row['rule'][:60]}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
