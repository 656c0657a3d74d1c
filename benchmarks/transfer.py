"""A learned rule on networks that it was not learned on, nothing tuned again, against Adam tuned on each.

    sol learn mnistnet --scale-free true --out runs/scale-free
    python benchmarks/transfer.py runs/scale-free --json benchmarks/transfer.json
    python benchmarks/transfer.py runs/mnistnet --json benchmarks/transfer_main_job.json

The run's ``optimizer.py`` trains MNISTNET's relatives unchanged: two hidden layers, a wider one, ReLU. Adam has the
best of 13 learning rates for each network, by its final training loss on the tuning stream. Ten seeds of the evaluation
stream; p is that of a paired t-test, one-sided, of the differences of final training losses.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from main_job import load_class, losses, summary, train, tune
from scipy.stats import ttest_rel

from sol_learner import load_task
from sol_learner.task import Stream
from sol_symbols import resolve_rule, write_atomically

TASKS = ("mnistnet-2layer", "mnistnet-big", "mnistnet-relu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kind = load_class(arguments.run / "optimizer.py")
    record = {"rule": str(resolve_rule(str(arguments.run))), "evaluation episodes": arguments.seeds, "tasks": {}}
    for name in TASKS:
        task = load_task(name)
        best, tuning = tune(task, torch.optim.Adam, 0.03, 0, episodes=4)
        optimizers = {"learned": kind, "adam": lambda p, lr=best["train"]: torch.optim.Adam(p, lr)}
        runs = {
            who: [train(task, make, 0, Stream.EVALUATE, episode) for episode in range(arguments.seeds)]
            for who, make in optimizers.items()
        }
        test = ttest_rel(losses(runs["learned"], "train"), losses(runs["adam"], "train"), alternative="less")
        ratios = {
            split: statistics.mean(losses(runs["learned"], split)) / statistics.mean(losses(runs["adam"], split))
            for split in ("train", "test")
        }
        record["tasks"][name] = {
            "adam's rate": best["train"],
            "tuning (rate, criteria)": tuning,
            "learned / adam": ratios,
            "p, training loss, paired t-test": float(test.pvalue),
            "results": {who: summary(results) for who, results in runs.items()},
        }
        means = "  ".join(f"{who} {statistics.mean(losses(r, 'train')):.4f}" for who, r in runs.items())
        print(f"{name:<16} {means}  ratio {ratios['train']:.3f} (test {ratios['test']:.3f})  p = {test.pvalue:.2g}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
