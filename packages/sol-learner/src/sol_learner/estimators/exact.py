r"""Exact meta-gradients of a window, second-order terms included, by the adjoint method.

With the adjoints lambda_s = dL/dtheta_s and mu_s = dL/dstate_s, going back from s = U to 1,

    (lambda_{s-1}, mu_{s-1}, dL/dw +=) = (lambda_s, mu_s) . d(theta_s, state_s)/d(theta_{s-1}, state_{s-1}, w),

lambda_{s-1} += (dF/dl_{s-1}) grad l(theta_{s-1}). The backward pass recomputes each inner step, with its second
derivatives, so it stores only the window's parameters and states, and one step's graph at a time.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sol_learner.estimators.base import Estimator, Window
from sol_learner.inner.optimizees import Optimizees
from sol_learner.networks.base import State
from sol_symbols import SolError

__all__ = ["Exact"]


@final
class Exact(Estimator):
    """The adjoint method above; see :class:`~sol_learner.estimators.Estimator` for the arguments.

    Raises:
        SolError: The task projects its parameters, which has no derivative here.
    """

    def begin(self, optimizees: Optimizees, lr: float, horizon: int) -> None:
        """Start an episode; see :meth:`Estimator.begin`."""
        if hasattr(optimizees.task, "project"):
            raise SolError(f"{optimizees.task.name} projects its parameters; use the estimator first-order or pes")
        super().begin(optimizees, lr, horizon)

    def window(self, steps: int) -> Window:
        """Run ``steps`` more inner steps and differentiate through them."""
        first, before, losses, outer = self.t, [], [], []
        for _ in range(steps):
            state = {name: value.clone() for name, value in self.state.items()}  # steps may overwrite states
            before.append((self.optimizees.theta, state, self.drawn, self.gradient))
            self._move()
            loss, gradient = self._outer()
            losses.append(loss)
            outer.append(gradient)
        table = torch.stack(losses).requires_grad_()
        (weights,) = torch.autograd.grad(self.meta_loss(table).sum(), table)
        weights = weights.unsqueeze(-1) / weights[0].numel()

        parameters = list(self.network.parameters())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        adjoint = torch.zeros_like(outer[0])
        adjoints = {name: torch.zeros_like(value) for name, value in self.state.items()}
        for s in reversed(range(steps)):
            theta, state, drawn, gradient = before[s]
            theta = theta.detach().requires_grad_(s > 0)
            state = {name: value.detach().requires_grad_(s > 0) for name, value in state.items()}
            if s > 0:  # the window's first gradient is taken where nothing depends on w yet
                (gradient,) = torch.autograd.grad(self.optimizees.losses(theta, drawn).sum(), theta, create_graph=True)
            moved, after = self._step(theta, state, gradient, first + s)
            inputs = [*parameters, *([theta, *state.values()] if s > 0 else [])]
            flowing = [(moved, adjoint + weights[s] * outer[s]), *zip(after.values(), adjoints.values())]
            outputs, seeds = zip(*(pair for pair in flowing if pair[0].requires_grad))
            parts = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True, materialize_grads=True)
            for sum_, part in zip(total, parts):
                sum_ += part
            if s > 0:
                adjoint, *rest = parts[len(parameters) :]
                adjoints = dict(zip(adjoints, rest))
        return Window(tuple(total), table.detach().flatten(1).mean(1))

    def _step(self, theta: Tensor, state: State, gradient: Tensor, t: int) -> tuple[Tensor, State]:
        phi, after = self.optimizer.differentiable_step(gradient, state, theta, t)
        return theta - self.lr * phi, after
