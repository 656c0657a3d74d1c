"""Figure 6: a rule that was learned on images fine-tunes a language model on Alpaca's instructions, against AdamW.

The rule is that of ``table3.py`` (ResNet-18), or where that was not run that of ``table2.py`` (ConvNet), at the same
size. It was learned for other gradients, so its learning rate is one of eight. AdamW, with linear decay, has eight
settings: four rates, with a warm-up of a tenth of the steps and without. All of these are tried over all steps, on one
seed of the tuning stream, and chosen by the mean of training and validation loss. Both train with what ``sol export
--to torch`` writes, with ``fused=True``.

With ``rank``, low-rank adapters of all linear layers of the blocks are trained (LoRA, by the package peft), in float32;
the weights that stay are in the precision of the forward pass.

    OMP_NUM_THREADS=1 python studies/figure6.py --size cpu
"""

from __future__ import annotations

import json
from typing import Any

import torch
from common import HERE, results
from fine_tuning import LINEAR, WARMED, adamw, multiples, tuned_and_compared
from study import Budget, Study, begin

from sol_learner import Task
from sol_symbols import UpdateRule
from sol_tasks import instruction_tuning
from sol_tasks.pretrained import GET_SMOLLM2, find_language_model, load_pretrained

SHARED: dict[str, Any] = {
    "adamw": [LINEAR, WARMED],
    "learned rates": [2.0**power for power in range(-6, 2)],
    "tuned over": "all steps",
    "precision": "bfloat16",
    "trained with": "the emitted files, fused=True",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        **SHARED,
        "task": {"checkpoint": "huggyllama/llama-7b", "length": 512, "horizon": 1_200, "batch_size": 128},
        "rank": None,
        "adamw rates": [5e-6, 1e-5, 2e-5, 4e-5],
        "learned rates": [2.0**power for power in range(-12, -4)],
    },
    "cpu": {
        **SHARED,
        "task": {"length": 96, "horizon": 200, "batch_size": 2, "sample": 64},
        "rank": 8,
        "adamw rates": [2e-4, 6e-4, 2e-3, 6e-3],
    },
}
SIZES = {
    "paper": (SETTINGS["paper"], Budget(seeds=1, trials=8, tuning_seeds=1)),
    "cpu": (SETTINGS["cpu"], Budget(seeds=5, trials=8, tuning_seeds=1)),
}
ALWAYS = [
    "The rule's learning rate is one of eight, as AdamW has eight settings.",
    "AdamW decays linearly, with and without a warm-up of a tenth of the steps; the paper's schedule is not known.",
]
NOTES = {
    "paper": [
        "LLaMA-7B is a checkpoint that transformers fetches, and the number of steps is not in the paper.",
        *ALWAYS,
    ],
    "cpu": [
        "SmolLM2-135M (LLaMA's architecture) instead of LLaMA-7B, with adapters of rank 8 (LoRA) in all blocks: 2.4M"
        " parameters; 200 batches of 2 of 791 rows, cut to 96 tokens; losses are over 98 rows of the test split.",
        *ALWAYS,
    ],
}


def language_model(rank: int | None, precision: str, **options: Any) -> Task:
    """The task: the whole model, or with ``rank`` its adapters."""
    folder, file = find_language_model()
    folder = options.setdefault("checkpoint", folder)
    found: dict[str, Any] = {"gguf_file": file} if folder == find_language_model()[0] and file else {}
    model, _ = load_pretrained("AutoModelForCausalLM", folder, GET_SMOLLM2, **found)
    dtype = getattr(torch, precision)
    if rank is not None:
        import peft

        form = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model.to(dtype), form)
    return instruction_tuning(model=model, dtype=dtype, **options, **found)


def source(size: str) -> tuple[str, UpdateRule]:
    """Where a rule was learned on images, and the rule."""
    for name in ("table3", "table2"):
        path = HERE / f"{name}-{size}.json"
        if path.is_file():
            return path.name, UpdateRule.parse(json.loads(path.read_text(encoding="utf-8"))["rules"]["learned"])
    raise SystemExit(f"no rule to take over: run table3.py or table2.py --size {size} first")


def main(study: Study) -> None:
    """Tune, compare, write."""
    settings = study.settings
    name, rule = source(study.size)
    task = study.task(language_model, rank=settings["rank"], precision=settings["precision"], **settings["task"])
    candidates = {
        "learned": multiples(rule, settings["learned rates"]),
        "adamw": adamw(settings["adamw rates"]),
    }
    comparison = tuned_and_compared(study, candidates, task, task)
    study.record |= {"learned in": name, **results(comparison, "loss")}
    study.save()


if __name__ == "__main__":
    main(begin("figure6", "Figure 6", "a language model, with a rule learned on images", SIZES, NOTES))
