"""Optimizees trained in parallel: all their parameters in one tensor, one gradient evaluation for all.

Shapes: C candidates of a rule, S episodes (a seed each), P parameters of one optimizee. Candidates of one episode
share its initial parameters, its batches and its dropout masks (common random numbers), and the batches are not
copied for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sol_learner.task import Batch, Stream, Substream, Task, build_optimizee, draw_batches, generator_for, task_for
from sol_symbols import Layout, SolError

__all__ = ["PRECISIONS", "Optimizees", "vectorizes"]

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}
"""Autocast type of the forward pass, by name; parameters and rules keep their own type."""


Drawn = tuple[list[Batch], list[int]]
"""A batch of each episode, and the seed of its dropout masks."""


class _Loss(nn.Module):
    """``task.loss`` as a module, so that it can be called with parameters other than the model's."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch) -> Tensor:
        return self.task.loss(self.model, batch)


_turn = threading.Lock()
"""Held by the thread that uses PyTorch's own random numbers, of which a process has one stream."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of layers (dropout) from ``seed``; the caller's stream continues afterwards as if unused."""
    cuda = torch.cuda.is_available()
    with _turn:
        before = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
        torch.random.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            torch.set_rng_state(before[0])
            if cuda:
                torch.cuda.set_rng_state_all(before[1])


def vectorizes(task: Task, model: nn.Module) -> bool:
    """Whether the losses of several such models can be mapped: the task allows it, and the models have no buffers."""
    return getattr(task, "vectorizable", True) and not any(True for _ in model.buffers())


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
        theta: Parameters, shape [C, S, P], on the device of the models that the task builds.

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
        self._template = models[0]
        named = [(n, p) for n, p in _Loss(task, self._template).named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._shapes = [p.shape for _, p in named]
        self._sizes = [p.numel() for _, p in named]
        theta = torch.stack([torch.cat([p.detach().reshape(-1) for p in _trainable(model)]) for model in models])
        self._project: Callable[[nn.Module], None] | None = getattr(task, "project", None)
        self._scales = self._draw_scales(theta, scaling) if scaling else None
        if self._scales is not None:
            theta = theta / self._scales
        self.theta = theta.expand(candidates, -1, -1).contiguous()
        self._streams: dict[str, list[Iterator[Batch]]] = {}
        self._randomness = [generator_for(seed, stream, episode, Substream.LAYERS) for episode in self._episodes]
        self._autocast = PRECISIONS[precision]
        several = candidates * len(self._episodes) > 1  # one alone is faster without vmap
        self._vectorized = several and vectorizes(task, models[0])
        self._stacked: dict[object, list[Tensor]] = {}
        if self._vectorized:
            module = _Loss(task, self._template)
            self._mapped = torch.vmap(lambda views, batch: self._loss(module, views, batch), randomness="different")
            if candidates > 1:
                self._mapped = torch.vmap(self._mapped, in_dims=(0, None), randomness="same")
        else:
            # Every optimizee keeps its own module, because modules may have state other than parameters.
            self._models = [models, *([self._fresh(e) for e in episodes] for _ in range(candidates - 1))]

    def _fresh(self, episode: int) -> nn.Module:
        with _turn:  # constructors of layers draw random numbers that are overwritten
            return build_optimizee(self.task, self._seed, self._stream, episode).train()

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

    def _loss(self, module: nn.Module, views: list[Tensor], batch: Batch) -> Tensor:
        with self._casting():
            loss = torch.func.functional_call(module, dict(zip(self._names, views)), (batch,))
        return loss.to(self.theta.dtype)  # which targets of another precision may have changed

    def views(self, weights: Tensor) -> list[Tensor]:
        """Parameters of each name, ``[..., *shape]``, of weights ``[..., P]``; no copies."""
        pieces = zip(weights.split(self._sizes, -1), self._shapes)
        return [piece.view(*piece.shape[:-1], *shape) for piece, shape in pieces]

    @property
    def layout(self) -> Layout:
        """The shapes of the parameters along the last axis of ``theta``."""
        return Layout(tuple(tuple(shape) for shape in self._shapes))

    def _load(self, model: nn.Module, row: Tensor) -> list[nn.Parameter]:
        """Turn the model's parameters into views of ``row``, [P], without a copy, and return them."""
        parameters = _trainable(model)
        for parameter, view in zip(parameters, self.views(row.detach())):
            parameter.data = view
        return parameters

    def _weights(self, theta: Tensor) -> Tensor:
        """The models' parameters, which are ``theta`` unless it is scaled."""
        return theta if self._scales is None else theta * self._scales

    def _module(self, candidate: int, episode: int) -> nn.Module:
        """The module of one optimizee with its current parameters loaded."""
        model = self._template if self._vectorized else self._models[candidate][episode]
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
        if not self._vectorized:
            rows = [
                [self._alone(m, self.views(w), *drawn) for m, w, *drawn in zip(models, row, batches, seeds)]
                for models, row in zip(self._models, weights)
            ]
            return torch.stack([torch.stack(row) for row in rows])
        stacked = pytree.tree_map(lambda *leaves: torch.stack(leaves), *batches)
        return self._mapped_losses(self.views(weights), stacked, seeds)

    def _mapped_losses(self, views: list[Tensor], stacked: Batch, seeds: list[int]) -> Tensor:
        with _seeded(seeds[0]):
            if len(self.theta) == 1:
                return self._mapped([view.squeeze(0) for view in views], stacked).unsqueeze(0)
            return self._mapped(views, stacked)

    def _stack(self, batches: list[Batch]) -> Batch:
        """Batches stacked into memory that is reused at every step: fresh memory of that size causes page faults."""
        leaves, structure = zip(*(pytree.tree_flatten(batch) for batch in batches))
        columns = list(zip(*leaves))
        key = tuple((column[0].shape, column[0].dtype) for column in columns)
        if key not in self._stacked:
            self._stacked[key] = [column[0].new_empty((len(column), *column[0].shape)) for column in columns]
        filled = [torch.stack(column, out=buffer) for column, buffer in zip(columns, self._stacked[key])]
        return pytree.tree_unflatten(filled, structure[0])

    def _alone(self, model: nn.Module, views: list[Tensor], batch: Batch, seed: int) -> Tensor:
        with _seeded(seed):
            return self._loss(_Loss(self.task, model), views, batch)

    def losses_and_gradients(self, drawn: Drawn | None = None) -> tuple[Tensor, Tensor]:
        """Losses [C, S] at ``theta`` and their gradients [C, S, P], on ``drawn`` or else each episode's next batch."""
        batches, seeds = self.draw() if drawn is None else drawn
        weights, gradients = self._weights(self.theta), torch.empty_like(self.theta)
        if self._vectorized:
            # Not views of one tensor, whose gradients would be joined in fresh memory.
            leaves = [view.detach().requires_grad_() for view in self.views(weights)]
            losses = self._mapped_losses(leaves, self._stack(batches), seeds)
            self._differentiate(losses, leaves, gradients)
        else:  # one after the other, so that only one graph is alive at a time
            losses = torch.empty_like(self.theta[..., 0])
            for c, models in enumerate(self._models):
                for s, (model, batch, seed) in enumerate(zip(models, batches, seeds)):
                    parameters = self._load(model, weights[c, s])
                    with _seeded(seed), self._casting():
                        loss = self.task.loss(model, batch)
                    self._differentiate(loss, parameters, gradients[c, s])
                    losses[c, s] = loss.detach()
        return losses.detach(), gradients if self._scales is None else gradients * self._scales

    def _differentiate(self, losses: Tensor, leaves: Sequence[Tensor], gradients: Tensor) -> None:
        """Write the derivatives of ``losses`` by ``leaves`` into ``gradients``."""
        for part, view in zip(torch.autograd.grad(losses.sum(), leaves), self.views(gradients)):
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
            self._project(model)
            self.theta[c, s] = torch.cat([p.detach().reshape(-1) for p in _trainable(model)])

    def evaluate(self, split: str) -> dict[str, Tensor]:
        """The task's metrics at ``theta`` over a whole split, each of shape [C, S], float64 on the CPU."""
        metrics: dict[str, Tensor] = {}
        for c, s in self._indices():
            model = self._module(c, s).eval()
            with torch.no_grad():
                values = self.task.evaluate(model, split)
            if not isinstance(values, dict) or "loss" not in values:
                raise SolError(
                    f"evaluate of {self.task.name} must return a dict of metrics with a loss, got {values!r}"
                )
            model.train()
            for name, value in values.items():
                table = metrics.setdefault(name, torch.full(self.theta.shape[:2], torch.nan, dtype=torch.float64))
                table[c, s] = value
        return metrics

    def _indices(self) -> list[tuple[int, int]]:
        return [(c, s) for c in range(self.theta.shape[0]) for s in range(self.theta.shape[1])]


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
