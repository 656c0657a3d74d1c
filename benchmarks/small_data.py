"""What the factor ``calm`` of ``sol-general`` does on few examples, which a network fits to a loss of 0, and elsewhere.

    python benchmarks/small_data.py --json benchmarks/small_data.json

With it and without it, at the rule's own learning rate and at half and twice as much: the losses of classifiers of 60
to 400 digits on held-out seeds, beside Adam with the best of nine rates; and the objective on trainings of
``small_trainings`` that nothing was chosen by.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from sol_learner import from_loaders
from sol_learner.inner import run_rule
from sol_learner.inner.episodes import log_objective
from sol_learner.inner.rates import learning_rates
from sol_learner.task import Stream
from sol_symbols import ZOO, UpdateRule, symbol, write_atomically
from sol_tasks.small_trainings import small_trainings

WITH = ZOO["sol-general"]
RULES = {"with": WITH, "without": replace(WITH, expression=WITH.expression.xreplace({symbol("calm"): 1}))}
SIZES = {60: (60, 16, 300), 120: (30, 64, 200), 400: (64, 128, 400)}
"""Examples: examples in a batch, hidden units, steps."""

FIRST = 8000
"""Number of the first training of the family."""


def few(count: int, batch: int, hidden: int, steps: int) -> Any:
    """Classify 8 x 8 digits with few examples; 400 others are held out."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    train, valid, test = order[:count], order[count : count + 400], order[count + 400 : count + 800]
    return from_loaders(
        f"digits-{count}",
        lambda: nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)),
        *((x[rows], y[rows]) for rows in (train, valid, test)),
        steps=steps,
        loss_fn=nn.CrossEntropyLoss(),
        batch_size=batch,
    )


def on_few(count: int, seeds: int) -> dict[str, Any]:
    """Mean losses over held-out seeds."""
    task = few(count, *SIZES[count])
    rates = learning_rates(0.01, 2.0, 9)
    tuned = run_rule(task, ZOO["adam"], 0, Stream.TUNE, range(4), rates).objective(0.4).mean(1)
    adam = replace(ZOO["adam"], lr=float(rates[tuned.argmin()]))
    found: dict[str, Any] = {"adam": measured(task, adam, [1.0], seeds)}
    return found | {name: measured(task, rule, [0.5, 1.0, 2.0], seeds) for name, rule in RULES.items()}


def measured(task: Any, rule: UpdateRule, factors: list[float], seeds: int) -> dict[str, Any]:
    """Losses at multiples of the rule's learning rate."""
    assert rule.lr is not None
    rates = rule.lr * torch.tensor(factors, dtype=torch.float64)
    laid = rule.with_horizon(task.horizon)
    outcome = run_rule(task, laid, 0, Stream.EVALUATE, range(seeds), rates, splits=("train", "test"))
    losses = {split: table["loss"].mean(1).tolist() for split, table in outcome.metrics.items()}
    return {"lr": rates.tolist(), **losses}


def on_family(count: int) -> dict[str, Any]:
    """Objectives, one row a training, at half, one and two times the rate."""
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    rows: dict[str, Any] = {name: [] for name in RULES}
    for number in range(FIRST, FIRST + count):
        task = small_trainings().draw(torch.Generator().manual_seed(number))
        for name, rule in RULES.items():
            assert rule.lr is not None
            outcome = run_rule(task, rule.with_horizon(task.horizon), 0, Stream.EVALUATE, [0], rule.lr * rates)
            rows[name].append(log_objective(outcome, 0.5)[:, 0].tolist())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--family", type=int, default=36, help="trainings of the family")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {"rule": str(WITH), "few": {count: on_few(count, arguments.seeds) for count in SIZES}}
    for count, rows in record["few"].items():
        for name, row in rows.items():
            shown = {key: [float(f"{value:.3g}") for value in values] for key, values in row.items()}
            print(f"{count} examples, {name}: {shown}")
    record["family"] = rows = on_family(arguments.family)
    difference = torch.tensor(rows["with"]) - torch.tensor(rows["without"])
    print("family, objective with minus without, mean at three rates:", difference.mean(0).tolist())
    print("the same, standard error:", (difference.std(0) / len(difference) ** 0.5).tolist())
    if arguments.json:
        write_atomically(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
