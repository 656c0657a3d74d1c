r"""First-order meta-gradients in closed form.

Over a window of U inner steps, theta_s = theta_{s-1} - lr phi(x_s; w), with the loss at theta_s taken on the *next*
batch: its gradient g_{s+1} is what the inner loop computes anyway. Taking the gradients as constants of the graph,

    L(w)  = 1/U sum_{s=1..U} l(theta_s),
    dL/dw = -lr/U sum_{r=1..U} < G_r, d phi(x_r; w)/dw >,     G_r = sum_{s=r+1..U+1} g_s,

so no graph is kept over the window: the gradients are kept, features are recomputed at its end, and one
vector-Jacobian product gives dL/dw. The sum runs over coordinates, and K of P coordinates, drawn without replacement
and scaled by P/K, estimate it without bias; time and memory then do not grow with the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sol_learner.network import SymbolicNetwork
from sol_symbols import Evaluator

__all__ = ["FirstOrder"]


class FirstOrder:
    """Collects a window's gradients and turns them into a meta-gradient.

    Args:
        network: phi.
        features: Evaluator of the network's features.
        values: Hyperparameters of the features.
        lr: Inner learning rate.
        unroll: U.
        coordinates: K; all of them where it is P or more.
        generator: Draws the coordinates.
    """

    def __init__(
        self,
        network: SymbolicNetwork,
        features: Evaluator,
        values: dict[str, float],
        lr: float,
        unroll: int,
        coordinates: int,
        generator: torch.Generator,
    ) -> None:
        self.network, self.features, self.values = network, features, values
        self.lr, self.unroll, self.coordinates, self.generator = lr, unroll, coordinates, generator
        self._gradients: list[Tensor] = []

    def begin(self, state: dict[str, Tensor], theta: Tensor, t: int) -> None:
        """Start a window before inner step ``t``, from ``state`` and parameters ``theta`` of shape [..., P]."""
        size = theta.shape[-1]
        count = min(self.coordinates, size)
        self._scale = size / count
        chosen = None if count == size else torch.randperm(size, generator=self.generator)[:count].sort().values
        self._chosen = chosen if chosen is None else chosen.to(theta.device)
        self._state = {name: self._pick(value) for name, value in state.items()}
        self._theta, self._first = [self._pick(theta)], t
        self._gradients = []

    def _pick(self, value: Tensor) -> Tensor:
        return value if self._chosen is None else value.index_select(-1, self._chosen)

    def observe(self, gradient: Tensor, theta: Tensor) -> bool:
        """Take note of the gradient at ``theta``; true when the window holds the U + 1 gradients of a whole one."""
        self._gradients.append(self._pick(gradient))
        if len(self._gradients) > 1:
            self._theta.append(self._pick(theta))
        return self.steps == self.unroll

    @property
    def steps(self) -> int:
        """Inner steps that the window holds; fewer than U where an episode ends within it."""
        return len(self._gradients) - 1

    def meta_gradient(self) -> tuple[Tensor, ...]:
        """dL/dw for each parameter of the network, the mean over optimizees; needs one step or more in the window."""
        state, inputs = self._state, []
        for offset, gradient in enumerate(self._gradients[:-1]):
            outputs, state = self.features.step(gradient, state, self._theta[offset], self._first + offset, self.values)
            inputs.append(torch.stack(outputs))
        later = torch.stack(self._gradients[1:]).flip(0).cumsum(0).flip(0)  # G_r, r = 1..U
        phi = self.network(torch.stack(inputs, 1))
        optimizees = later[0].numel() / later.shape[-1]
        weight = -self.lr * self._scale / (self.steps * optimizees)
        return torch.autograd.grad((later * phi).sum() * weight, list(self.network.parameters()))
