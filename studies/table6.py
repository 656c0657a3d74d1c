"""Table 6: GAT and JK-Net on citation graphs, T = 250, public split: a rule with a pull to the average of the weights.

    python studies/table6.py --size cpu jknet-cora jknet-citeseer gat-cora gat-citeseer

The **opponent** is AdamW over rates, decoupled weight decays and three schedules, on the tuning stream: every setting
on two episodes, the better ones on more and more. The one with the highest validation accuracy is taken. The JSON has
what every setting reached.

The **rule** has twelve numbers, which CMA-ES searches: its rate; coefficients of Adam's and RMSprop's direction and of
the weights, constant and with a cosine decay, and of the sign of the momentum; the power with which the pull rises;
three decay rates. The pull is outside of the learning rate: its coefficient is 1/lr, so that the weights end as their
average. The search starts from the tuned AdamW with a pull, draws new episodes for every generation, and minimises what
:func:`criterion` gives on the validation nodes. The start, the last mean and the mean of the later half are compared on
the validation stream. Both sides get as many trainings; the JSON counts them.

The **paper's opponent** is Adam with the constant rate 0.01. All run on the same held-out episodes. Differences of the
test accuracy are paired; intervals are 95 %, Student's t. Test nodes and held-out episodes choose nothing.

Trainings are those of ``graph_training.py``, which needs a C compiler and runs on one core.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cmaes
import numpy
from common import paired, summary
from graph_training import GraphTraining
from study import Budget, Study, begin

from sol_learner import load_task
from sol_learner.task import Stream
from sol_tasks import NodeClassification

SCHEDULES = {"constant": "1", "linear": "ld", "cosine": "cd"}
COEFFICIENTS = ("ad", "ad_cd", "rs", "rs_cd", "sign_cd", "w", "w_cd")
FORMULA = (
    "({ad} + {ad_cd}*cd)*ad + ({rs} + {rs_cd}*cd)*rs + {sign_cd}*cd*sign(m) + ({w} + {w_cd}*cd)*w + {pull}*pull"
    " where T = 250, beta1 = {beta1}, beta2 = {beta2}, beta_avg = {beta_avg}, rise_power = {rise_power}, lr = {lr}"
)
# Name, first step of the search, and the coordinate: x itself, its logarithm, or that of 1 - x.
COORDINATES = (
    ("lr", 0.2, "log"),
    *((name, 0.15, "linear") for name in ("ad", "ad_cd")),
    *((name, 0.07, "linear") for name in ("rs", "rs_cd", "sign_cd", "w", "w_cd")),
    ("rise_power", 0.3, "log"),
    ("beta1", 0.3, "complement"),
    ("beta2", 0.3, "complement"),
    ("beta_avg", 0.3, "complement"),
)
DIVERGED = 10.0

GRID = {"rates": [0.003, 0.01, 0.03, 0.1, 0.3], "decays": [0.03, 0.1, 0.3, 1.0, 3.0], "schedules": [*SCHEDULES]}
SIZES: dict[str, tuple[dict[str, Any], Budget]] = {
    "paper": (
        {
            **GRID,
            "rounds": [[75, 3], [25, 6], [12, 12], [6, 20], [3, 67]],
            "search": {"generations": 13, "population": 12, "episodes": 5},
            "choice": 20,
        },
        Budget(seeds=100, trials=0, tuning_seeds=108),
    ),
    "cpu": (
        {
            **GRID,
            "rounds": [[75, 2], [20, 5], [10, 10], [5, 20], [3, 33]],
            "search": {"generations": 10, "population": 10, "episodes": 5},
            "choice": 16,
        },
        Budget(seeds=40, trials=0, tuning_seeds=70),
    ),
}
NOTES = {
    size: [
        f"{budget.seeds} held-out seeds. Networks, graphs, the public split and the 250 steps are the paper's.",
        "The baseline is AdamW over 75 settings of rate, weight decay and schedule, picked by validation accuracy;",
        "the rule, which ends as the average of the weights, is learned on each task with as many trainings.",
    ]
    for size, (_, budget) in SIZES.items()
}
METRICS = ("accuracy", "calibrated", "loss")

Metrics = dict[str, list[float]]
"""Metrics of one split, a number an episode."""


def criterion(metrics: Metrics) -> float:
    """Mean over episodes of the calibrated loss plus the error; :data:`DIVERGED` for one that is not finite."""
    found = [a + 1 - b for a, b in zip(metrics["calibrated"], metrics["accuracy"])]
    return sum(x if math.isfinite(x) else DIVERGED for x in found) / len(found)


def trained(
    training: GraphTraining, rule: str, stream: Stream, episodes: range, splits: Sequence[str] = ("valid",)
) -> dict[str, Metrics]:
    """Metrics of a rule after each episode, by split."""
    rows = [training.run(rule, stream, episode, splits) for episode in episodes]
    return {split: {name: [row[split][name] for row in rows] for name in METRICS} for split in splits}


def adamw(row: Mapping[str, Any]) -> str:
    """A setting of AdamW as a rule."""
    return f"(ad + {row['wd']}*w)*{SCHEDULES[row['schedule']]} where T = 250, lr = {row['lr']}"


def tune(study: Study, training: GraphTraining) -> list[dict[str, Any]]:
    """Every setting of AdamW with what was measured, those with most episodes first, of these the most accurate."""
    settings = study.settings
    grid = itertools.product(settings["schedules"], settings["rates"], settings["decays"])
    table: list[dict[str, Any]] = [{"schedule": s, "lr": lr, "wd": wd, "valid": {}} for s, lr, wd in grid]
    first = 0
    for count, episodes in settings["rounds"]:
        stretch = range(first, first := first + episodes)
        for row in table[:count]:
            run = partial(trained, training, adamw(row), Stream.TUNE, stretch)
            found = study.kept.once(f"tuned/{adamw(row)}/{stretch.start}", run)["valid"]
            row["valid"] = {name: [*row["valid"].get(name, ()), *found[name]] for name in METRICS}
        table.sort(key=lambda row: (-len(row["valid"]["accuracy"]), -numpy.mean(row["valid"]["accuracy"])))
        print(f"{training.task.name}, best of {count}: {adamw(table[0])}", flush=True)
    return table


def at(z: numpy.ndarray) -> dict[str, float]:
    """The rule's numbers at a point of the search."""
    turned: dict[str, Callable[[float], float]]
    turned = {"linear": float, "log": math.exp, "complement": lambda x: 1 - min(max(math.exp(x), 1e-5), 0.9)}
    return {name: turned[kind](x * step) for (name, step, kind), x in zip(COORDINATES, z)}


def point(values: Mapping[str, float]) -> numpy.ndarray:
    """Where the search has these numbers."""
    turned: dict[str, Callable[[float], float]]
    turned = {"linear": float, "log": math.log, "complement": lambda x: math.log(1 - x)}
    return numpy.array([turned[kind](values[name]) / step for name, step, kind in COORDINATES])


def rule_at(z: numpy.ndarray) -> str:
    """The rule at a point of the search, its numbers to four digits."""
    values = at(z)
    short = {name: float(f"{value:.4g}") for name, value in values.items()}
    short |= {name: round(1 - float(f"{1 - values[name]:.4g}"), 9) for name in ("beta1", "beta2", "beta_avg")}
    return FORMULA.format(pull=1 / short["lr"], **{n: f"({x})" if n in COEFFICIENTS else x for n, x in short.items()})


def learn(study: Study, training: GraphTraining, start: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The rule, and how the search went."""
    generations, population, episodes = study.settings["search"].values()
    plain = {**dict.fromkeys(COEFFICIENTS, 0.0), "lr": start["lr"], "w": start["wd"]}
    plain |= {"rise_power": 30.0, "beta1": 0.9, "beta2": 0.999, "beta_avg": 0.98}
    plain |= {"ad": 1.0} if start["schedule"] == "constant" else {"ad": 0.5, "ad_cd": 0.5}
    search = cmaes.CMA(point(plain), 1.0, population_size=population, seed=1)
    means, medians = [search.mean.copy()], []
    for generation in range(generations):
        points = [search.ask() for _ in range(population)]
        stretch = range(generation * episodes, (generation + 1) * episodes)
        losses = []
        for place, z in enumerate(points):
            run = partial(trained, training, rule_at(z), Stream.TRAIN, stretch)
            losses.append(criterion(study.kept.once(f"search/{generation}/{place}", run)["valid"]))
        search.tell(list(zip(points, losses)))
        means.append(search.mean.copy())
        medians.append(float(numpy.median(losses)))
        print(f"{training.task.name}, generation {generation + 1}: {medians[-1]:.4f} {min(losses):.4f}", flush=True)
    chosen = {"start": means[0], "last": means[-1], "later half": numpy.mean(means[len(means) // 2 :], 0)}
    texts, scores = {name: rule_at(z) for name, z in chosen.items()}, {}
    for name, text in texts.items():
        run = partial(trained, training, text, Stream.VALID, range(study.settings["choice"]))
        scores[name] = criterion(study.kept.once(f"choice/{name}", run)["valid"])
    best = min(scores, key=scores.__getitem__)
    return texts[best], {"median of each generation": medians, "candidates": texts, "choice": scores, "chosen": best}


def tables(scores: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """What the report shows, in per cent."""
    spread = [[label, *(100 * x for x in summary(numbers).values())] for label, numbers in scores.items()]
    ends = {label: paired(scores["learned"], numbers) for label, numbers in scores.items() if label != "learned"}
    gains = [[label, *(100 * ends[label][end] for end in ("mean", "low", "high"))] for label in ends]
    return [
        {"title": "Test accuracy", "head": ["per cent", "mean", "standard deviation"], "rows": spread},
        {"title": "Learned minus the others", "head": ["points", "mean", "low", "high"], "rows": gains},
    ]


def main(study: Study, name: str) -> None:
    """Tune, learn, compare, and say how it went."""
    task = study.task(load_task, name).load()
    assert isinstance(task, NodeClassification), name
    training = GraphTraining(task)
    table = tune(study, training)
    rule, search = learn(study, training, table[0])
    means = [{metric: float(numpy.mean(row["valid"][metric])) for metric in METRICS} for row in table]
    steady = next(row for row in table if row["schedule"] == "constant")
    by_loss = min(zip(table, means), key=lambda pair: pair[1]["loss"])[0]
    picked = {"AdamW": table[0], "AdamW, constant": steady, "AdamW, by loss": by_loss}
    rules = {"learned": rule, **{label: adamw(row) for label, row in picked.items()}, "Adam 0.01": "ad where lr = 0.01"}
    scores, seeds = {}, range(study.budget.seeds)
    for label, text in rules.items():
        run = partial(trained, training, text, Stream.EVALUATE, seeds, ("valid", "test"))
        scores[label] = study.kept.once(f"held out/{text}", run)["test"]["accuracy"]
    settings = study.settings
    study.record |= {
        "rules": rules,
        "trainings": {
            "learned": math.prod(settings["search"].values()) + len(search["candidates"]) * settings["choice"],
            "AdamW": sum(count * episodes for count, episodes in settings["rounds"]),
        },
        "test accuracy": {label: summary(numbers) for label, numbers in scores.items()},
        **{f"accuracy, learned - {label}": paired(scores["learned"], scores[label]) for label in [*rules][1:]},
        "accuracy of each seed": scores,
        "tables": tables(scores),
        "search": search,
        "AdamW tried": [
            {key: row[key] for key in ("schedule", "lr", "wd")} | {"episodes": len(row["valid"]["accuracy"])} | mean
            for row, mean in zip(table, means)
        ],
    }
    for label in [*rules][1:]:
        print(name, label, study.record[f"accuracy, learned - {label}"], flush=True)
    study.save()


if __name__ == "__main__":
    whole = begin("table6", "Table 6", "graphs", SIZES, NOTES, {"tasks": {"nargs": "+"}})
    for task_name in whole.given.tasks:
        main(whole.part(task_name), task_name)
