"""Fine-tuning studies: optimizers are tuned on one training and compared on another, as emitted files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from study import Study

from sol_export import load_optimizer
from sol_learner import Comparison, Recipe
from sol_learner.comparing.optimizer_specs import RuleSpec, Started
from sol_learner.comparing.trials import Trial, run_trial
from sol_learner.inner.episodes import shares
from sol_learner.inner.optimizees import Optimizees
from sol_learner.task import Stream
from sol_symbols import UpdateRule

LINEAR = "ld*(ad + w*wd) where wd = 0.01"
WARMED = "min(1, 10 - 10*ld)*ld*(ad + w*wd) where wd = 0.01"
"""AdamW with linear decay, and with a warm-up of a tenth of the steps, too."""

Candidates = Mapping[str, Sequence[tuple[UpdateRule, float]]]
"""By the name of an optimizer, what it can be: a rule and its learning rate."""


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


def tuned_and_compared(study: Study, candidates: Candidates, short: Recipe, whole: Recipe) -> Comparison:
    """Choose each optimizer's candidate on the training ``short``, and compare those on the whole one."""
    steps = whole.load().horizon
    optimizers, tuned, tried = {}, {}, {}
    for name, options in candidates.items():
        measured = []
        for rule, rate in options:
            value = study.kept.once(f"tuned/{rule}/{rate}", partial(loss, short, rule, rate))
            measured.append((value, rate, str(rule)))
            print(name, *measured[-1], flush=True)
        best = measured.index(min(measured))
        optimizers[name] = Emitted(options[best][0].with_horizon(steps))
        tuned[name] = (options[best][1], [(rate, value) for value, rate, text in measured if text == measured[best][2]])
        tried[name] = [{"rule": text, "lr": rate, "loss": value} for value, rate, text in measured]
    comparison = study.compare(whole, optimizers, tuned=tuned)
    study.record |= {"rules": {"learned": str(optimizers["learned"].rule)}, "steps": steps, "tried": tried}
    return comparison


def multiples(rule: UpdateRule, factors: Sequence[float]) -> list[tuple[UpdateRule, float]]:
    """The rule at multiples of its learning rate."""
    assert rule.lr is not None
    open_rule = UpdateRule(rule.expression, rule.values)
    return [(open_rule, float(f"{factor * rule.lr:.3g}")) for factor in factors]


def adamw(rates: Sequence[float]) -> list[tuple[UpdateRule, float]]:
    """AdamW with both schedules at each rate."""
    return [(UpdateRule.parse(text), rate) for text in (LINEAR, WARMED) for rate in rates]


def loss(recipe: Recipe, rule: UpdateRule, rate: float) -> float:
    """Objective on the tuning seed."""
    task, parts = recipe.load(), shares(0.5)
    optimizer = Emitted(rule.with_horizon(task.horizon))
    trial = Trial(task, optimizer, {"lr": rate}, 0, Stream.TUNE, 0, task.horizon, tuple(parts))
    metrics = run_trial(trial)["metrics"]
    losses = [share * metrics[split]["loss"] for split, share in parts.items() if split in metrics]
    return sum(losses) if len(losses) == len(parts) else math.inf
