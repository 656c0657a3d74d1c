r"""Functions of one vector with a known optimum: fast tasks for tests and teaching.

The optimizee is a vector w with n coordinates. Its gradients are noisy, like those of mini-batches:

    loss(w; b) = f(w) + sigma <b, w - w*>,      b ~ N(0, 1)^n independent at every step.

The mean over b is f(w), with its minimum, 0, at w*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sol_learner.task import SPLITS

__all__ = ["Toy", "quadratic", "rosenbrock"]


class _Point(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start)

    def forward(self) -> Tensor:
        return self.w


class Toy:
    """Minimise a known function.

    Args:
        name: Name of the task.
        function: f, from a vector [n] to a scalar; its minimum is 0.
        optimum: w*, shape [n].
        spread: The start is w* + ``spread`` times a standard normal vector.
        noise: sigma.
        horizon: Inner steps of an episode, T.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        optimum: Tensor,
        spread: float,
        noise: float,
        horizon: int,
    ) -> None:
        self.name, self.horizon = name, horizon
        self.function, self.optimum, self.spread, self.noise = function, optimum, spread, noise

    def build(self, generator: torch.Generator) -> nn.Module:
        """A random start."""
        step = torch.randn(self.optimum.shape, generator=generator)
        return _Point(self.optimum + self.spread * step.to(self.optimum))

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Tensor]:
        """The noise b of each step, [n]; each split has its own stream."""
        seeds = torch.randint(2**62, (len(SPLITS),), generator=generator)
        stream = torch.Generator().manual_seed(int(seeds[SPLITS.index(split)]))
        while True:
            yield torch.randn(self.optimum.shape, generator=stream).to(self.optimum)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """f(w) + sigma <b, w - w*>."""
        w = model()
        return self.function(w) + self.noise * torch.dot(batch, w - self.optimum)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss``, which is f(w) without noise, and ``distance``, |w - w*|; the same for all splits."""
        w = model()
        return {"loss": float(self.function(w)), "distance": float((w - self.optimum).norm())}


def quadratic(
    data: str | Path | None = None, device: torch.device | str = "cpu", size: int = 20, condition: float = 100.0
) -> Toy:
    """A quadratic bowl in a rotated frame: 20 coordinates, condition 100, optimum 1, T = 60.

    f(w) = 1/2 (w - 1)' Q diag(h) Q' (w - 1), with a fixed random rotation Q and h log-spaced from 1/condition to 1.
    """
    rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(1)))
    root = rotation.to(device) * torch.logspace(0, -1, size, base=condition, device=device).sqrt()
    optimum = torch.ones(size, device=device)

    def bowl(w: Tensor) -> Tensor:
        return 0.5 * ((w - optimum) @ root).square().sum()

    return Toy("quadratic", bowl, optimum, spread=1.0, noise=0.03, horizon=60)


def rosenbrock(data: str | Path | None = None, device: torch.device | str = "cpu", size: int = 10) -> Toy:
    """Rosenbrock's curved valley: 10 coordinates, optimum 1, T = 200.

    f(w) = 1/1000 sum_i 100 (w_{i+1} - w_i^2)^2 + (1 - w_i)^2, the usual chained form, scaled to gradients of about 1.
    Source: Rosenbrock, "An automatic method for finding the greatest or least value of a function", 1960.
    """

    def valley(w: Tensor) -> Tensor:
        return (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum() / 1000

    return Toy("rosenbrock", valley, torch.ones(size, device=device), spread=0.3, noise=0.001, horizon=200)
