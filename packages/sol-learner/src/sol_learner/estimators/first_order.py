r"""First-order meta-gradients in closed form.

With all gradients taken as constants of the graph, theta_s depends on w only through the sum of updates, so

    dL/dw = -lr sum_{r=1..U} < G_r, d phi_r/dw >,     G_r = sum_{s=r..U} (dF/dl_s) grad l(theta_s):

no graph of the optimizees is stored. Gradients are stored, phi is recomputed at the window's end, and a
vector-Jacobian product, in chunks, gives dL/dw. (For the EQL network phi_r = phi(x_r; w) with
features x_r that are constants. An LSTM's phi_r also depends on w through its states since the window's first step, so
it is back-propagated through them.)
Coordinates do not mix, so the sum runs over them, and K of P coordinates, drawn with replacement and scaled by P/K,
estimate it without bias; time and memory then do not grow with the model.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor

from sol_learner.estimators.base import Estimator, Window
from sol_learner.networks.base import UpdateNetwork

__all__ = ["FirstOrder"]


@final
class FirstOrder(Estimator):
    """The closed form above; see :class:`~sol_learner.estimators.Estimator` for the other arguments.

    Args:
        coordinates: Coordinates to sample, K.
    """

    settings = MappingProxyType({"coordinates": "coordinates"})

    def __init__(
        self, network: UpdateNetwork, generator: torch.Generator, *, coordinates: int = 2048, **options: Any
    ) -> None:
        super().__init__(network, generator, **options)
        self.coordinates = coordinates

    def window(self, steps: int) -> Window:
        """Run ``steps`` more inner steps and estimate dL/dw over them."""
        size = self.optimizees.theta.shape[-1]
        count = min(self.coordinates, size)
        chosen = None
        if count < size:
            chosen = torch.randint(size, (count,), generator=self.generator).sort().values
            chosen = chosen.to(self.optimizees.theta.device)

        def pick(value: Tensor) -> Tensor:
            return value if chosen is None else value.index_select(-1, chosen)

        first, state = self.t, {name: pick(value) for name, value in self.state.items()}
        if chosen is None:  # steps may overwrite states
            state = {name: value.clone() for name, value in state.items()}
        gradients, thetas, losses, outer, ends = [], [], [], [], []
        for _ in range(steps):
            gradients.append(pick(self.gradient))
            ends.append(self.gradient.aminmax())
            thetas.append(pick(self.optimizees.theta))
            self._move()
            loss, gradient = self._outer()
            losses.append(loss)
            outer.append(pick(gradient))

        table = torch.stack(losses).requires_grad_()
        (weights,) = torch.autograd.grad(self.meta_loss(table).sum(), table)
        later = (weights.unsqueeze(-1) * torch.stack(outer)).flip(0).cumsum(0).flip(0)  # G_r, r = 1..U
        scale = -self.lr * size / count / weights[0].numel()
        meta_gradient = self.optimizer.vjp(gradients, thetas, state, first, scale * later)

        def inputs(offset: int) -> Tensor | None:
            return self.optimizer.inputs(gradients[: offset + 1], thetas[: offset + 1], state, first)

        def largest(offset: int) -> Tensor:
            return torch.stack(ends[offset]).abs().amax()

        return Window(meta_gradient, table.detach().flatten(1).mean(1), inputs, largest)
