"""The interface of networks to meta-training: they move optimizees, and differentiate updates by their parameters.

:class:`~sol_learner.networks.SymbolicNetwork` (EQL) and :class:`~sol_learner.networks.LSTMNetwork` implement it.
Estimators and the meta-trainer use only this interface.

Shapes: optimizees have parameters theta [..., P]. Gradients and phi have the same shape; a state may have more
dimensions, but its last is P too, because coordinates never mix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import sympy
import torch
from torch import Tensor, nn

from sol_symbols import Operator

__all__ = ["KERNELS", "EQLLayers", "NetworkRunner", "State", "UpdateNetwork"]

State = dict[str, Tensor]
"""States of all coordinates by name."""

KERNELS = ("eager", "compiled")
"""Ways to compute phi in the inner loop."""


class EQLLayers(Protocol):
    """What kernels read of an EQL network."""

    features: list[sympy.Expr]
    """Inputs of the first layer."""

    operators: list[list[Operator]]
    """Units of each hidden layer."""

    functions: list[list[Callable[..., Any]]]
    """The units' operators on tensors."""

    def weights(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The weights in effect, of each hidden layer and of the read-out."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that meta-gradients differentiate by."""


class NetworkRunner(ABC):
    """A network that runs as the optimizer of optimizees (an :class:`~sol_learner.inner.episodes.Optimizer`)."""

    @property
    def kernel(self) -> str:
        """The kernel in use, a key of :data:`~sol_learner.networks.base.KERNELS`."""
        return "eager"

    @abstractmethod
    def begin(self, theta: Tensor, horizon: int) -> State:
        """States before the first step of an episode whose decays span ``horizon`` steps."""

    @abstractmethod
    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """phi and the new state, without a graph; the old state may be overwritten."""

    @abstractmethod
    def differentiable_step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """The same, differentiable in the network's parameters, in gradients, states and parameters of optimizees."""

    @abstractmethod
    def vjp(
        self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int, cotangents: Tensor
    ) -> tuple[Tensor, ...]:
        """sum_t <cotangent_t, d phi_t/dw> for each parameter w of the network, over several steps of given gradients.

        Args:
            gradients, thetas: Of the steps first, first + 1, ...; U of them, constants.
            state: Before these steps.
            first: Number of the first step.
            cotangents: Factor of each phi, [U, ...].
        """

    def inputs(self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int) -> Tensor | None:
        """The network's inputs [F, ...] at the last of these steps; ``None`` if it has no features."""
        return None


class UpdateNetwork(nn.Module, ABC):
    """phi with parameters w, elementwise over coordinates.

    Attributes:
        gates: Parameters of hard-concrete gates; empty for a network without them, which need not override
            the gate methods below.
    """

    gates: nn.ParameterList

    @abstractmethod
    def runner(self, kernel: str = "eager") -> NetworkRunner:
        """The network as an optimizer; ``kernel`` is a key of :data:`~sol_learner.networks.base.KERNELS`."""

    def sample_gates(self, generator: torch.Generator) -> None:
        """Draw new random gates, used until the next call or :meth:`use_mean_gates`."""

    def use_mean_gates(self) -> None:
        """Use the gates' deterministic values."""

    def share_gates(self, other: UpdateNetwork) -> None:
        """Use the random gates that ``other`` has drawn."""

    def open_gates(self) -> Tensor:
        """Expected share of gates that are not exactly 0, a scalar; 1 without gates."""
        return next(self.parameters()).new_ones(())

    def extremes(self, features: Tensor) -> dict[str, float | str]:
        """The largest of the features [F, ...]: ``feature`` and its ``size``, and ``update``, the largest |phi|."""
        return {}
