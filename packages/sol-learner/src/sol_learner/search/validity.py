"""Where a rule is valid: on variants of the task that it was not learned on, with nothing tuned.

Variants are the same task with 1.4 times and twice the learning rate, over half and twice the steps, with a third and
three times the input, with inputs of mean 0 and standard deviation 1, with half and twice the batch, and with ReLU in
place of sigmoid and tanh. A variant that a task does not allow is left out: inputs are changed only where the model is
called with floats, and standardised where they are one tensor; batches only where all tensors have the same number of
rows; units only where they are modules. A guarded search adds two other networks
(:mod:`~sol_learner.inner.references`).

A rule that is barely stable on its task diverges with a larger learning rate, on many other tasks, and now and then on
its own: so 1.4 times the rate is the variant that is checked where trainings are few. With twice the rate, a start that
is stable often fails, too, where its rate was tuned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sol_learner.inner.episodes import run_rule
from sol_learner.inner.references import REFERENCES, reference
from sol_learner.mixture import augmented, is_float
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.search.terms import losses_together
from sol_learner.task import Stream, Task, build_optimizee, draw_batches, task_for
from sol_symbols import SolError, UpdateRule

__all__ = ["FACTOR", "Variant", "failures", "losses_elsewhere", "variants"]

FACTOR = 2.0
"""A rule fails on a variant if its loss is more than this times the lowest of all rules compared."""


@dataclass(frozen=True)
class Variant:
    """A variant of a task and of how a rule is used on it.

    Attributes:
        changes: Arguments of :func:`~sol_learner.mixture.augmented`.
        rate: Multiple of the rule's learning rate.
        layers: If not 0, the variant is a reference network of as many hidden layers.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    layers: int = 0

    def of(self, task: Task) -> Task:
        """The variant of the task."""
        if self.layers:
            return reference(0, Stream.VALID, REFERENCES + self.layers, task.horizon, self.layers)
        return augmented(task, **self.changes)


def variants(task: Task, guarded: bool = False, brief: bool = False) -> dict[str, Variant]:
    """Variants of a task by description; if ``guarded``, with other networks. ``brief``: a larger rate alone."""
    found = {"1.4 times the learning rate": Variant(rate=1.4)}
    if brief:
        return found
    found |= {
        "twice the learning rate": Variant(rate=2.0),
        "twice the steps": Variant({"horizon": 2 * task.horizon}),
        "half the steps": Variant({"horizon": max(1, task.horizon // 2)}),
    }
    if getattr(task, "pool", None) is None and getattr(task, "project", None) is None:
        called: list[tuple[Any, ...]] = []
        seen = {None, _first(task, called)}  # losses of the first batch: variants that change nothing are left out
        standard = _standardising(called)
        other = {
            "twice the batch": Variant({"batch_factor": 2.0}),
            "half the batch": Variant({"batch_factor": 0.5}),
            "a third of the input": Variant({"input_scale": 1 / 3}),
            "three times the input": Variant({"input_scale": 3.0}),
            "standardised inputs": Variant(standard),
            "ReLU units": Variant({"rectified": True}),
            "ReLU units, standardised inputs": Variant({**standard, "rectified": True}),
        }
        for name, variant in other.items():
            if variant.changes and (first := _first(variant.of(task))) not in seen:
                seen.add(first)
                found[name] = variant
    if guarded:
        found |= {f"another network, {layers} hidden layers": Variant(layers=layers) for layers in (2, 3)}
    return found


def _first(task: Task, called: list[tuple[Any, ...]] | None = None) -> float | None:
    """The loss of the first batch; ``None`` if it fails. What the model is called with is added to ``called``."""
    own = task_for(task, Stream.VALID)

    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if called is not None:
            called.append(arguments)

    try:
        model = build_optimizee(own, 0, Stream.VALID, 0).train()
        model.register_forward_pre_hook(look)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            return float(own.loss(model, next(draw_batches(own, "train", 0, Stream.VALID, 0))).detach())
    except Exception:  # a variant that the task's code does not allow
        return None


def _standardising(called: Sequence[tuple[Any, ...]]) -> dict[str, float]:
    """Arguments of ``augmented`` that give inputs mean 0 and standard deviation 1; none if they are not one tensor.

    ``called`` has what the model is called with.
    """
    floats: list[Tensor] = [value for value in (called[0] if called else ()) if is_float(value)]
    if len(floats) != 1:
        return {}
    mean, deviation = float(floats[0].mean()), float(floats[0].std())
    return {"input_scale": 1 / deviation, "input_shift": -mean} if 0 < deviation < math.inf else {}


def losses_elsewhere(
    rules: Sequence[UpdateRule],
    task: Constant[Task],
    seed: int,
    episodes: int,
    weight: float,
    workers: Workers,
    clock: Clock | None = None,
    guarded: bool = False,
    brief: bool = False,
) -> dict[str, list[float]]:
    """Mean objective of each rule on each variant, on the validation stream; infinite if a run diverges.

    ``guarded`` and ``brief`` are as in :func:`variants`.

    Raises:
        Interrupted: By the clock.
    """
    found = variants(task.value, guarded, brief)
    own = clock if workers.jobs == 1 else None  # a clock cannot be shared with other processes
    measure = partial(_measured, rules, task, seed, episodes, weight, own)
    losses = workers.map(measure, [*found.values()], clock)
    return {name: row for name, row in zip(found, losses) if row}


def _measured(
    rules: Sequence[UpdateRule],
    task: Constant[Task],
    seed: int,
    episodes: int,
    weight: float,
    clock: Clock | None,
    variant: Variant,
) -> list[float]:
    other = variant.of(task.value)

    def losses(rule: UpdateRule, values: dict[str, Tensor]) -> Tensor:
        rate = variant.rate * values.pop("lr")
        outcome = run_rule(other, rule, seed, Stream.VALID, range(episodes), rate, values, clock=clock)
        return outcome.objective(weight).mean(1)

    try:
        return losses_together(rules, losses)
    except (SolError, RuntimeError):  # such as a layer that needs a batch of its size
        return []


def failures(table: Mapping[str, Sequence[float]], rule: int, rules: Sequence[int] | None = None) -> list[str]:
    """The variants of the table of :func:`losses_elsewhere` on which a rule fails, by its place.

    It fails where its run diverges, or where its loss is more than :data:`FACTOR` times the lowest of ``rules``, by
    default of all.
    """
    found = []
    for name, losses in table.items():
        lowest = min(losses) if rules is None else min(losses[number] for number in rules)
        if not math.isfinite(losses[rule]) or (lowest > 0 and losses[rule] > FACTOR * lowest):
            found.append(name)
    return found
