"""Distributions over tasks, and tasks in other coordinates.

A rule that is learned on one task is fitted to it: to the sizes of its gradients, of its inputs, of its weights. A rule
that is learned on a distribution over tasks, a task family, has to hold for tasks that it never saw.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from sol_learner.task import Batch, Stream, Substream, Task, generator_for
from sol_symbols import SolError

__all__ = ["TaskMixture", "augmented", "drawn_task", "is_float"]


@runtime_checkable
class TaskMixture(Protocol):
    """A distribution over tasks: every episode draws one."""

    name: str

    def draw(self, generator: torch.Generator) -> Task:
        """A task, a function of ``generator``'s state alone."""


def drawn_task(mixture: TaskMixture, seed: int, stream: Stream, episode: int) -> Task:
    """The task of an episode."""
    return mixture.draw(generator_for(seed, stream, episode, Substream.TASK))


class _Scaled(nn.Module):
    """A model with weights w = s u for trained u and fixed s, one per tensor, called with a (x + b) for inputs x."""

    def __init__(self, model: nn.Module, scales: dict[str, float], factor: float, shift: float) -> None:
        super().__init__()
        self.model, self.scales, self.factor, self.shift = model, scales, factor, shift
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.div_(scales[name])

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        if (self.factor, self.shift) != (1, 0):
            arguments = tuple(self.factor * (x + self.shift) if is_float(x) else x for x in arguments)
            keywords = {name: self.factor * (x + self.shift) if is_float(x) else x for name, x in keywords.items()}
        weights = {name: self.scales[name] * u for name, u in self.model.named_parameters()}
        return torch.func.functional_call(self.model, weights, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        """What a task reads from its model, such as a buffer; w of its own parameters."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            value = getattr(super().__getattr__("model"), name)
        if isinstance(value, nn.Parameter):
            return self.scales[name] * value
        if callable(value):
            raise AttributeError(f"the weights are scaled: call the model itself, model(...), not model.{name}")
        return value


def _rectify(model: nn.Module) -> None:
    """Put ReLU in place of the modules ``Sigmoid`` and ``Tanh``."""
    for parent in [*model.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.Sigmoid | nn.Tanh):
                setattr(parent, name, nn.ReLU())


def is_float(value: Any) -> bool:
    """Whether a value is a tensor of floats."""
    return isinstance(value, Tensor) and value.is_floating_point()


class _Augmented:
    """See :func:`augmented`."""

    def __init__(
        self,
        task: Task,
        seed: int,
        spread: float,
        per_tensor: bool,
        horizon: int | None,
        inputs: tuple[float, float],
        batch_factor: float,
        rectified: bool,
    ) -> None:
        self._rectified = rectified
        self._task, self._seed, self._spread, self._per_tensor = task, seed, spread, per_tensor
        self._inputs, self._batch = inputs, batch_factor
        self.horizon = task.horizon if horizon is None else horizon
        self.name = f"{task.name}-augmented"

    def __getattr__(self, name: str) -> Any:  # the optional members of a task
        if name.startswith("__") or "_task" not in vars(self):
            raise AttributeError(name)
        if name == "pool":
            pool = self._task.pool  # type: ignore[attr-defined]
            return lambda split: self._on(pool(split))
        return getattr(self._task, name)

    def _on(self, task: Task) -> _Augmented:
        """The same variant of another task."""
        other = copy.copy(self)
        other._task = task
        return other

    def __copy__(self) -> _Augmented:
        other = object.__new__(_Augmented)
        vars(other).update(vars(self))
        return other

    def build(self, generator: torch.Generator) -> nn.Module:
        """The task's model with other units, in other coordinates."""
        model = self._task.build(generator)
        if self._rectified:
            _rectify(model)
        if not self._spread and self._inputs == (1, 0):
            return model
        names = [name for name, _ in model.named_parameters()]
        numbers = 2 * torch.rand(len(names), generator=torch.Generator().manual_seed(self._seed)) - 1
        numbers = numbers if self._per_tensor else numbers[:1].expand(len(names))
        return _Scaled(model, dict(zip(names, (self._spread * numbers).exp().tolist())), *self._inputs)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Batch]:
        """The task's, in part or several in one."""
        for batch in (stream := self._task.batches(split, generator)):
            leaves, structure = tree_flatten(batch)
            if self._batch == 1:
                yield batch
                continue
            rows = {leaf.shape[:1] if isinstance(leaf, Tensor) else None for leaf in leaves}
            if len(rows) != 1 or rows <= {None, torch.Size([])}:
                raise SolError(
                    f"the batches of {self._task.name} have no common number of rows: {sorted(map(str, rows))}"
                )
            more = [tree_flatten(next(stream))[0] for _ in range(math.ceil(self._batch) - 1)]
            count = max(1, round(self._batch * leaves[0].shape[0]))
            yield tree_unflatten([torch.cat(parts)[:count] for parts in zip(leaves, *more)], structure)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's."""
        return self._task.loss(model, batch)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """The task's."""
        return self._task.evaluate(model, split)


def augmented(
    task: Task,
    weight_scale: float = 0.0,
    per_tensor: bool = True,
    horizon: int | None = None,
    input_scale: float = 1.0,
    batch_factor: float = 1.0,
    input_shift: float = 0.0,
    rectified: bool = False,
    generator: torch.Generator | None = None,
) -> Task:
    """A variant of a task: other coordinates (a tensor w is trained as u = w/s), horizon, inputs, batches or units.

    Args:
        task: The task.
        weight_scale: Half-width of the uniform distribution of log s.
        per_tensor: Whether every tensor has its own s.
        horizon: Inner steps of an episode; the task's by default.
        batch_factor: Rows of a batch over the task's. Several batches become one, or a batch is cut.
        input_scale: Multiplies every tensor of floats that the model is called with.
        input_shift: Is added to it before.
        rectified: Whether ReLU replaces the model's modules ``Sigmoid`` and ``Tanh``.
        generator: Draws s, the same in all episodes; seed 0 by default.
    """
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=drawn))
    return _Augmented(
        task, seed, weight_scale, per_tensor, horizon, (input_scale, input_shift), batch_factor, rectified
    )
