"""What estimators have in common: an episode of inner steps, cut into windows that give a meta-gradient each.

Inner step t moves the optimizees from theta_{t-1} to theta_t = theta_{t-1} - lr phi(x_t; w), x_t being the features
of the gradients up to g_t = grad l_t(theta_{t-1}). The outer loss at theta_t uses the *next* batch,
l_{t+1}(theta_t), whose gradient the inner loop needs anyway, or on a validation batch. A window of U steps after step
t_0 has the meta-loss L(w) = F(l at theta_{t_0+1}, ..., l at theta_{t_0+U}), theta_{t_0} being held constant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from sol_learner.inner.optimizees import Optimizees
from sol_learner.networks.base import State, UpdateNetwork
from sol_symbols import SolError

__all__ = ["META_LOSSES", "Estimator", "Window"]


def _positive(losses: Tensor) -> Tensor:
    if bool((losses <= 0).any()):
        raise SolError(f"meta_loss='log' needs positive losses (got {losses.min():.3g}); use meta_loss='mean'")
    return losses


META_LOSSES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "mean": lambda losses: losses.mean(0),
        "last": lambda losses: losses[-1],
        "log": lambda losses: _positive(losses).log().mean(0),
    }
)
"""Meta-loss of a window by name: from the outer losses [U, ...] after its steps to one number [...] each."""


@dataclass(frozen=True)
class Window:
    """The result of a window.

    Attributes:
        meta_gradient: dL/dw for each parameter of the network, the mean over optimizees.
        losses: Outer loss after each of its steps, mean over optimizees, [U].
        inputs: Returns the network's inputs on some coordinates at one of its steps, from 0; ``None`` if they are not
            available.
        largest: Returns the largest |g| of all coordinates at one of its steps; ``None`` if inputs cover all of them.
    """

    meta_gradient: tuple[Tensor, ...]
    losses: Tensor
    inputs: Callable[[int], Tensor | None] | None = None
    largest: Callable[[int], Tensor] | None = None


class Estimator(ABC):
    """Runs episodes and estimates meta-gradients.

    Args:
        network: phi, with the parameters w.
        kernel: How phi is computed in the inner loop; see :meth:`~sol_learner.networks.UpdateNetwork.runner`.
        meta_loss: A key of :data:`META_LOSSES`.
        outer_split: Where outer losses are taken: ``"train"``, the next batch of the inner loop, or ``"valid"``, a
            batch of the validation split, at the price of a second gradient a step.
        generator: Source of the estimator's random numbers; on the CPU.

    An estimator may have further arguments; :attr:`settings` names the setting of a learning run for each.

    Raises:
        SolError: Unknown meta-loss or split; later, a loss that is not positive while the meta-loss is log.
    """

    settings: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The estimator's own arguments, each with the field of :class:`~sol_learner.LearnConfig` that sets it."""

    @property
    def num_replicas(self) -> int:
        """Optimizees that each episode needs: replicas with the same start and batches, C."""
        return 1

    @classmethod
    def replicas_with(cls, **own: Any) -> int:
        """:attr:`num_replicas` of an estimator with these arguments."""
        return 1

    def __init__(
        self,
        network: UpdateNetwork,
        generator: torch.Generator,
        *,
        kernel: str = "eager",
        meta_loss: str = "mean",
        outer_split: str = "train",
    ) -> None:
        if meta_loss not in META_LOSSES:
            raise SolError(f"no meta-loss {meta_loss!r}; meta-losses: {', '.join(META_LOSSES)}")
        if outer_split not in ("train", "valid"):
            raise SolError(f"outer_split must be train or valid, got {outer_split!r}")
        self.network, self.generator = network, generator
        self.meta_loss, self.outer_split = META_LOSSES[meta_loss], outer_split
        self.optimizer = network.runner(kernel)

    def begin(self, optimizees: Optimizees, lr: float, horizon: int) -> None:
        """Start an episode of ``horizon`` steps with fresh ``optimizees``, ``num_replicas`` of each."""
        self.optimizees, self.lr, self.horizon, self.t = optimizees, lr, horizon, 1
        self.state: State = self.optimizer.begin(optimizees.theta, horizon)
        self._look()

    def _look(self) -> None:
        """The gradient at the current parameters; it is the next inner step's, and by default the outer one too."""
        self.drawn = self.optimizees.draw()
        self.loss, self.gradient = self.optimizees.losses_and_gradients(self.drawn)

    def _update(self) -> tuple[Tensor, State]:
        """phi and the new states."""
        return self.optimizer.step(self.gradient, self.state, self.optimizees.theta, self.t)

    def _move(self) -> None:
        """Take one inner step and compute the gradient at the new parameters."""
        phi, self.state = self._update()
        self.optimizees.descend(phi, self.lr)
        self.t += 1
        self._look()

    def _outer(self) -> tuple[Tensor, Tensor]:
        """Outer losses [C, S] and their gradients [C, S, P] at the current parameters."""
        if self.outer_split == "train":
            return self.loss, self.gradient
        return self.optimizees.losses_and_gradients(self.optimizees.draw(self.outer_split))

    @abstractmethod
    def window(self, steps: int) -> Window:
        """Run ``steps`` more inner steps and estimate dL/dw over them."""
