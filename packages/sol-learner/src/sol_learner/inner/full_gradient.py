r"""The gradient of the final loss by the numbers of a rule, exact over the whole horizon.

A rule with numbers x moves theta_0 to theta_T. With the adjoints lambda_t = dL/dtheta_t and mu_t = dL/dstate_t, going
back from t = T to 1,

    (lambda_{t-1}, mu_{t-1}, dL/dx +=) = (lambda_t, mu_t) . d(theta_t, state_t)/d(theta_{t-1}, state_{t-1}, x).

Steps are recomputed with second derivatives in segments of sqrt(T), so that memory holds the states at the segments'
starts and one segment's graph. Where training is chaotic, adjoints grow without bound and say nothing about the loss;
at the start of each segment, lambda_t and mu_t are therefore scaled so that |lambda_t| is at most :data:`MOST` times
|lambda_T|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sol_learner.inner.episodes import finite_or_inf, shares
from sol_learner.inner.optimizees import Drawn, Optimizees
from sol_learner.networks.base import State
from sol_learner.networks.differentiable import DIFFERENTIABLE
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Task
from sol_symbols import SolError, UpdateRule, evaluator

__all__ = ["GRADIENT_COST", "MOST", "relative_gradient"]

GRADIENT_COST = 5
"""What an episode of :func:`relative_gradient` counts as, in trainings: about the time that it takes."""

MOST = 1.0
"""Largest growth of adjoints."""

_BATCHES = 4
"""Batches of each split that the final loss is a mean of."""


def relative_gradient(
    task: Task,
    rule: UpdateRule,
    numbers: Callable[[Tensor], dict[str, Tensor]],
    point: Tensor,
    seed: int,
    stream: Stream,
    episodes: Sequence[int],
    weight: float,
    clock: Clock | None = None,
) -> tuple[Tensor, Tensor]:
    """The objective of each episode, [S], and the mean over them of d L_s / |L_s|, [n].

    Args:
        task: The task.
        rule: The rule, with a learning rate.
        numbers: Values of the rule at a point, 0-dimensional and differentiable.
        point: Where, [n], float64.
        seed: Base seed of the run.
        stream: Random stream of the episodes.
        episodes: Indices in that stream; S of them.
        weight: Of the training loss in the objective, whose losses are means over some batches.
        clock: Stops the computation on request.

    Returns:
        Objectives, which may be infinite; and the gradient, 0 in coordinates where it is not finite.

    Raises:
        SolError: The task projects its parameters, or its loss does not depend on those of the modules.
        RuntimeError: PyTorch does not know a second derivative.
        Interrupted: By the clock.
    """
    if getattr(task, "project", None) is not None:
        raise SolError(f"{task.name} projects its parameters, which has no derivative here")
    assert rule.lr is not None
    lr, horizon = rule.lr, task.horizon
    optimizees = Optimizees(task, seed, stream, episodes)
    phi = evaluator(rule, DIFFERENTIABLE, horizon, hoist=True, layout=optimizees.layout)

    def values(at: Tensor) -> dict[str, Tensor]:
        return {name: value.to(optimizees.theta) for name, value in numbers(at).items()}

    def segment(theta: Tensor, state: State, first: int, batches: list[Drawn]) -> tuple[Tensor, State]:
        """The steps of a segment, differentiable."""
        for t, drawn in enumerate(batches, start=first):
            losses = optimizees.losses(theta, drawn)
            (gradient,) = torch.autograd.grad(losses.sum(), theta, create_graph=True)
            step, state = phi(gradient, state, theta, t, losses)
            theta = theta - lr * step
        return theta, state

    length = max(1, round(math.sqrt(horizon)))
    phi.values.update(values(point.detach()))
    state, starts = phi.init(optimizees.theta), list[tuple[int, Tensor, State, list[Drawn]]]()
    for t in range(1, horizon + 1):
        if clock is not None:
            clock.check()
        if (t - 1) % length == 0:
            starts.append((t, optimizees.theta, dict(state), []))
        drawn = optimizees.draw()
        starts[-1][-1].append(drawn)
        losses, gradient = optimizees.losses_and_gradients(drawn)
        with torch.no_grad():
            step, state = phi(gradient, state, optimizees.theta, t, losses)
        optimizees.descend(step, lr)

    losses, adjoint = _final(optimizees, weight)
    sizes = losses.abs().clamp(min=torch.finfo(losses.dtype).tiny)
    adjoint = _finite(adjoint / (len(episodes) * sizes.unsqueeze(-1)))
    most = MOST * adjoint.norm(dim=-1, keepdim=True)
    adjoints = {name: torch.zeros_like(value) for name, value in state.items()}
    total = torch.zeros_like(point)
    for first, start, before, batches in reversed(starts):
        if clock is not None:
            clock.check()
        at, theta = point.detach().requires_grad_(), start.detach().requires_grad_()
        given = {name: value.detach().requires_grad_() for name, value in before.items()}
        phi.values.update(values(at))
        moved, after = segment(theta, given, first, batches)
        flowing = [(moved, adjoint), *((after[name], adjoints[name]) for name in after)]
        outputs, seeds = zip(*(pair for pair in flowing if pair[0].requires_grad))
        part, adjoint, *rest = torch.autograd.grad(
            outputs, [at, theta, *given.values()], seeds, allow_unused=True, materialize_grads=True
        )
        total += _finite(part)
        adjoint = _finite(adjoint)
        factor = (most / adjoint.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(adjoint.dtype).tiny)).clamp(max=1.0)
        adjoint = adjoint * factor
        adjoints = {name: _finite(value) * factor for name, value in zip(given, rest)}
    return losses.double(), total


def _final(optimizees: Optimizees, weight: float) -> tuple[Tensor, Tensor]:
    """The objective [S] on some batches after the last step, and its derivative by the parameters."""
    losses, adjoint = torch.zeros_like(optimizees.theta[..., 0]), torch.zeros_like(optimizees.theta)
    for split, share in shares(weight).items():
        for _ in range(_BATCHES):
            loss, gradient = optimizees.losses_and_gradients(optimizees.draw(split))
            losses, adjoint = losses + share / _BATCHES * loss, adjoint + share / _BATCHES * gradient
    return finite_or_inf(losses[0]), adjoint


def _finite(value: Tensor) -> Tensor:
    """``value`` with 0 for what is not finite."""
    return value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
