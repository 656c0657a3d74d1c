"""Reference trainings: small networks that a rule must train, too, whatever it is learned on.

A single task says how large its own steps may be, and a search that sees nothing else goes to that edge: on another
network the rule diverges. The references are perceptrons of two to four hidden layers that tell clusters of points
apart, a fifth of whose labels is random, over as many steps as the task's: whoever trains them gets to about the same
loss. ``sol-general`` as it is shipped says to which.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sol_learner.inner.episodes import Value, run_rule
from sol_learner.runtime.clock import Clock
from sol_learner.task import Stream, Substream, Task, build_optimizee, build_seeded, generator_for, task_for
from sol_symbols import ZOO, UpdateRule

__all__ = ["CHOOSING", "REFERENCES", "TOLERANCE", "has_matrices", "penalty", "reference", "references_of"]

TOLERANCE = 2.0
"""A rule trains a reference if its loss is at most this times that of ``sol-general``."""

REFERENCES, CHOOSING = 8, 6
"""Number of references in a search, and in a choice among rules."""

MOST = 1e6
"""Largest penalty."""

_ROWS = 3000
_PARTS = {"train": slice(0, 2000), "valid": slice(2000, 2500), "test": slice(2500, _ROWS)}
_WRONG = 0.2  # share of labels that are drawn: no loss is near 0

Item = TypeVar("Item")

Key = tuple[int, Stream, int, int, float]
"""Seed, stream, number and horizon of a reference, and the weight of the training loss in its objective."""

Mapped = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


class Reference:
    """A perceptron that tells clusters of points apart.

    Args:
        generator: Draws the points, the sizes, the activation, and the batch.
        horizon: Inner steps.
        layers: Hidden layers; two to four by default.
    """

    name = "reference"
    vectorizable = True

    def __init__(self, generator: torch.Generator, horizon: int, layers: int | None = None) -> None:
        def one(*items: Item) -> Item:
            return items[int(torch.randint(len(items), (), generator=generator))]

        self.horizon = horizon
        inputs, classes, noise = one(64, 256), one(2, 4, 10), one(0.5, 1.0, 1.5)
        centres = torch.randn(classes * one(1, 3), inputs, generator=generator)
        chosen = torch.randint(len(centres), (_ROWS,), generator=generator)
        points = centres[chosen] + noise * torch.randn(_ROWS, inputs, generator=generator)
        points = one(points, 0.5 * points.abs())  # pixels are positive, too
        labels, other = chosen % classes, torch.randint(classes, (_ROWS,), generator=generator)
        wrong = torch.rand(_ROWS, generator=generator) < _WRONG
        self._points, self._labels, self._batch = points, torch.where(wrong, other, labels), one(32, 64)
        self._activation = one(nn.ReLU, nn.GELU)
        self._sizes = [inputs, *(one(12, 24, 48) for _ in range(layers or one(2, 3, 4))), classes]

    def _rows(self, split: str) -> tuple[Tensor, Tensor]:
        part = _PARTS[split]
        return self._points[part], self._labels[part]

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh network with PyTorch's default initialisation."""

        def model() -> nn.Module:
            pairs = [*itertools.pairwise(self._sizes)]
            modules = [module for pair in pairs for module in (nn.Linear(*pair), self._activation())]
            return nn.Sequential(*modules[:-1])

        return build_seeded(model, generator)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows, drawn with replacement."""
        points, labels = self._rows(split)
        while True:
            chosen = torch.randint(len(labels), (self._batch,), generator=generator)
            yield points[chosen], labels[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy."""
        points, labels = batch
        return nn.functional.cross_entropy(model(points), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """The loss over the split."""
        return {"loss": float(self.loss(model, self._rows(split)))}


def reference(seed: int, stream: Stream, number: int, horizon: int, layers: int | None = None) -> Task:
    """A reference training of a stream."""
    return Reference(generator_for(seed, stream, number, Substream.REFERENCE), horizon, layers)


def has_matrices(task: Task) -> bool:
    """Whether a task trains networks: it has parameters of two dimensions or more, in no constraint set."""
    if getattr(task, "project", None) is not None:
        return False
    model = build_optimizee(task_for(task, Stream.VALID), 0, Stream.VALID, 0)
    return any(parameter.ndim > 1 for parameter in model.parameters())


def references_of(stream: Stream, episodes: Sequence[int]) -> list[int]:
    """The numbers of the references that go with episodes: one for two of them in a search, and in a choice
    always the same."""
    if stream != Stream.TRAIN:
        return [*range(CHOOSING)]
    return sorted({episode // 2 % REFERENCES for episode in episodes[::2]})


def penalty(
    rule: UpdateRule,
    seed: int,
    stream: Stream,
    episodes: Sequence[int],
    horizon: int,
    weight: float,
    lr: Value | None = None,
    values: Mapping[str, Value] | None = None,
    clock: Clock | None = None,
    mapped: Mapped | None = None,
) -> Tensor:
    """What a positive loss of a rule is multiplied by, [C]: 1 if the rule trains the references of the episodes.

    The mean over them of max(1, L / (2 L_0)), where L is the objective of the rule and L_0 that of ``sol-general``;
    at most :data:`MOST`. See :func:`~sol_learner.inner.run_rule` for the arguments. ``mapped`` applies a function to
    items, of which there is one for each reference; it may use other processes, which then have no ``clock``.
    """
    mapped = mapped or (lambda function, items: [function(item) for item in items])
    numbers = references_of(stream, episodes)
    keys = {number: (seed, stream, number, horizon, weight) for number in numbers}
    new = [key for key in keys.values() if key not in _levels]
    _levels.update(zip(new, mapped(_level, new)))
    measure = partial(_factors, rule, lr, values, clock)
    return torch.stack(mapped(measure, [(key, _levels[key]) for key in keys.values()])).mean(0)


_levels: dict[Key, float] = {}
"""The objective of ``sol-general`` on each reference that was used."""

_reference = functools.lru_cache(maxsize=32)(reference)


def _level(key: Key) -> float:
    """The objective of ``sol-general`` on a reference."""
    return float(_objectives(key, ZOO["sol-general"]))


def _factors(
    rule: UpdateRule,
    lr: Value | None,
    values: Mapping[str, Value] | None,
    clock: Clock | None,
    item: tuple[Key, float],
) -> Tensor:
    """The penalty on one reference, [C]."""
    key, level = item
    own = _objectives(key, rule, lr, values, clock)
    return (own / (TOLERANCE * level)).nan_to_num(nan=MOST).clamp(1.0, MOST)


def _objectives(
    key: Key,
    rule: UpdateRule,
    lr: Value | None = None,
    values: Mapping[str, Value] | None = None,
    clock: Clock | None = None,
) -> Tensor:
    """Objective of a rule on a reference, [C]."""
    seed, stream, number, horizon, weight = key
    task = _reference(seed, stream, number, horizon)
    return run_rule(task, rule, seed, stream, [number], lr, values, clock=clock).objective(weight)[:, 0]
