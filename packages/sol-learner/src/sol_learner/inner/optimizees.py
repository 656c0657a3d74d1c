"""Optimizees trained in parallel: all their parameters in one tensor, one gradient evaluation for all.

Shapes: C candidates of a rule, S episodes (a seed each), P parameters of one optimizee. Candidates of one episode
share its initial parameters, its batches and its dropout masks (common random numbers), and the batches are not
copied for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sol_learner.inner.side_by_side import (
    LossFunction,
    SideBySide,
    flat,
    one_step,
    require_alike,
    seeded,
    turn,
    vectorizes,
)
from sol_learner.task import (
    Batch,
    Stream,
    Substream,
    Task,
    build_optimizee,
    draw_batches,
    generator_for,
    measured,
    prepared,
    task_for,
    trainable,
)
from sol_symbols import Layout, SolError

__all__ = ["PRECISIONS", "Optimizees"]

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}
"""Autocast type of the forward pass, by name; parameters and rules keep their own type."""


Drawn = tuple[list[Batch], list[int]]
"""A batch of each episode, and the seed of its dropout masks."""


def _aligned(view: Tensor) -> Tensor:
    """A tensor of pairs as one that :func:`torch.view_as_complex` takes; any other as it is."""
    odd = view.storage_offset() % 2 or any(stride % 2 for stride in view.stride()[:-1])
    return view.clone(memory_format=torch.contiguous_format) if view.shape[-1:] == (2,) and odd else view


class Optimizees:
    """C x S optimizees of one task.

    Args:
        task: The task.
        seed: Base seed of the run.
        stream: Which random stream the episodes belong to.
        episodes: Index of each episode in its stream; S of them.
        candidates: C.
        precision: A key of :data:`PRECISIONS`.
        scaling: Random parameter scaling: coordinate j is trained as theta_j / c_j with log c_j uniform in
            [-scaling, scaling], drawn again in every episode. The loss is the same function of other coordinates, which
            keeps a rule from relying on the sizes of this task's gradients. Source: Lv, Jiang, Li, ICML 2017.

    Attributes:
        theta: Parameters, shape [C, S, P], on the device of the models that the task builds; float32, also of models
            in a lower precision, or float64 if a parameter is.
        losses_before: The latest losses that were computed with gradients, [C, S].

    Raises:
        SolError: ``scaling`` is set for a task that projects its parameters.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        stream: Stream,
        episodes: Sequence[int],
        candidates: int = 1,
        precision: str = "float32",
        scaling: float = 0.0,
    ) -> None:
        self.task = task = task_for(task, stream)
        self._seed, self._stream, self._episodes = seed, stream, list(episodes)
        models = [self._fresh(episode) for episode in episodes]
        require_alike(task, models)
        self._trained: WeakKeyDictionary[nn.Module, list[nn.Parameter]] = WeakKeyDictionary()
        parameters = trainable(models[0])
        self._shapes = [p.shape for p in parameters]
        self._sizes = [p.numel() for p in parameters]
        theta = torch.stack([flat(model) for model in models])
        self._project: Callable[[nn.Module], None] | None = getattr(task, "project", None)
        self._scales = self._draw_scales(theta, scaling) if scaling else None
        if self._scales is not None:
            theta = theta / self._scales
        self.theta = theta.expand(candidates, -1, -1).contiguous()
        self._streams: dict[str, list[Iterator[Batch]]] = {}
        self._randomness = [generator_for(seed, stream, episode, Substream.LAYERS) for episode in self._episodes]
        self._autocast = PRECISIONS[precision]
        several = candidates * len(self._episodes) > 1  # one alone is faster without vmap
        self._together = SideBySide(self.task, models, candidates) if several and vectorizes(task) else None
        # Else every optimizee keeps its own module, because modules may have state other than parameters.
        self._models = [] if self._together else [models, *(self._again() for _ in range(candidates - 1))]
        self._functional = False
        self.losses_before: Tensor | None = None

    def _again(self) -> list[nn.Module]:
        return [self._fresh(episode) for episode in self._episodes]

    def _fresh(self, episode: int) -> nn.Module:
        with turn:  # constructors of layers draw random numbers that are overwritten
            return prepared(build_optimizee(self.task, self._seed, self._stream, episode))

    def _draw_scales(self, theta: Tensor, scaling: float) -> Tensor:
        if self._project is not None:
            raise SolError(
                f"{self.task.name} projects its parameters, which random scaling would change; set scaling to 0"
            )
        generators = [generator_for(self._seed, self._stream, episode, Substream.SCALES) for episode in self._episodes]
        draws = torch.stack([torch.rand(theta.shape[1], generator=generator) for generator in generators])
        return torch.exp(scaling * (2 * draws - 1)).to(theta)

    def _casting(self) -> torch.autocast:
        return torch.autocast(self.theta.device.type, self._autocast, enabled=self._autocast is not None)

    def views(self, weights: Tensor) -> list[Tensor]:
        """Parameters of each name, ``[..., *shape]``, of weights ``[..., P]``; no copies."""
        pieces = zip(weights.split(self._sizes, -1), self._shapes)
        return [piece.view(piece.shape[:-1] + shape) for piece, shape in pieces]

    @property
    def layout(self) -> Layout:
        """The shapes of the parameters along the last axis of ``theta``."""
        return Layout(tuple(tuple(shape) for shape in self._shapes))

    def _load(self, model: nn.Module, row: Tensor) -> list[nn.Parameter]:
        """Turn the model's parameters into views of ``row``, [P], or copies where that cannot be."""
        parameters = self._trained.setdefault(model, trainable(model))  # those of the start
        for parameter, view in zip(parameters, self.views(row.detach())):
            parameter.data = _aligned(view).to(parameter.dtype)
        return parameters

    def _weights(self, theta: Tensor) -> Tensor:
        """The models' parameters, which are ``theta`` unless it is scaled."""
        return theta if self._scales is None else theta * self._scales

    def _module(self, candidate: int, episode: int) -> nn.Module:
        """The module of one optimizee with its current parameters loaded."""
        model = self._together.load(episode) if self._together else self._models[candidate][episode]
        row = self._weights(self.theta[candidate : candidate + 1])[0, episode]
        self._load(model, row.clone())  # projections change it in place
        return model

    def draw(self, split: str = "train") -> Drawn:
        """The inputs of the next loss: a batch of each episode, and the seed of its dropout masks."""
        if split not in self._streams:
            self._streams[split] = [
                draw_batches(self.task, split, self._seed, self._stream, episode) for episode in self._episodes
            ]
        try:
            batches = [next(stream) for stream in self._streams[split]]
        except StopIteration:
            raise SolError(f"batches({split!r}) of {self.task.name} ended; the stream must be endless") from None
        return batches, [int(torch.randint(2**62, (), generator=generator)) for generator in self._randomness]

    def losses(self, theta: Tensor, drawn: Drawn) -> Tensor:
        """Losses [C, S] at ``theta`` [C, S, P] on what :meth:`draw` gave; differentiable in ``theta``."""
        batches, seeds = drawn
        weights = self._weights(theta)
        if self._together is not None:
            views = [_aligned(view) for view in self.views(weights)]
            losses = self._together.losses(views, batches, seeds[0], self._casting())
            return losses.to(theta.dtype)
        if not self._functional:
            self._require_functional(weights[0, 0].detach(), batches[0], seeds[0])
        rows = [
            [
                self._alone(m, [_aligned(view) for view in self.views(w)], *drawn)
                for m, w, *drawn in zip(models, row, batches, seeds)
            ]
            for models, row in zip(self._models, weights)
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def _require_functional(self, row: Tensor, batch: Batch, seed: int) -> None:
        """Check that the loss of a model depends on the parameters that it is called with."""
        model = self._fresh(self._episodes[0])
        self._load(model, row.clone())
        step = one_step(self.task, model, batch, seed)
        views = [_aligned(view).requires_grad_() for view in self.views(row.clone())]
        loss = self._alone(model, views, batch, seed)
        gradients = torch.autograd.grad(loss, views, allow_unused=True, materialize_grads=True)
        if self._autocast is None and not step.agrees(loss, gradients):
            raise SolError(
                f"cannot differentiate through the training of {self.task.name}: its loss uses parameters that are "
                "kept outside of modules, as in a list; take them from the modules, or set estimator = first-order"
            )
        self._functional = True

    def _alone(self, model: nn.Module, views: list[Tensor], batch: Batch, seed: int) -> Tensor:
        function = LossFunction(self.task, model)
        with seeded(seed), self._casting():
            return function(views, {}, batch).to(self.theta.dtype)  # which targets may have changed

    @torch.enable_grad()
    def losses_and_gradients(self, drawn: Drawn | None = None) -> tuple[Tensor, Tensor]:
        """Losses [C, S] at ``theta`` and their gradients [C, S, P], on ``drawn`` or else each episode's next batch.

        Raises:
            SolError: The loss freezes parameters.
        """
        batches, seeds = self.draw() if drawn is None else drawn
        weights, gradients = self._weights(self.theta), torch.empty_like(self.theta)
        if self._together is not None:
            # Not views of one tensor, whose gradients would be joined in fresh memory.
            leaves = [_aligned(view).detach().requires_grad_() for view in self.views(weights)]
            losses = self._together.losses(leaves, batches, seeds[0], self._casting(), reuse=True).to(weights.dtype)
            self._differentiate(losses, leaves, gradients)
        else:  # one after the other, so that only one graph is alive at a time
            losses = torch.empty_like(self.theta[..., 0])
            for c, models in enumerate(self._models):
                for s, (model, batch, seed) in enumerate(zip(models, batches, seeds)):
                    parameters = self._load(model, weights[c, s])
                    with seeded(seed), self._casting():
                        loss = self.task.loss(model, batch)
                    self._differentiate(loss, parameters, gradients[c, s])
                    losses[c, s] = loss.detach()
        self.losses_before = losses = losses.detach()
        return losses, gradients if self._scales is None else gradients * self._scales

    def _differentiate(self, losses: Tensor, leaves: Sequence[Tensor], gradients: Tensor) -> None:
        """Write the derivatives of ``losses`` by ``leaves`` into ``gradients``: 0 for leaves that they skip."""
        if not all(leaf.requires_grad for leaf in leaves):
            raise SolError(
                f"the loss of {self.task.name} switches requires_grad of parameters while it trains; set it in build"
            )
        parts = torch.autograd.grad(losses.sum(), leaves, allow_unused=True, materialize_grads=True)
        for part, view in zip(parts, self.views(gradients)):
            view.copy_(part)

    def descend(self, phi: Tensor, lr: float | Tensor) -> None:
        """``theta <- project(theta - lr phi)``; ``phi`` has the shape of ``theta``, ``lr`` broadcasts with it."""
        self.place(self.theta - lr * phi if isinstance(lr, Tensor) else torch.sub(self.theta, phi, alpha=lr))

    def place(self, theta: Tensor) -> None:
        """``theta <- project(theta)``; same shape as before. The caller must not change it afterwards."""
        self.theta = theta
        if self._project is None:
            return
        for c, s in self._indices():
            model = self._module(c, s)
            with torch.no_grad():
                self._project(model)
            self.theta[c, s] = flat(model)

    def evaluate(self, split: str) -> dict[str, Tensor]:
        """The task's metrics at ``theta`` over a whole split, each of shape [C, S], float64 on the CPU."""
        metrics: dict[str, Tensor] = {}
        for c, s in self._indices():
            values = measured(self.task, self._module(c, s), split)
            for name, value in values.items():
                table = metrics.setdefault(name, torch.full(self.theta.shape[:2], torch.nan, dtype=torch.float64))
                table[c, s] = value
        return metrics

    def _indices(self) -> list[tuple[int, int]]:
        return [(c, s) for c in range(self.theta.shape[0]) for s in range(self.theta.shape[1])]
