r"""Persistent evolution strategies: meta-gradients over the whole horizon from losses alone.

N pairs of networks with parameters w + e_i and w - e_i train separate optimizees on the same batches. The
perturbations e_i ~ Normal(0, sigma^2) are new in each window, the optimizees continue through the episode, and each
pair remembers the sum xi_i of its perturbations so far:

    dL/dw ~ 1/(2 N sigma^2) sum_i xi_i (L_i+ - L_i-).

The sum over an episode's windows is unbiased for the gradient of the (smoothed) loss of the whole episode: what a
window changed in all later windows is counted there. Source: Vicol, Metz, Sohl-Dickstein, ICML 2021, algorithm 2.
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor

from sol_learner.estimators.base import Estimator, Window
from sol_learner.inner.optimizees import Optimizees
from sol_learner.networks.base import State, UpdateNetwork

__all__ = ["PersistentEvolution"]


@final
class PersistentEvolution(Estimator):
    """The estimator above; see :class:`~sol_learner.estimators.Estimator` for the other arguments.

    Args:
        particles: Pairs of perturbed networks, N.
        sigma: Standard deviation of the perturbations.
    """

    settings = MappingProxyType({"particles": "particles", "sigma": "pes_sigma"})

    @property
    def num_replicas(self) -> int:
        """Optimizees per episode: two for each pair."""
        return self.replicas_with(particles=self.particles)

    @classmethod
    def replicas_with(cls, *, particles: int = 8, **own: Any) -> int:
        """See :meth:`Estimator.replicas_with`."""
        return 2 * particles

    def __init__(
        self,
        network: UpdateNetwork,
        generator: torch.Generator,
        *,
        particles: int = 8,
        sigma: float = 0.01,
        kernel: str = "eager",
        **options: Any,
    ) -> None:
        super().__init__(network, generator, kernel=kernel, **options)
        self.particles, self.sigma = particles, sigma
        self._networks = [copy.deepcopy(network).requires_grad_(False) for _ in range(self.num_replicas)]
        shared = next(network.parameters()).device.type == "cpu"  # PyTorch's compiler would compile each of them
        self._optimizers = [perturbed.runner(kernel if shared else "eager") for perturbed in self._networks]

    def begin(self, optimizees: Optimizees, lr: float, horizon: int) -> None:
        """Start an episode; the memory of perturbations is cleared."""
        self._sums = [torch.zeros(self.particles, *p.shape).to(p) for p in self.network.parameters()]
        super().begin(optimizees, lr, horizon)
        for optimizer in self._optimizers:
            optimizer.begin(optimizees.theta, horizon)

    def _update(self) -> tuple[Tensor, State]:
        """phi and the new states of every particle by its own network."""
        theta = self.optimizees.theta
        phi, states = torch.empty_like(theta), {name: torch.empty_like(value) for name, value in self.state.items()}
        for c, optimizer in enumerate(self._optimizers):
            own = {name: value[c] for name, value in self.state.items()}
            phi[c], new = optimizer.step(self.gradient[c], own, theta[c], self.t)
            for name, value in new.items():
                states[name][c] = value
        return phi, states

    @torch.no_grad()
    def _perturb(self) -> None:
        """Draw new perturbations, remember them, and load the perturbed networks."""
        for index, (parameter, sums) in enumerate(zip(self.network.parameters(), self._sums)):
            noise = self.sigma * torch.randn(sums.shape, generator=self.generator).to(sums)
            sums += noise
            for i in range(self.particles):
                for network, sign in ((self._networks[2 * i], 1), (self._networks[2 * i + 1], -1)):
                    list(network.parameters())[index].copy_(parameter + sign * noise[i])
        for network in self._networks:
            network.share_gates(self.network)

    def window(self, steps: int) -> Window:
        """Run ``steps`` more inner steps and estimate dL/dw over the episode so far."""
        self._perturb()
        losses: list[Tensor] = []
        for _ in range(steps):
            self._move()
            losses.append(self._outer()[0])
        table = torch.stack(losses)
        meta = self.meta_loss(table).mean(1)  # [2 N]
        difference = (meta[0::2] - meta[1::2]) / (2 * self.particles * self.sigma**2)
        gradient = tuple(torch.tensordot(difference.to(sums), sums, 1) for sums in self._sums)
        return Window(gradient, table.flatten(1).mean(1))
