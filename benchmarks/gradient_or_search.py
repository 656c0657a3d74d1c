"""Exact gradients over the whole horizon against CMA-ES, at equal numbers of trainings.

    python benchmarks/gradient_or_search.py --json benchmarks/gradient_or_search.json

Both start from ``sol-general`` with the best of five rates and change its coefficients and constants, for the task
alone (no reference networks). CMA-ES has populations of 8; an episode of a gradient counts as five trainings, about
what it takes. The end is chosen on three validation episodes, in both alike, and measured on evaluation episodes: the
ratio of the objective (0.4 training + 0.6 validation loss) to that of the start, the geometric mean over learner seeds.

It needs ``SOL_DATA``; MNISTNET has all digits of MNIST. A repeated call continues.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from generalise_targets import make

from sol_learner import load_task
from sol_learner.inner import choose_rule, nearby, run_rule
from sol_learner.inner.episodes import RuleOptimizer
from sol_learner.inner.full_gradient import GRADIENT_COST
from sol_learner.inner.task_set import TaskSet
from sol_learner.runtime.progress import NullProgress, Phase
from sol_learner.search import CandidateEvaluator, polish, record, split
from sol_learner.task import Stream, with_horizon
from sol_symbols import ZOO, UpdateRule, write_atomically

TASKS = {
    "mnistnet": (lambda: load_task("mnistnet"), 5, 20),
    "text-transformer": (lambda: make("text-transformer"), 2, 6),
    "cifar10-cnn, 50 steps": (lambda: with_horizon(make("cifar10-cnn"), 50), 2, 6),
}
"""The task, learner seeds, and evaluation episodes."""

BUDGETS = (16, 32, 60, 120)
POPULATION = 8


def measure(task, seed, budget, method, episodes):
    """The ratio of the learned rule's objective to that of its start, and the seconds of the search."""
    rule = choose_rule(task, nearby(ZOO["sol-general"]), seed)[0][0].with_horizon(task.horizon)
    assert rule.lr is not None
    task_set, known = TaskSet((task,), (1.0,), 0.4), rule.vocabulary.hyperparameters
    values = {name: h.default for name, h in known.items() if h.default is not None}
    values |= {name: value for name, value in rule.values.items() if value is not None}
    evaluator = CandidateEvaluator(task_set, seed, 0, 3)
    recorded = (evaluator.fresh(1), 150)
    terms, optimizer = split(rule)[0], RuleOptimizer(rule)
    samples = record(task_set, optimizer, rule.lr, values, rule.vocabulary, seed, *recorded, terms=terms)
    steps: dict[str, Any] = {"descent_steps": budget // GRADIENT_COST, "generations": 0}
    if method == "cma-es":
        steps = {"generations": budget // POPULATION}
    steps |= {"population": POPULATION, "episodes": 1, "sigma": 0.1, "seed": seed, "constants": True, "shapes": False}
    start = time.monotonic()
    polished = polish(rule, samples, evaluator, **steps, phase=Phase.POLISH, progress=NullProgress())
    seconds = time.monotonic() - start

    def objective(chosen: UpdateRule) -> float:
        numbers = [run_rule(task, chosen, seed, Stream.EVALUATE, [e]).objective(0.4) for e in range(episodes)]
        return float(torch.stack(numbers).mean())

    return objective(replace(polished.rule, lr=rule.lr)) / objective(rule), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.tasks:
        make_task, seeds, episodes = TASKS[name]
        task, table = make_task(), rows.setdefault(name, {})
        for seed in range(seeds):
            for budget in BUDGETS:
                for method in ("cma-es", "gradient"):
                    cell = table.setdefault(f"{method} {budget}", [])
                    if len(cell) <= seed:
                        cell.append(measure(task, seed, budget, method, episodes))
                        write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")
        for method in ("cma-es", "gradient"):
            cells = [numpy.array(table[f"{method} {budget}"]) for budget in BUDGETS]
            shown = [f"{numpy.exp(numpy.log(cell[:, 0]).mean()):.3f} ({cell[:, 1].mean():.0f} s)" for cell in cells]
            print(f"{name:<24}{method:<10}" + "".join(f"{text:>16}" for text in shown), flush=True)


if __name__ == "__main__":
    main()
