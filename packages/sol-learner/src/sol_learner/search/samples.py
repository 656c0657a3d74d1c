"""Recorded coordinates of episodes, on which terms are evaluated, fitted and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sympy
import torch
from torch import Tensor

from sol_learner.inner.episodes import Optimizer, run_episodes
from sol_learner.inner.task_set import TaskSet
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Substream, generator_for
from sol_symbols import Vocabulary, feature_evaluator
from sol_symbols.evaluation import Evaluator
from sol_symbols.program import lower_features

__all__ = ["Samples", "Trajectories", "record"]


@dataclass(frozen=True)
class Trajectories:
    """Recorded coordinates of one task's episodes.

    Attributes:
        gradients: [T, N], float64.
        parameters: [T, N], float64.
        values: Hyperparameters and horizon.
        terms: Terms that were evaluated on the way, each [T * N]; those with reductions need whole tensors.
    """

    gradients: Tensor
    parameters: Tensor
    values: dict[str, float]
    terms: dict[sympy.Expr, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Recorded coordinates of all tasks' episodes.

    Attributes:
        parts: One per task.
        vocabulary: Defines the names used in terms.
    """

    parts: tuple[Trajectories, ...]
    vocabulary: Vocabulary

    def evaluate(self, terms: Sequence[sympy.Expr]) -> Tensor:
        """Each term at each step and coordinate, [len(terms), sum of T * N], float64."""
        if terms and all(term in part.terms for part in self.parts for term in terms):
            return torch.cat([torch.stack([part.terms[term] for term in terms]) for part in self.parts], 1)
        features = feature_evaluator(terms, self.vocabulary, torch)
        columns = []
        for part in self.parts:
            state = features.init(part.parameters[0])
            for t, (gradient, parameter) in enumerate(zip(part.gradients, part.parameters), start=1):
                outputs, state = features.step(gradient, state, parameter, t, part.values)
                columns.append(torch.stack(outputs))
        return torch.cat(columns, 1)

    @property
    def gradient_rms(self) -> float:
        """Root mean square of the gradients of all tasks."""
        return float(torch.cat([part.gradients.reshape(-1) for part in self.parts]).square().mean().sqrt())

    @property
    def weights(self) -> Tensor:
        """|g|, [sum of T * N], float64, mean 1 per task: an error of phi counts by its effect on the loss."""
        sizes = [part.gradients.abs().reshape(-1) for part in self.parts]
        return torch.cat([size / size.mean() for size in sizes])


def record(
    task_set: TaskSet,
    optimizer: Optimizer,
    lr: float,
    values: dict[str, float],
    vocabulary: Vocabulary,
    seed: int,
    episodes: Sequence[int],
    per_episode: int,
    clock: Clock | None = None,
    terms: Sequence[sympy.Expr] = (),
) -> Samples:
    """Run episodes and record gradients and parameters of some coordinates.

    Args:
        task_set: The tasks.
        optimizer: Updates the optimizees.
        lr: Its learning rate.
        values: Hyperparameters for evaluating terms.
        vocabulary: Defines the names used in terms.
        seed: Base seed.
        episodes: Indices in the training stream.
        per_episode: Coordinates per episode, the same in all episodes.
        clock: Source of interrupts.
        terms: Terms to evaluate on the way, with whole tensors at hand; needed if they have reductions.
    """
    generator = generator_for(seed, Stream.TRAIN, episodes[0], Substream.RECORDING)
    parts = []
    code = lower_features(tuple(terms), vocabulary) if terms else None
    for task, own in task_set.problems(seed, Stream.TRAIN, episodes):
        gradients, parameters, chosen = [], [], None
        known, columns = {**values, "T": float(task.horizon)}, list[Tensor]()
        for t, optimizees, gradient in run_episodes(task, optimizer, lr, seed, Stream.TRAIN, own, clock):
            if t > task.horizon:
                break
            if chosen is None:
                size = gradient.shape[-1]
                chosen = torch.randperm(size, generator=generator)[: min(per_episode, size)].to(gradient.device)
                evaluator = Evaluator(code, torch, optimizees.layout) if code else None
                state = evaluator.init(optimizees.theta) if evaluator else {}
            if evaluator:
                outputs, state = evaluator.step(gradient, state, optimizees.theta, t, known, optimizees.losses_before)
                columns.append(torch.stack([x.broadcast_to(gradient.shape)[..., chosen].reshape(-1) for x in outputs]))
            gradients.append(gradient[..., chosen].reshape(-1).double())
            parameters.append(optimizees.theta[..., chosen].reshape(-1).double())
        found = dict(zip(terms, torch.cat(columns, 1).double())) if columns else {}
        parts.append(Trajectories(torch.stack(gradients), torch.stack(parameters), known, found))
    return Samples(tuple(parts), vocabulary)
