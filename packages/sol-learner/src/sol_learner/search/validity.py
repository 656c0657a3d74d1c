"""Where a rule is valid: on variants of the task that it was not learned on, with nothing tuned.

Variants are the same task over half and twice the steps, with a third and three times the input, with half and twice
the batch. A variant that a task does not allow is left out: inputs are scaled only where the model is called with
floats, batches only where all tensors have the same number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from sol_learner.inner.episodes import run_rule
from sol_learner.mixture import augmented
from sol_learner.task import Stream, Task, build_optimizee, draw_batches, task_for
from sol_symbols import SolError, UpdateRule

__all__ = ["FACTOR", "admissible", "losses_elsewhere", "variants"]

FACTOR = 2.0
"""A rule is refused if its loss on a variant is more than this times the lowest of all rules compared."""


def variants(task: Task) -> dict[str, Task]:
    """Variants of a task by description."""
    found = {
        "half the steps": augmented(task, horizon=max(1, task.horizon // 2)),
        "twice the steps": augmented(task, horizon=2 * task.horizon),
    }
    if getattr(task, "pool", None) is None and getattr(task, "project", None) is None:
        found |= {
            "a third of the input": augmented(task, input_scale=1 / 3),
            "three times the input": augmented(task, input_scale=3.0),
            "half the batch": augmented(task, batch_factor=0.5),
            "twice the batch": augmented(task, batch_factor=2.0),
        }
    return {name: variant for name, variant in found.items() if _differs(task, variant)}


def _differs(task: Task, variant: Task) -> bool:
    """Whether a step of the variant works and is not the task's own."""
    if variant.horizon != task.horizon:
        return True
    own = [_first(one) for one in (task, variant)]
    return own[1] is not None and own[0] != own[1]


def _first(task: Task) -> float | None:
    """The loss of the first batch; ``None`` if it fails."""
    own = task_for(task, Stream.VALID)
    try:
        model = build_optimizee(own, 0, Stream.VALID, 0).train()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            return float(own.loss(model, next(draw_batches(own, "train", 0, Stream.VALID, 0))).detach())
    except Exception:  # a variant that the task's code does not allow
        return None


def losses_elsewhere(
    rules: Mapping[str, UpdateRule], task: Task, seed: int, episodes: int, weight: float
) -> dict[str, dict[str, float]]:
    """Mean objective of each rule on each variant, on the validation stream; infinite if a run diverges."""
    table: dict[str, dict[str, float]] = {}
    for description, variant in variants(task).items():
        try:
            table[description] = {
                name: float(run_rule(variant, rule, seed, Stream.VALID, range(episodes)).objective(weight).mean())
                for name, rule in rules.items()
            }
        except (SolError, RuntimeError):  # such as a layer that needs a batch of its size
            continue
    return table


def admissible(table: Mapping[str, Mapping[str, float]], name: str) -> bool:
    """Whether a rule of the table of :func:`losses_elsewhere` holds on all variants."""
    for losses in table.values():
        lowest = min(losses.values())
        if not math.isfinite(losses[name]) and math.isfinite(lowest):
            return False
        if lowest > 0 and losses[name] > FACTOR * lowest:
            return False
    return True
