"""The NOS-RL ConvNet on CIFAR-10: a learned rule against the five hand-made optimizers of the paper's Table 2.

The rule is learned on a narrow ConvNet (a quarter of the filters and hidden units, 0.27M parameters instead of 4.2M),
where an episode is far cheaper, and taken to the full one; it is scale-free, because the gradients of the two differ in
size. On the full one the rates of all six are tuned, each over three candidates a factor of three apart, and on beyond
the grid's end, on the same tuning episode by the training loss after the last step; compared at the same number of
steps over the same evaluation seeds, test accuracy on all 10,000 test images.

Sized for two cores: a library of eight terms, batches of 64, T = 60 steps, which is a twelfth of an epoch, so
accuracies are far below the paper's 67 to 69 % after many epochs.

    python studies/convnet.py --seeds 3
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from evidence import HERE, learn, memory, results, save

from sol_learner import LearnConfig, Purpose, Task, compare, open_progress, run_rule
from sol_symbols import ZOO, UpdateRule
from sol_tasks import image_classification

CONFIG = LearnConfig(
    objective=1.0,
    tuning_episodes=1,
    episodes=2,
    meta_batch=2,
    validation=2,
    record_episodes=1,
    directions=("ad", "sign(g)", "sign(m)", "w"),
    decays=("1", "ld"),
    scale_free=True,
    own_terms=0,
    library_generations=8,
    population=8,
    polish_episodes=1,
    terms=8,
    generations=0,
    front=False,
    evaluation=1,
    baselines=(),
)
STARTS = {"adam": 1e-3, "sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "rmsprop": 3e-4}
FACTOR = 3.0


def tune(task: Task, rule: UpdateRule, start: float) -> tuple[float, list[tuple[float, float]]]:
    """Three rates around ``start``, and more where the best is at an end; the best, and what was measured."""
    measured: dict[float, float] = {}
    center, best = 0.0, start
    while best != center and len(measured) <= 6:
        center = best
        for rate in [float(f"{center * FACTOR**k:.3g}") for k in (-1, 0, 1)]:
            if rate not in measured:
                outcome = run_rule(task, rule, 0, Purpose.TUNE, [0], rate, splits=("train",))
                measured[rate] = float(outcome.objective(1.0).mean())
        best = min(measured, key=lambda rate: measured[rate])
    return best, sorted(measured.items())


def main(data: Path, horizon: int, seeds: int) -> None:
    """Learn, tune all, compare, write."""
    make = partial(image_classification, "convnet", "cifar10", data, horizon=horizon, batch_size=64, sample=1_000)
    kept = memory("convnet", config=asdict(CONFIG), horizon=horizon)
    learning = learn(make(width=8), CONFIG, kept)
    task, learned = make(), UpdateRule.parse(learning["rule"])
    rules = {"learned": UpdateRule(learned.expression, learned.values), **{name: ZOO[name] for name in STARTS}}
    starts = {"learned": learned.lr, **STARTS}
    tuned = {}
    for name, rule in rules.items():
        tuned[name] = kept.once(f"tuned/{name}", partial(tune, task, rule, starts[name]))
        print(name, tuned[name], flush=True)
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned, memory=kept)
    print(comparison.table(), flush=True)
    found = results(comparison, "accuracy")
    differences = [found[f"accuracy, learned - {name}"] for name in STARTS]
    record = {
        "rule": str(learned),
        "learned on": "the narrow ConvNet, width 8",
        "steps": horizon,
        **found,
        "goal met (better than each, 95 % intervals above 0)": all(d["low"] > 0 for d in differences),
        "goal met on average": all(d["mean"] > 0 for d in differences),
        "learning": learning,
        "comparison": comparison.record(),
    }
    save(HERE / "convnet.json", record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(Path(arguments.data), arguments.steps, arguments.seeds)
