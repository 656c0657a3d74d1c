"""Figure 6: a rule that was learned on images fine-tunes a language model on Alpaca's instructions, against AdamW.

The rule is that of ``table3.py`` (ResNet-18), or where that was not run that of ``table2.py`` (ConvNet), at the same
size. It was learned for other gradients, so its learning rate is tuned, as AdamW's is: over the same number of rates,
on the same tuning seeds. Its schedule is laid over the fine-tuning's steps.

    OMP_NUM_THREADS=1 python studies/figure6.py --size cpu
"""

from __future__ import annotations

import json
from typing import Any

import torch
from common import HERE
from study import Budget, Study, begin
from transformers import AutoModelForCausalLM

from sol_learner import Task
from sol_symbols import UpdateRule
from sol_tasks import instruction_tuning
from sol_tasks.pretrained import find_language_model

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "task": {"checkpoint": "huggyllama/llama-7b", "length": 512, "horizon": 1_200, "batch_size": 128},
        "trained": "all",
        "precision": "bfloat16",
    },
    "cpu": {
        "task": {"length": 48, "horizon": 20, "batch_size": 2, "rows": 160, "sample": 16},
        "trained": ("model.layers.28.", "model.layers.29.", "model.norm."),
        "precision": "float32",
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=1, trials=6, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=3, trials=8, tuning_seeds=1)),
}
ALWAYS = ["The learning rates of both are tuned, over as many values each."]
NOTES = {
    "paper": [
        "LLaMA-7B is a checkpoint that transformers fetches, and the number of steps is not in the paper.",
        *ALWAYS,
    ],
    "cpu": [
        "SmolLM2-135M (LLaMA's architecture) instead of LLaMA-7B; the last two of its 30 blocks are trained, for 20"
        " batches of 2 rows, cut to 48 tokens; losses are over 16 rows of each split. This shows that the transfer"
        " runs; it is no measurement of LLaMA-7B.",
        *ALWAYS,
    ],
}


def language_model(trained: str | tuple[str, ...], precision: str, **options: Any) -> Task:
    """The task, with parameters frozen whose names do not begin with one of ``trained``."""
    folder, file = find_language_model()
    folder = options.setdefault("checkpoint", folder)
    found: dict[str, Any] = {"gguf_file": file} if folder == find_language_model()[0] and file else {}
    model = AutoModelForCausalLM.from_pretrained(folder, **found).float()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or name.startswith(trained))
    dtype = None if precision == "float32" else getattr(torch, precision)
    return instruction_tuning(model=model, dtype=dtype, **options, **found)


def source(size: str) -> tuple[str, UpdateRule]:
    """Where a rule was learned on images, and the rule without its rate."""
    for name in ("table3", "table2"):
        path = HERE / f"{name}-{size}.json"
        if path.is_file():
            rule = UpdateRule.parse(json.loads(path.read_text(encoding="utf-8"))["rules"]["learned"])
            return path.name, UpdateRule(rule.expression, rule.values)
    raise SystemExit(f"no rule to take over: run table3.py or table2.py --size {size} first")


def main(study: Study) -> None:
    """Compare, write."""
    settings = study.settings
    name, rule = source(study.size)
    study.record["learned in"], study.record["rules"] = name, {"learned": str(rule)}
    options = {**settings["task"], "trained": settings["trained"], "precision": settings["precision"]}
    study.compare(study.task(language_model, **options), {"learned": rule, "adamw": "adamw"})
    study.save()


if __name__ == "__main__":
    main(begin("figure6", "Figure 6", "a language model, with a rule learned on images", SIZES, NOTES))
