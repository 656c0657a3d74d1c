r"""Many small fits of functions, from which a rule is learned that holds for others, too.

An episode draws its fit: a SIREN on a picture, a perceptron on a smooth function, with or without random Fourier
features of its inputs, or on a linear differential equation; further its sizes, activation, points and horizon. Most
fits see all their points at every step, so that gradients have no noise, unlike those of
:mod:`sol_tasks.small_trainings`. Pictures and functions are synthetic.

The equations are, for u with random coefficients on [-1, 1],

    a u'' + b u' + c u = f,  u(-1), u(1) given;      u_t = k u_xx - v u_x,  u(0, x), u(t, -1), u(t, 1) given.

Source of the method: Raissi, Perdikaris and Karniadakis, "Physics-informed neural networks", Journal of Computational
Physics, 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from sol_learner.mixture import augmented
from sol_learner.task import SPLITS, Task, build_seeded
from sol_tasks.fits import PictureFit, synthetic_pictures
from sol_tasks.small_trainings import Draw, Fit, perceptron

__all__ = ["SmallFits", "small_fits"]

KINDS = ("picture", "picture", "function", "features", "line", "plane")
"""Kinds of fits; one that is named twice is drawn twice as often."""


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


ACTIVATIONS = (nn.Tanh, nn.GELU, nn.SiLU, _Sine)


class _Features(nn.Module):
    """sin and cos of random projections of the inputs, and a perceptron on them."""

    directions: Tensor

    def __init__(self, directions: Tensor, rest: nn.Module) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.rest = rest

    def forward(self, x: Tensor) -> Tensor:
        angles = x @ self.directions
        return self.rest(torch.cat([angles.sin(), angles.cos()], -1))


class _Equation:
    """Solve a linear differential equation by its residual at points.

    Args:
        name: Name of the task.
        model: Makes the network, from points [N, D] to u [N, 1].
        residual: Residual at points, [N], from u as a function of one point.
        given: Points of the boundary, [M, D], and u there, [M].
        points: Draws points inside, [N, D], with a generator.
        horizon: Inner steps of an episode.
        fixed: Whether all steps have the same points.
    """

    def __init__(
        self,
        name: str,
        model: Callable[[], nn.Module],
        residual: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
        given: tuple[Tensor, Tensor],
        points: Callable[[torch.Generator], Tensor],
        horizon: int,
        fixed: bool,
    ) -> None:
        self.name, self.horizon, self._model, self._residual = name, horizon, model, residual
        self._given, self._points, self._fixed = given, points, fixed

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh network with PyTorch's default initialisation."""
        return build_seeded(self._model, generator)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Tensor]:
        """Endless points; those of ``valid`` and ``test`` are others than those of ``train``."""
        seed = int(torch.randint(2**62, (len(SPLITS),), generator=generator)[SPLITS.index(split)])
        stream = torch.Generator().manual_seed(seed)
        points = self._points(stream)
        while True:
            yield points if self._fixed else self._points(stream)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean square of the residual + that of the boundary's."""
        where, values = self._given
        inside = torch.vmap(lambda point: self._residual(lambda x: model(x[None])[0, 0], point))(batch)
        return inside.square().mean() + (model(where).squeeze(-1) - values).square().mean()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss`` at fixed points of the split."""
        points = next(self.batches(split, torch.Generator().manual_seed(1)))
        return {"loss": float(self.loss(model, points).detach())}


def slopes(u: Callable[[Tensor], Tensor], point: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and second derivative of u along an axis, at a point [D]."""
    first = torch.func.grad(u)
    along = torch.zeros_like(point)
    along[axis] = 1.0
    gradient, change = cast(tuple[Tensor, Tensor], torch.func.jvp(first, (point,), (along,)))
    return gradient[axis], change[axis]


class SmallFits:
    """The family; see the module.

    Args:
        longest: Largest horizon.
    """

    name = "small-fits"

    def __init__(self, longest: int = 1000) -> None:
        self._longest = longest

    def draw(self, generator: torch.Generator) -> Task:
        """The fit of an episode."""
        draw = Draw(generator)
        task: Task = getattr(self, f"_on_{draw.one(*KINDS)}")(draw)
        if not draw.chance(0.2):
            return task
        spread = draw.uniform(0.5, 2.0)
        return augmented(task, weight_scale=spread, per_tensor=draw.chance(0.7), generator=generator)

    def _steps(self, draw: Draw) -> int:
        """The horizon; long ones are rare."""
        long = self._longest > 300 and draw.chance(0.2)
        return draw.between(300, self._longest) if long else draw.between(50, 300)

    def _network(self, draw: Draw, inputs: int, outputs: int, widest: int = 48) -> Callable[[], nn.Module]:
        hidden = [draw.between(10, widest) for _ in range(int(draw.uniform(1, 4)))]
        return perceptron([inputs, *hidden, outputs], draw.one(*ACTIVATIONS))

    def _on_picture(self, draw: Draw) -> Task:
        size = draw.between(12, 40)
        pictures = synthetic_pictures(3, size, draw.generator)[:, : draw.one(1, 3)]
        splits = {split: pictures[i : i + 1] for i, split in enumerate(SPLITS)}
        return PictureFit("picture", splits, self._steps(draw), draw.between(12, 40), draw.one(1, 2, 2, 3))

    def _smooth(self, draw: Draw, x: Tensor, outputs: int) -> Tensor:
        """Sums of sines of the inputs, [N, outputs], of size about 1."""
        waves = draw.between(2, 8)
        angles = draw.uniform(1, 6) * x @ draw.normal(x.shape[1], waves) / math.sqrt(x.shape[1])
        values = torch.sin(angles + math.pi * draw.normal(waves)) @ draw.normal(waves, outputs)
        return math.exp(draw.uniform(-1, 1)) * values / values.std()

    def _points(self, draw: Draw, inputs: int, outputs: int) -> dict[str, tuple[Tensor, Tensor]]:
        rows = draw.between(48, 512)
        x = 2 * torch.rand(rows + 256, inputs, generator=draw.generator) - 1
        y = self._smooth(draw, x, outputs)
        parts = {"train": slice(0, rows), "valid": slice(rows, rows + 128), "test": slice(rows + 128, None)}
        return {split: (x[part], y[part]) for split, part in parts.items()}

    def _on_function(self, draw: Draw) -> Task:
        inputs, outputs = draw.one(1, 2, 3, 4), draw.one(1, 1, 2)
        splits, model = self._points(draw, inputs, outputs), self._network(draw, inputs, outputs)
        rows = len(splits["train"][1])
        return Fit("function", model, splits, self._steps(draw), rows if draw.chance(0.8) else max(8, rows // 4))

    def _on_features(self, draw: Draw) -> Task:
        inputs, outputs, waves = draw.one(1, 2, 3), draw.one(1, 3), draw.between(6, 32)
        splits = self._points(draw, inputs, outputs)
        directions = math.exp(draw.uniform(0, 2)) * draw.normal(inputs, waves)
        rest = perceptron([2 * waves, draw.between(10, 48), outputs], draw.one(nn.ReLU, *ACTIVATIONS))
        rows = len(splits["train"][1])
        return Fit("features", lambda: _Features(directions, rest()), splits, self._steps(draw), rows)

    def _on_line(self, draw: Draw) -> Task:
        a, b, c = draw.uniform(0.02, 1), draw.uniform(-1, 1), draw.uniform(-2, 2)
        frequency, phase, size = draw.uniform(0, 6), draw.uniform(0, 6), draw.uniform(0, 3)
        count, ends = draw.between(24, 96), torch.tensor([draw.uniform(-1, 1), draw.uniform(-1, 1)])

        def residual(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            slope, bend = slopes(u, x, 0)
            return a * bend + b * slope + c * u(x) - size * torch.sin(frequency * x[0] + phase)

        def points(generator: torch.Generator) -> Tensor:
            return 2 * torch.rand(count, 1, generator=generator) - 1

        given = torch.tensor([[-1.0], [1.0]]), ends
        network = self._network(draw, 1, 1, 32)
        return _Equation("line", network, residual, given, points, self._steps(draw), draw.chance(0.5))

    def _on_plane(self, draw: Draw) -> Task:
        k, v = math.exp(draw.uniform(-4, 0)), draw.uniform(-1, 1)
        count, side = draw.between(48, 160), draw.between(12, 40)
        axis = torch.linspace(-1, 1, side)
        waves = self._smooth(draw, axis[:, None], 1)[:, 0]
        start = (1 - axis.square()) * waves
        edges = torch.rand(side, generator=draw.generator)
        where = [torch.stack([torch.zeros(side), axis], -1)]
        where += [torch.stack([edges, torch.full((side,), end)], -1) for end in (-1.0, 1.0)]
        given = torch.cat(where), torch.cat([start, torch.zeros(2 * side)])

        def residual(u: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
            slope, bend = slopes(u, point, 1)
            return torch.func.grad(u)(point)[0] - k * bend + v * slope

        def points(generator: torch.Generator) -> Tensor:
            t, x = torch.rand(2, count, generator=generator)
            return torch.stack([t, 2 * x - 1], -1)

        network = self._network(draw, 2, 1, 32)
        return _Equation("plane", network, residual, given, points, self._steps(draw), draw.chance(0.5))


def small_fits(longest: int = 1000) -> SmallFits:
    """The family; it needs no data."""
    return SmallFits(longest)
