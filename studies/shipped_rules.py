"""What the trainings are worth by which ``sol tune TASK`` chooses a shipped rule, its rate and its weight decay.

    python studies/shipped_rules.py --json studies/prior/shipped-rules.json

Each rule trains at eight rates on draws of ``sol_tasks.small_trainings`` and ``sol_tasks.small_fits`` that no search
saw, with two seeds. One seed chooses among the rules and rates of a set, the other says what the choice is worth, and
the reverse. A value is the logarithmic objective less that of ``sol-general`` at its own rate, cut to [-3, 3]; lower is
better. The best of the ten pairs of ``sol tune`` then trains with weight decay: one seed chooses it as ``sol tune``
does, and the other says how much the logarithms of losses and objective change by it. The JSON keeps what was measured;
a run that is started again continues.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from sol_learner import TaskMixture
from sol_learner.inner import run_rule
from sol_learner.inner.rates import PRIORS, SHRINKING, growing_decays
from sol_learner.task import Stream, Substream, Task, generator_for
from sol_symbols import ZOO, write_atomically
from sol_tasks.small_fits import small_fits
from sol_tasks.small_trainings import small_trainings

SEED = 33
RULES = ("sol-general", "sol-fits", "sol-elementwise")
FACTORS = [2.0**power for power in range(-4, 4)]
PAIRS = [(name, factor) for name in RULES for factor in FACTORS]
DRAWS = {"trainings": range(48), "fits": range(0, 48, 2)}
LEAST = {"trainings": 1e-4, "fits": 1e-6}
"""Smaller losses count as this."""


def drawn(family: TaskMixture, draw: int) -> Task:
    """A task of a family."""
    return family.draw(generator_for(SEED, Stream.VALID, draw, Substream.RECORDING))


def objectives(family: TaskMixture, draw: int, least: float) -> list[list[float]]:
    """Logarithmic objective of every pair on a draw, [pairs][2 seeds]: the mean of training and validation loss."""
    task, rows = drawn(family, draw), []
    for name in RULES:
        rule = ZOO[name].with_horizon(task.horizon)
        assert rule.lr is not None
        rates = torch.tensor([float(f"{factor * rule.lr:.3g}") for factor in FACTORS], dtype=torch.float64)
        metrics = run_rule(task, rule, SEED, Stream.VALID, [2 * draw, 2 * draw + 1], rates).metrics
        logs = [metrics[split]["loss"].clamp(min=least).log() for split in ("train", "valid")]
        rows += (0.5 * (logs[0] + logs[1])).nan_to_num(nan=20.0, posinf=20.0).clamp(max=20).tolist()
    return [[round(value, 4) for value in row] for row in rows]


def decayed(task: Task, pair: tuple[str, float], draw: int) -> dict[str, list[list[float]]]:
    """Final losses of a pair without weight decay and with each, ``train`` and ``valid``, each [6][2 seeds]."""
    rule = ZOO[pair[0]].with_horizon(task.horizon).with_weight_decay(0.0)
    assert rule.lr is not None
    rate = float(f"{pair[1] * rule.lr:.3g}")
    decays = torch.tensor([0.0, *SHRINKING], dtype=torch.float64) / (rate * task.horizon)
    rates = torch.full_like(decays, rate)
    run = run_rule(task, rule, SEED, Stream.VALID, [2 * draw, 2 * draw + 1], rates, {"wd": decays})
    return {split: run.metrics[split]["loss"].tolist() for split in ("train", "valid")}


def gains(losses: dict[str, list[list[float]]], least: float, seed: int) -> list[float]:
    """What weight decay changes on the other seed: logarithms of training loss, validation loss and objective."""
    cut = {split: numpy.nan_to_num(numpy.array(rows), nan=1e9).clip(least, 1e9) for split, rows in losses.items()}
    cut["objective"] = 0.4 * cut["train"] + 0.6 * cut["valid"]
    chosen_by = cut["objective"][:, seed].tolist()
    pending = iter(chosen_by[1:])
    tried = growing_decays(lambda _: [next(pending)], [1.0], 1, chosen_by[0])
    best = min(range(len(tried) + 1), key=lambda i: chosen_by[i])
    return [math.log(rows[best, 1 - seed] / rows[0, 1 - seed]) for rows in cut.values()]


def values(table: numpy.ndarray, chosen: Sequence[int]) -> numpy.ndarray:
    """What a choice among some pairs is worth on each draw of ``table`` [draws, pairs, 2]."""
    reference, columns, found = PAIRS.index(("sol-general", 1.0)), numpy.array(chosen), []
    for seed in (0, 1):
        best = columns[table[:, columns, seed].argmin(1)]
        other = table[..., 1 - seed]
        found.append(other[numpy.arange(len(other)), best] - other[:, reference])
    return numpy.clip(numpy.mean(found, 0), -3, 3)


def main() -> None:
    """Measure what is missing, and say what sets of pairs are worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("shipped-rules.json"))
    path = parser.parse_args().json
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "pairs": PAIRS,
        **{kind: {name: {} for name in DRAWS} for kind in ("objectives", "decays")},
    }
    record |= json.loads(path.read_text()) if path.exists() else {}
    families: dict[str, TaskMixture] = {"trainings": small_trainings(), "fits": small_fits()}
    for name, family in families.items():
        rows = record["objectives"][name]
        for draw in DRAWS[name]:
            if str(draw) not in rows:
                rows[str(draw)] = objectives(family, draw, LEAST[name])
                write_atomically(path, json.dumps(record) + "\n")
    tables = {
        name: numpy.array([rows[str(draw)] for draw in DRAWS[name]]) for name, rows in record["objectives"].items()
    }

    def described(label: str, chosen: Sequence[int]) -> None:
        found = {name: values(table, chosen) for name, table in tables.items()}
        errors = {name: float(x.std() / len(x) ** 0.5) for name, x in found.items()}
        means = {name: float(x.mean()) for name, x in found.items()}
        print(f"{label:<36}", *(f"{name} {means[name]:+.3f} ± {errors[name]:.3f}" for name in found))
        pairs = [PAIRS[i] for i in chosen]
        record["sets"][label] = {"pairs": pairs, "value": means, "standard error": errors}

    five = {name: [PAIRS.index((name, 2.0**power)) for power in range(-2, 3)] for name in RULES}
    record["sets"] = {}
    for name in RULES:
        described(f"five rates of {name}", five[name])
    for count in (2, 3):
        described(f"five rates of {count} rules", [i for name in RULES[:count] for i in five[name]])
    tuned = numpy.array([i for name in PRIORS for i in five[name]])
    record["weight decay"] = {}
    for name, family in families.items():
        found = []
        for number, draw in enumerate(DRAWS[name]):
            rows = record["decays"][name].setdefault(str(draw), {})
            for seed in (0, 1):
                first = int(tuned[tables[name][number, tuned, seed].argmin()])
                if str(first) not in rows:
                    rows[str(first)] = decayed(drawn(family, draw), PAIRS[first], draw)
                    write_atomically(path, json.dumps(record) + "\n")
                found.append(gains(rows[str(first)], LEAST[name], seed))
        both = numpy.clip(numpy.reshape(found, (-1, 2, 3)).mean(1), -3, 3)
        means, errors = both.mean(0).tolist(), (both.std(0) / len(both) ** 0.5).tolist()
        record["weight decay"][name] = {"value": means, "standard error": errors}
        shown = zip(("training loss", "validation loss", "objective"), means, errors)
        print(f"weight decay, {name}:", *(f"{kind} {mean:+.3f} ± {error:.3f}" for kind, mean, error in shown))
    write_atomically(path, json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
