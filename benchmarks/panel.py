"""Rules learned on MNISTNET against the panel: AdamW, NAdamW, Nesterov momentum and Lion, each tuned with its schedule.

    python benchmarks/panel.py --json benchmarks/panel.json

Two rules learned on MNISTNET, used as they are: the README's, and one without terms that depend on the gradient's
scale. The tasks are MNISTNET, its variants, MNISTNET with standardised inputs, and two of other families. Every
baseline has 240 trainings for each task; all optimizers train on ten held-out seeds. Adam at the best constant rate and
the scale-free rule are shown for reference. Rerun it with the same store to continue.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from sol_learner import Recipe, Workers, load_task
from sol_learner.comparing import against_panel, compare_tasks
from sol_learner.task import Task
from sol_symbols import UpdateRule, write_atomically
from sol_tasks.classification import Classification
from sol_tasks.image_networks import mnistnet_module
from sol_tasks.mnist import load_mnist

HERE = Path(__file__).parent
SINES = HERE.parent / "examples/sol-task-example/src/sol_task_example/__init__.py"
SCALE_FREE = (  # sol learn mnistnet --start adam --episodes 12 --constants false --generations 16 --scale-free true
    "-0.8298*ad*cd + 1.582*ad - 1.148*cd*rs + 1.531*cd*sign(g) - 0.6872*cd*sign(m) + 1.172*ld*rs - 1.33*ld*sign(g)"
    " + 1.134*ld*sign(m) + 0.06376*rs - 0.03593*w + 0.2486*sign(g) - 0.2015*sign(m) where lr = 0.0316, T = 100"
)
TASKS = ("mnistnet", "mnistnet-2layer", "mnistnet-big", "mnistnet-relu", "mnistnet-standardised", "sines", "rosenbrock")


def make(name: str) -> Task:
    """A task of the benchmark."""
    if name != "mnistnet-standardised":
        return load_task(f"{SINES}:Sines" if name == "sines" else name)
    splits = load_mnist(None)
    deviation, mean = torch.std_mean(splits["train"][0].float())
    return Classification(
        *(name, lambda: mnistnet_module("mnistnet"), splits, 100, 128),
        prepare=lambda digits: (digits.float() - mean) / deviation,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trainings", type=int, default=240)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--store", type=Path, default=Path("runs/panel.sqlite"))
    arguments = parser.parse_args()
    arguments.store.parent.mkdir(parents=True, exist_ok=True)
    panel, references = against_panel("learned")
    learned = UpdateRule.parse((HERE.parent / "docs" / "mnistnet.txt").read_text().strip())
    scale_free = UpdateRule.parse(SCALE_FREE)
    start, workers = time.monotonic(), Workers(arguments.jobs)
    suite = compare_tasks(
        [Recipe(make, (name,)) for name in arguments.tasks],
        {**panel, "learned": learned, "scale-free": scale_free},
        episodes=arguments.seeds,
        trainings=arguments.trainings,
        references=(*references, "scale-free"),
        store=arguments.store,
        workers=workers,
    )
    workers.close()
    print(suite.report())
    print(f"{time.monotonic() - start:.0f} s, {arguments.jobs} processes")
    if arguments.json:
        write_atomically(arguments.json, json.dumps(suite.record(statistics=True)) + "\n")


if __name__ == "__main__":
    main()
