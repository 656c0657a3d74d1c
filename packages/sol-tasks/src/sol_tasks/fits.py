r"""Fits: a network becomes one function. Small, smooth, trained from scratch for every problem, and far from converged.

**Pictures.** A SIREN maps a pixel's position p in [-1, 1]^2 to its colour in [-1, 1]. It has a sine in place of every
activation, sin(30 (W h + b)). Every episode is a separate problem, its picture; ``PictureFit.pool`` returns the
same task over the pictures of another split. Source: Sitzmann et al., "Implicit neural representations with periodic
activation functions", NeurIPS 2020.

**Burgers' equation.** A network u(t, x) solves, without data,

    u_t + u u_x = nu u_xx,   u(0, x) = -sin(pi x),   u(t, -1) = u(t, 1) = 0,   t in [0, 1], x in [-1, 1], nu = 0.01/pi,

by the mean square of the equation's residual at random points, of the start's and of the boundary's. Source: Raissi,
Perdikaris and Karniadakis, "Physics-informed neural networks", Journal of Computational Physics, 2019.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy
import torch
from torch import Tensor, nn

from sol_learner.task import SPLITS, build_seeded
from sol_symbols import SolError
from sol_tasks.cifar10 import load_cifar10

__all__ = ["Burgers", "PictureFit", "burgers", "burgers_solution", "siren", "synthetic_pictures"]

_FREQUENCY = 30.0
_VISCOSITY = 0.01 / math.pi


class Siren(nn.Module):
    """A network of sines from positions [N, 2] to colours [N, C], and the ``picture``, [N, C], that it is to fit."""

    picture: Tensor

    def __init__(self, picture: Tensor, width: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [2, *[width] * layers, picture.shape[1]]
        self.layers = nn.ModuleList(nn.Linear(*pair, device="meta") for pair in itertools.pairwise(sizes))
        self.layers.to_empty(device=picture.device)
        self.register_buffer("picture", picture)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                inputs = sizes[number // 2]
                bound = 1 / inputs if number < 2 else math.sqrt(6 / inputs) / _FREQUENCY
                parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))

    def forward(self, positions: Tensor) -> Tensor:
        """Colours, [N, C]."""
        *hidden, last = self.layers
        for layer in hidden:
            positions = torch.sin(_FREQUENCY * layer(positions))
        return cast(Tensor, last(positions))


class PictureFit:
    """Fit a SIREN to a picture; every episode has its own. Every step uses all pixels.

    Args:
        name: Name of the task.
        pictures: Pictures of ``train``, ``valid`` and ``test``, [N, C, height, width], uint8 or in [0, 1].
        horizon: Inner steps of an episode, T.
        width: Units of a hidden layer.
        layers: Hidden layers.
        device: Where models and pictures live.

    Raises:
        SolError: A split is missing or empty, or its pictures have another shape.
    """

    def __init__(
        self,
        name: str,
        pictures: Mapping[str, Tensor],
        horizon: int = 200,
        width: int = 32,
        layers: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        for split in SPLITS:
            shape = tuple(pictures[split].shape) if split in pictures else None
            if shape is None or len(shape) != 4 or not all(shape):
                raise SolError(f"pictures of {split!r} must have the shape [N, C, height, width], got {shape}")
        self.name, self.horizon, self._split = name, horizon, "train"
        self._width, self._layers, self._device = width, layers, device
        self._pictures = dict(pictures)

    def pool(self, split: str) -> PictureFit:
        """The same task over the pictures of another split."""
        part = copy.copy(self)
        part._split = split
        return part

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh network for a random picture of the split."""
        pictures = self._pictures[self._split]
        picture = pictures[int(torch.randint(len(pictures), (), generator=generator))]
        picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture
        return Siren((2 * picture - 1).flatten(1).T.contiguous().to(self._device), self._width, self._layers, generator)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[()]]:
        """Empty batches: the picture belongs to the model."""
        return itertools.repeat(())

    def loss(self, model: nn.Module, batch: tuple[()]) -> Tensor:
        """Mean square of the colours' errors, in units of half the range of a colour."""
        height, width = self._pictures[self._split].shape[2:]
        target = cast(Siren, model).picture
        axes = (torch.linspace(-1, 1, size, device=target.device) for size in (height, width))
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 2)
        return nn.functional.mse_loss(model(positions), target)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss``, and ``psnr``, 10 log10(4 / loss) in dB, a signal-to-noise ratio; the same for all splits."""
        loss = float(self.loss(model, ()))
        return {"loss": loss, "psnr": 10 * math.log10(4 / loss) if loss > 0 else math.inf}


def synthetic_pictures(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random pictures, [``count``, 3, ``size``, ``size``] in [0, 1]: waves, and four discs with sharp edges."""
    axis = torch.linspace(-1, 1, size)
    y, x = axis.view(-1, 1), axis.view(1, -1)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, 1, 1, generator=generator) - 1

    picture = 0.5 + 0.2 * torch.sin(4 * (draw(3) * x + draw(3) * y) + math.pi * draw(3))
    for _ in range(4):
        inside = (x - draw(1)).square() + (y - draw(1)).square() < (0.35 + 0.25 * draw(1)).square()
        picture = torch.where(inside, 0.5 + 0.5 * draw(3), picture)
    return picture


def siren(data: str | Path | None = None, device: torch.device | str = "cpu") -> PictureFit:
    """A SIREN with 2 x 32 units for a picture of 32 x 32 pixels, T = 200: CIFAR-10's, or synthetic without ``data``.

    Raises:
        SolError: ``data`` has no CIFAR-10.
    """
    if data is not None:
        return PictureFit("siren", {split: images for split, (images, _) in load_cifar10(data).items()}, device=device)
    generator = torch.Generator().manual_seed(0)
    pictures = {split: synthetic_pictures(500, 32, generator) for split in SPLITS}
    return PictureFit("siren", pictures, device=device)


def burgers_solution(t: Tensor, x: Tensor) -> Tensor:
    """u(t, x) for t > 0, by the Cole-Hopf transformation; float64.

    With f(y) = exp(-cos(pi y) / (2 pi nu)) and z ~ N(0, 2 nu t), u = -E[sin(pi (x - z)) f(x - z)] / E[f(x - z)]; the
    means are Gauss-Hermite quadratures. Source: Basdevant et al., Computers and Fluids, 1986.
    """
    nodes, weights = (torch.from_numpy(part) for part in numpy.polynomial.hermite.hermgauss(100))
    y = math.pi * (x.double()[..., None] - nodes * (4 * _VISCOSITY * t.double()[..., None]).sqrt())
    mass = weights * torch.exp((-torch.cos(y) - 1) / (2 * math.pi * _VISCOSITY))
    return -(torch.sin(y) * mass).sum(-1) / mass.sum(-1)


class Burgers:
    """Solve Burgers' equation with a tanh network; each split has its own points.

    Args:
        horizon: Inner steps of an episode, T.
        width: Units of a hidden layer.
        layers: Hidden layers.
        points: Random points of a step, inside; a quarter as many for the start, and for the boundary.
        device: Where models and points live.
    """

    name = "burgers"

    def __init__(
        self,
        horizon: int = 200,
        width: int = 20,
        layers: int = 3,
        points: int = 128,
        device: torch.device | str = "cpu",
    ) -> None:
        self.horizon, self._width, self._layers, self._points, self._device = horizon, width, layers, points, device
        self._side = -(-points // 4)
        self._fixed = {split: next(self.batches(split, torch.Generator().manual_seed(1))) for split in SPLITS}
        t, x = torch.meshgrid(torch.linspace(0.04, 1, 25), torch.linspace(-1, 1, 65), indexing="ij")
        self._exact = tuple(tensor.to(device) for tensor in (t, x, burgers_solution(t, x).float()))

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh network from (t, x) to u."""
        sizes = [2, *[self._width] * self._layers, 1]

        def network() -> nn.Module:
            pairs = ((nn.Linear(*pair), nn.Tanh()) for pair in itertools.pairwise(sizes))
            return nn.Sequential(*list(itertools.chain(*pairs))[:-1])

        return build_seeded(network, generator).to(self._device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless t and x, [points + points/4 + points/4] each: inside, at the start, at the boundary."""
        seeds = torch.randint(2**62, (len(SPLITS),), generator=generator)
        stream = torch.Generator().manual_seed(int(seeds[SPLITS.index(split)]))
        count, side = self._points, self._side
        while True:
            t, x = torch.rand(2, count + 2 * side, generator=stream)
            x = 2 * x - 1
            t[count : count + side] = 0
            x[count + side :] = x[count + side :].sign()
            yield t.to(self._device), x.to(self._device)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean squares of the residuals: of the equation + of the start + of the boundary."""
        t, x = batch
        count, side = self._points, self._side
        u = _solution(model, t[count:], x[count:])
        start = u[:side] + torch.sin(math.pi * x[count : count + side])
        equation = _residual(model, t[:count], x[:count])
        return equation.square().mean() + start.square().mean() + u[side:].square().mean()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss`` at fixed points of the split, and ``error``, |u - exact| / |exact| on a grid (Euclidean norms)."""
        t, x, exact = self._exact
        with torch.no_grad():
            error = (_solution(model, t, x) - exact).norm() / exact.norm()
        return {"loss": float(self.loss(model, self._fixed[split]).detach()), "error": float(error)}


def _solution(model: nn.Module, t: Tensor, x: Tensor) -> Tensor:
    return cast(Tensor, model(torch.stack([t, x], -1)).squeeze(-1))


def _residual(model: nn.Module, t: Tensor, x: Tensor) -> Tensor:
    """u_t + u u_x - nu u_xx, [N]; a point's value depends on that point alone, so gradients of sums are derivatives."""

    def total(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        u = _solution(model, t, x)
        return u.sum(), u

    def slopes(t: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        (u_t, u_x), u = torch.func.grad(total, argnums=(0, 1), has_aux=True)(t, x)
        return u_x.sum(), (u, u_t, u_x)

    u_xx, (u, u_t, u_x) = torch.func.grad(slopes, argnums=1, has_aux=True)(t, x)
    return cast(Tensor, u_t + u * u_x - _VISCOSITY * u_xx)


def burgers(data: str | Path | None = None, device: torch.device | str = "cpu") -> Burgers:
    """A physics-informed network with 3 x 20 tanh units for Burgers' equation, T = 200."""
    return Burgers(device=device)
