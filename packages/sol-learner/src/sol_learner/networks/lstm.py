r"""L2LGD2: a coordinate-wise LSTM as the update rule.

Every coordinate has its own hidden and cell states, h and c in R^H for each layer; all coordinates and optimizees
share the weights. With the gradient in the form x = (max(log|g| / p, -1), clip(e^p g, -1, 1)), p = 10,

    (i, f, o, u) = W [x; h] + b,    c <- sigmoid(f) c + sigmoid(i) tanh(u),    h <- sigmoid(o) tanh(c),

where the next layer uses h as x, and phi = a . h + a_0 with h of the last layer. Source: Andrychowicz et al., "Learning
to learn by gradient descent by gradient descent", NeurIPS 2016, sections 2.1 and appendix A (two layers, H = 20).

States are laid out [..., H, P], coordinates last: one matrix product serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sol_learner.networks.base import NetworkRunner, State, UpdateNetwork

__all__ = ["LSTMNetwork", "LSTMRunner"]

_P = 10.0
_CHUNK = 1 << 11  # coordinates evaluated at once: temporaries, 200 numbers each, then stay within the cache


def preprocess(gradient: Tensor) -> Tensor:
    """Logarithm and sign of ``gradient``, [..., P], as inputs [..., 2, P]; both are continuous at |g| = e^-p."""
    logarithm = gradient.abs().clamp(min=math.exp(-_P)).log() / _P
    return torch.stack([logarithm, (gradient * math.exp(_P)).clamp(-1, 1)], -2)


class LSTMNetwork(UpdateNetwork):
    """The network above.

    Args:
        units: H.
        layers: Number of layers.
        generator: For the initial weights, uniform in +-1/sqrt(H); forget gates begin at a bias of 1.
    """

    def __init__(self, units: int = 20, layers: int = 2, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.units, self.layers = units, layers

        def uniform(*shape: int) -> Tensor:
            return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(units)

        inputs = [2, *[units] * (layers - 1)]
        self.weights = nn.ParameterList([uniform(4 * units, count + units) for count in inputs])
        self.biases = nn.ParameterList([uniform(4 * units, 1) for _ in inputs])
        with torch.no_grad():
            for bias in self.biases:
                bias[units : 2 * units] = 1
        self.readout = nn.Parameter(uniform(1, units))
        self.offset = nn.Parameter(torch.zeros(()))
        self.gates = nn.ParameterList()

    def runner(self, kernel: str = "eager") -> LSTMRunner:
        """The network as the optimizer of optimizees; there is one kernel."""
        return LSTMRunner(self)

    def zero_state(self, theta: Tensor) -> State:
        """States before the first step for parameters [..., P]."""
        shape = (*theta.shape[:-1], self.units, theta.shape[-1])
        names = (f"{kind}{layer}" for layer in range(self.layers) for kind in "hc")
        return {name: torch.zeros(shape, dtype=self.offset.dtype, device=theta.device) for name in names}

    def forward(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """phi [..., P] and the new states, from gradients [..., P]."""
        h, after = preprocess(gradient.to(self.offset.dtype)), State()
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            sums = weight @ torch.cat([h, state[f"h{layer}"]], -2) + bias
            i, f, o = torch.sigmoid(sums[..., : 3 * self.units, :]).chunk(3, -2)
            c = f * state[f"c{layer}"] + i * torch.tanh(sums[..., 3 * self.units :, :])
            h = o * torch.tanh(c)
            after |= {f"h{layer}": h, f"c{layer}": c}
        return ((self.readout @ h).squeeze(-2) + self.offset).to(gradient.dtype), after


@final
class LSTMRunner(NetworkRunner):
    """An LSTM as the optimizer of optimizees; it ignores the parameters and the step number."""

    def __init__(self, network: LSTMNetwork) -> None:
        self.network = network

    def begin(self, theta: Tensor, horizon: int) -> State:
        """See :class:`NetworkRunner`."""
        return self.network.zero_state(theta)

    @torch.no_grad()
    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """See :class:`NetworkRunner`; in chunks of coordinates."""
        rows = gradient.reshape(-1, gradient.shape[-1])
        old = {name: value.reshape(-1, *value.shape[-2:]) for name, value in state.items()}
        phi, new = torch.empty_like(rows), {name: torch.empty_like(value) for name, value in old.items()}
        for row in range(len(rows)):
            for start in range(0, rows.shape[-1], _CHUNK):
                part = slice(start, start + _CHUNK)
                before = {name: value[row, :, part] for name, value in old.items()}
                phi[row, part], after = self.network(rows[row, part], before)
                for name, value in after.items():
                    new[name][row, :, part] = value
        return phi.view_as(gradient), {name: value.view_as(state[name]) for name, value in new.items()}

    def differentiable_step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """See :class:`NetworkRunner`."""
        return self.network(gradient, state)

    def vjp(
        self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int, cotangents: Tensor
    ) -> tuple[Tensor, ...]:
        """See :class:`NetworkRunner`."""
        phi = self.replay(gradients, state)
        return torch.autograd.grad((cotangents * phi).sum(), list(self.network.parameters()))

    def replay(self, gradients: Sequence[Tensor], state: State) -> Tensor:
        """phi [U, ...] at several steps for given gradients; the graph extends back through the states to ``state``."""
        updates = []
        for gradient in gradients:
            phi, state = self.network(gradient, state)
            updates.append(phi)
        return torch.stack(updates)
