"""Optimizees trained side by side: all their parameters in one tensor, one gradient evaluation for all.

Shapes: C candidates of a rule, S episodes (a seed each), P parameters of one optimizee. Candidates of one episode
share its initial parameters and its batches (common random numbers), and the batches are not copied for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sol_learner.task import Purpose, Task, generator_for

__all__ = ["Optimizees"]


class _Loss(nn.Module):
    """``task.loss`` as a module, so that it can be called with other parameters than the model's own."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: object) -> Tensor:
        return self.task.loss(self.model, batch)


class Optimizees:
    """C x S optimizees of one task.

    Args:
        task: The task.
        seed: Base seed of the run.
        purpose: Which random stream the episodes belong to.
        episodes: Index of each episode in its stream; S of them.
        candidates: C.
        split: The split that inner batches come from.

    Attributes:
        theta: Parameters, shape [C, S, P], on the device of the models that the task builds.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        purpose: Purpose,
        episodes: Sequence[int],
        candidates: int = 1,
        split: str = "train",
    ) -> None:
        self.task = task
        models = [task.build(generator_for(seed, purpose, episode, 0)).train() for episode in episodes]
        parameters = [[p for p in model.parameters() if p.requires_grad] for model in models]
        rows = [torch.cat([p.detach().reshape(-1) for p in row]) for row in parameters]
        self.theta = torch.stack(rows).expand(candidates, -1, -1).contiguous()
        self._batches = [task.batches(split, generator_for(seed, purpose, episode, 1)) for episode in episodes]
        buffers = any(True for _ in models[0].buffers())
        self._vectorized = getattr(task, "vectorizable", True) and not buffers
        self._project = getattr(task, "project", None)
        self._template = models[0]
        named = [(n, p) for n, p in _Loss(task, self._template).named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._shapes = [p.shape for _, p in named]
        self._sizes = [p.numel() for _, p in named]
        if self._vectorized:
            module = _Loss(task, self._template)

            def loss(theta: Tensor, batch: object) -> Tensor:
                return torch.func.functional_call(module, dict(zip(self._names, self._views(theta))), (batch,))

            self._losses = torch.vmap(loss, randomness="different")
            if candidates > 1:
                self._losses = torch.vmap(self._losses, in_dims=(0, None), randomness="different")
        else:
            # Every optimizee keeps its own module, because modules may hold state besides their parameters.
            extra = range(candidates - 1)
            self._models = [models, *([self._fresh(seed, purpose, e) for e in episodes] for _ in extra)]

    def _fresh(self, seed: int, purpose: Purpose, episode: int) -> nn.Module:
        return self.task.build(generator_for(seed, purpose, episode, 0)).train()

    def _views(self, theta: Tensor) -> list[Tensor]:
        pieces = theta.split(self._sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes)]

    def _load(self, model: nn.Module, theta: Tensor) -> nn.Module:
        trainable = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for parameter, view in zip(trainable, self._views(theta)):
                parameter.copy_(view)
        return model

    def _module(self, candidate: int, episode: int) -> nn.Module:
        """The module of one optimizee with its present parameters loaded."""
        model = self._template if self._vectorized else self._models[candidate][episode]
        return self._load(model, self.theta[candidate, episode])

    def losses_and_gradients(self) -> tuple[Tensor, Tensor]:
        """Losses [C, S] at ``theta`` on each episode's next batch, and their gradients [C, S, P]."""
        batches = [next(stream) for stream in self._batches]
        if not self._vectorized:
            return self._loop(batches)
        stacked = pytree.tree_map(lambda *leaves: torch.stack(leaves), *batches)
        candidates = self.theta.shape[0]
        theta = (self.theta if candidates > 1 else self.theta[0]).detach().requires_grad_()
        losses = self._losses(theta, stacked)
        (gradients,) = torch.autograd.grad(losses.sum(), theta)
        return losses.detach().view(candidates, -1), gradients.view_as(self.theta)

    def _loop(self, batches: list[object]) -> tuple[Tensor, Tensor]:
        losses = self.theta.new_empty(self.theta.shape[:2])
        gradients = torch.empty_like(self.theta)
        for c in range(self.theta.shape[0]):
            for s, batch in enumerate(batches):
                model = self._module(c, s)
                loss = self.task.loss(model, batch)
                trainable = [p for p in model.parameters() if p.requires_grad]
                parts = torch.autograd.grad(loss, trainable)
                losses[c, s] = loss.detach()
                gradients[c, s] = torch.cat([part.reshape(-1) for part in parts])
        return losses, gradients

    def move(self, delta: Tensor) -> None:
        """``theta <- project(theta + delta)``; ``delta`` has the shape of ``theta``."""
        self.theta = self.theta + delta
        if self._project is None:
            return
        for c, s in self._indices():
            model = self._module(c, s)
            self._project(model)
            trainable = [p for p in model.parameters() if p.requires_grad]
            self.theta[c, s] = torch.cat([p.detach().reshape(-1) for p in trainable])

    def evaluate(self, split: str) -> dict[str, Tensor]:
        """The task's metrics at ``theta`` over a whole split, each of shape [C, S], float64 on the CPU."""
        metrics: dict[str, Tensor] = {}
        for c, s in self._indices():
            model = self._module(c, s).eval()
            with torch.no_grad():
                values = self.task.evaluate(model, split)
            model.train()
            for name, value in values.items():
                table = metrics.setdefault(name, torch.full(self.theta.shape[:2], torch.nan, dtype=torch.float64))
                table[c, s] = value
        return metrics

    def _indices(self) -> list[tuple[int, int]]:
        return [(c, s) for c in range(self.theta.shape[0]) for s in range(self.theta.shape[1])]
