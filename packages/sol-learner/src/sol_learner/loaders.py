"""A task from what a training script has: a function that makes the model, data sets or loaders, a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from sol_learner.task import SPLITS, Batch, Task, build_seeded
from sol_symbols import SolError

__all__ = ["from_loaders"]

Metrics = Mapping[str, Callable[[Any, Any], Any]]

_HELD = 0.1
"""Share of the rows that each held-out split gets where only training data is given."""

_MEMORY = 2**31
"""Bytes of a data set up to which it is kept on the device as tensors."""

_CHUNK = 1024
"""Rows of an evaluation batch, at least."""


class _Tensors:
    """Rows of a pytree of tensors on the device."""

    fixed = True

    def __init__(self, tensors: Any, device: torch.device) -> None:
        self._tensors = pytree.tree_map(lambda tensor: tensor.to(device), tensors)
        self._device = device

    def __getitem__(self, rows: Tensor) -> Batch:
        chosen = rows.to(self._device)
        return pytree.tree_map(lambda tensor: tensor.index_select(0, chosen), self._tensors)


class _Items:
    """Rows that a data set makes when they are asked for, collated and moved to the device."""

    fixed = False

    def __init__(self, items: Any, collate: Callable[[list[Any]], Any], device: torch.device) -> None:
        self._items, self._collate, self._device = items, collate, device

    def __getitem__(self, rows: Tensor) -> Batch:
        batch = self._collate([self._items[row] for row in rows.tolist()])
        batch = dict(batch) if isinstance(batch, Mapping) else batch
        return pytree.tree_map(lambda leaf: leaf.to(self._device) if isinstance(leaf, Tensor) else leaf, batch)


Rows = tuple["_Tensors | _Items", Tensor]
"""A source of rows, and the numbers of those that belong to a split."""


class LoaderTask:
    """The task that :func:`from_loaders` makes; see there."""

    def __init__(
        self,
        name: str,
        model_fn: Callable[[], nn.Module],
        rows: Mapping[str, Rows],
        loss_fn: Callable[..., Any] | None,
        steps: int,
        batch_size: int,
        metrics: Metrics,
        device: torch.device,
        sample: int,
    ) -> None:
        self.name, self.horizon, self.batch_size, self.device = name, steps, batch_size, device
        self._model, self._rows, self._loss, self._metrics, self._sample = (
            model_fn,
            dict(rows),
            loss_fn,
            metrics,
            sample,
        )
        self._whole = loss_fn is not None and next(iter(_parameters(loss_fn)), None) == "model"

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh model, initialized from the generator."""
        model = build_seeded(self._model, generator)
        if not isinstance(model, nn.Module):
            raise SolError(f"model_fn of {self.name} must return a module, got {type(model).__name__}")
        return model.to(self.device)

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Batch]:
        """Endless full batches; each epoch is shuffled. Random transforms of a data set draw from the generator."""
        source, rows = self._rows[split]
        size = min(self.batch_size, len(rows))
        while True:
            order = rows[torch.randperm(len(rows), generator=generator)]
            for chosen in order.split(size)[: len(rows) // size]:
                yield source[chosen] if source.fixed else build_seeded(partial(source.__getitem__, chosen), generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch."""
        return self._outcome(model, batch)[0]

    def _outcome(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any, Any]:
        """The loss, the outputs of the model, and the targets."""
        if self._whole:
            assert self._loss is not None
            loss, outputs, targets = self._loss(model, batch), None, batch
        elif isinstance(batch, Mapping):
            outputs, targets = model(**batch), batch
            loss = getattr(outputs, "loss", None) if self._loss is None else self._loss(outputs, batch)
        else:
            *inputs, targets = batch if isinstance(batch, tuple | list) and len(batch) > 1 else _twice(batch)
            outputs = model(*inputs)
            loss = None if self._loss is None else self._loss(outputs, targets)
        if not isinstance(loss, Tensor):
            raise SolError(
                f"{self.name} has no loss, got {loss!r}: pass loss_fn, a function of (outputs, targets) or of "
                "(model, batch)"
            )
        return loss, outputs, targets

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Means of the loss and of the metrics over the rows of a split; over the first ``sample`` of ``train``."""
        source, rows = self._rows[split]
        rows = rows[: self._sample] if split == "train" else rows
        totals = dict.fromkeys(("loss", *self._metrics), 0.0)
        for chosen in rows.split(max(_CHUNK, self.batch_size) if source.fixed else self.batch_size):
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(int(chosen[0]))  # a split is the same at every evaluation
                batch = source[chosen]
            loss, outputs, targets = self._outcome(model, batch)
            values = {"loss": loss} | {key: metric(outputs, targets) for key, metric in self._metrics.items()}
            for key, value in values.items():
                totals[key] += float(torch.as_tensor(value).detach()) * len(chosen) / len(rows)
        return totals


def from_loaders(
    name: str,
    model_fn: Callable[[], nn.Module],
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    steps: int,
    loss_fn: Callable[..., Any] | None = None,
    metrics: Metrics | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    sample: int = 5000,
) -> Task:
    """A task from what a training script has.

    Data is a :class:`~torch.utils.data.DataLoader`, of which the data set, the batch size and the collation are taken;
    a data set with a length; or tensors or arrays, in a tuple or a dictionary, with a row for each example. Batches are
    full and shuffled anew in every epoch by the task's generator. Data that is the same at every access is kept as
    tensors on the device, up to 2 GiB; a data set with random transforms, or a loader with its own collation (padding),
    makes every batch when it is needed. Where batches differ in their shapes, models are trained one after another.

    Args:
        name: Name of the task.
        model_fn: Makes a fresh model, a function without arguments such as ``lambda: Net()``.
        train: Training data.
        valid: Validation data, a tenth of ``train`` by default.
        test: Test data, half of ``valid`` if that is given, else another tenth of ``train``. The three are disjoint.
        steps: Optimizer steps of one training, T.
        loss_fn: The loss: a function of the outputs and the targets, such as ``torch.nn.CrossEntropyLoss()``; for
            batches that are dictionaries, of the outputs of ``model(**batch)`` and the batch; or, if its first
            parameter is called ``model``, of the model and the batch. By default ``model(**batch).loss``.
        metrics: Functions of the outputs and the targets by name; their means over the rows are reported.
        batch_size: Examples of a batch, by default that of the loader, else 64.
        device: Where models and data live; by default CUDA if available, else the CPU.
        sample: Training rows used for training metrics.

    Raises:
        SolError: ``model_fn`` is a module and no function, or the data has no length, no rows or no order.

    Example::

        task = from_loaders("digits", lambda: Net(), (images, labels), steps=200, loss_fn=nn.CrossEntropyLoss())
    """
    if isinstance(model_fn, nn.Module) or not callable(model_fn):
        kind = type(model_fn).__name__
        raise SolError(f"model_fn must make a fresh model in every call, got a {kind}; pass lambda: {kind}(...)")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SolError(f"steps must be a number of steps of at least 1, got {steps!r}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    given = {split: _rows(split, data, place) for split, data in zip(SPLITS, (train, valid, test)) if data is not None}
    if "train" not in given:
        raise SolError("pass training data: a DataLoader, a data set, or tensors")
    rows = _divided(given)
    size = batch_size or (train.batch_size if isinstance(train, DataLoader) else None) or 64
    return LoaderTask(name, model_fn, rows, loss_fn, steps, size, dict(metrics or {}), place, sample)


def _divided(given: dict[str, Rows]) -> dict[str, Rows]:
    """Rows of all splits; those that are missing are taken from others at random, the same at every call."""
    rows = dict(given)

    def take(source: str, target: str, count: int) -> None:
        data, numbers = rows[source]
        if not 0 < count < len(numbers):
            raise SolError(f"{len(numbers)} rows are too few to set some aside for {target}; pass {target} data")
        order = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))]
        rows[source], rows[target] = (data, order[count:].sort().values), (data, order[:count].sort().values)

    held = max(1, round(_HELD * len(rows["train"][1])))
    if "valid" not in rows:
        take("train", "valid", held)
    if "test" not in rows:
        take(*(("valid", "test", len(rows["valid"][1]) // 2) if "valid" in given else ("train", "test", held)))
    return rows


def _rows(split: str, data: Any, device: torch.device) -> Rows:
    collate: Callable[[list[Any]], Any] = default_collate
    if isinstance(data, DataLoader):
        collate, data = data.collate_fn, data.dataset
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise SolError(
            f"the {split} data has no length or no order ({type(data).__name__}), so it cannot be shuffled; pass a "
            "data set with __len__ and __getitem__, such as a list of its examples"
        )
    if isinstance(data, TensorDataset) and collate is default_collate:
        data = data.tensors
    if isinstance(data, tuple | dict | numpy.ndarray):
        data = pytree.tree_map(lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, numpy.ndarray) else leaf, data)
    leaves = pytree.tree_leaves(data) if isinstance(data, tuple | dict | Tensor) else []
    if leaves and all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
        lengths = sorted({len(leaf) for leaf in leaves})
        if len(lengths) > 1 or not lengths[0]:
            raise SolError(f"the tensors of the {split} data must have as many rows, at least one, got {lengths}")
        return _Tensors(data, device), torch.arange(lengths[0])
    if not len(data):
        raise SolError(f"the {split} data is empty")
    numbers = torch.arange(len(data))
    if collate is default_collate:
        kept = _kept(data)
        if kept is not None:
            return _Tensors(kept, device), numbers
    return _Items(data, collate, device), numbers


def _kept(data: Any) -> Any:
    """All examples as tensors; ``None`` if they are random, of several shapes, too large, or hold other values."""
    first, again = default_collate([data[0]]), default_collate([data[0]])
    pairs = list(zip(pytree.tree_leaves(first), pytree.tree_leaves(again)))
    if not all(isinstance(a, Tensor) and a.ndim and torch.equal(a, b) for a, b in pairs):
        return None
    if len(data) * sum(a.numel() * a.element_size() for a, _ in pairs) > _MEMORY:
        return None
    try:
        kept = default_collate([data[row] for row in range(len(data))])
    except (RuntimeError, TypeError):
        return None
    return dict(kept) if isinstance(kept, Mapping) else kept


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _twice(batch: Any) -> Sequence[Any]:
    """Inputs that are their own targets, as of an autoencoder."""
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    return inputs, inputs
