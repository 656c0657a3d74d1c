"""The NOS-RL ConvNet on CIFAR-10: a learned rule against the five hand-made optimizers of the paper's Table 2.

All are tuned (but for Nesterov and RMSprop on fewer rates than the paper's competitors would get: see the JSON) on the
same tuning episode and compared at the same number of steps over the same evaluation seeds, test accuracy on all 10,000
test images.

Sized for two cores: batches of 64, T = 100 steps, which is a seventh of an epoch, so accuracies are far below the
paper's 67 to 69 % after many epochs; a rule learned with two episodes of two optimizees.

    python studies/convnet.py --seeds 3
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from evidence import paired, save, summary

from sol_learner import LearnConfig, Learner, Purpose, compare, open_progress, run_rule
from sol_symbols import ZOO
from sol_tasks import image_classification

CONFIG = LearnConfig(
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    unroll=(20,),
    validation=1,
    validate_every=1,
    record_episodes=1,
    front=False,
    terms=5,
    library_generations=4,
    generations=4,
    prune_episodes=1,
    population=6,
    polish_episodes=1,
    evaluation=2,
    baselines=(),
)
RATES = {
    "adam": (3e-4, 1e-3, 3e-3),
    "sgd": (0.03, 0.1, 0.3),
    "momentum": (0.003, 0.01, 0.03),
    "nesterov": (0.003, 0.01, 0.03),
    "rmsprop": (1e-4, 3e-4, 1e-3),
}


def main(data: Path, horizon: int, seeds: int) -> None:
    """Learn, tune the five, compare, write."""
    begun = time.monotonic()
    task = image_classification("convnet", "cifar10", data, horizon=horizon, batch_size=64, sample=1_000)
    with open_progress() as progress:
        result = Learner([task], CONFIG, progress=progress).run()
        rules, tuned = {"learned": result.rule}, {}
        for name, rates in RATES.items():
            rules[name] = ZOO[name]
            measured = [
                (r, float(run_rule(task, ZOO[name], 0, Purpose.TUNE, [0], r).objective().mean())) for r in rates
            ]
            tuned[name] = (min(measured, key=lambda pair: pair[1])[0], measured)
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned)
    print(comparison.table(), flush=True)
    scores = {c.name: c.metric("test", "accuracy").tolist() for c in comparison.contenders}
    differences = {name: paired(scores["learned"], values) for name, values in scores.items() if name != "learned"}
    record = {
        "rule": str(result.rule),
        "steps": horizon,
        "test accuracy": {name: summary(values) for name, values in scores.items()},
        "learned - other": differences,
        "goal met (better than each, 95 % intervals above 0)": all(d["low"] > 0 for d in differences.values()),
        "better on average than": [name for name, d in differences.items() if d["mean"] > 0],
        "tuning": tuned,
        "config": asdict(CONFIG),
        "front": result.summary["front"],
        "seconds": round(time.monotonic() - begun, 1),
        "comparison": comparison.record(),
    }
    save(Path(__file__).with_suffix(".json"), record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(Path(arguments.data), arguments.steps, arguments.seeds)
