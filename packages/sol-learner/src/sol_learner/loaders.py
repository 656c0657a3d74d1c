"""A task from what a training script has: a function that makes the model, data sets or loaders, a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from sol_learner.task import SPLITS, Batch, build_seeded, calling, same_values, trainable
from sol_learner.task_registry import parse_device
from sol_symbols import SolError
from sol_symbols.errors import quoted

__all__ = ["from_loaders"]

Metrics = Mapping[str, Callable[[Any, Any], Any]]

_HELD = 0.1
"""Share of the rows that each held-out split gets where only training data is given."""

_MEMORY = 2**31
"""Bytes of a data set up to which it is kept on the device as tensors."""

_ONE = "1 tensor"

_BATCH = 64
"""Rows of a batch where nothing says how many."""

_LOOKED_AT = 64
"""Examples that are made several times, to see whether they are random."""

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
        self.collates = collate is not default_collate

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
        # With a collation of its own, batches may differ in their shapes, unless all examples are alike.
        own = [(source, part) for source, part in self._rows.values() if isinstance(source, _Items) and source.collates]
        self.vectorizable = all(_alike(source, part) for source, part in own)
        self._whole = _takes_model(loss_fn)
        if not self._whole:
            self._require_columns()

    def _require_columns(self) -> None:
        """Check that tensors of all splits have the same columns, and that the loss works without targets."""
        first = {split: source[rows[:1]] for split, (source, rows) in self._rows.items() if source.fixed}
        columns = {split: _columns(batch) for split, batch in first.items()}
        if len({*columns.values()}) > 1:
            found = ", ".join(f"{what} in {split}" for split, what in columns.items())
            raise SolError(f"the data of {self.name} must have the same inputs and targets in each split, got {found}")
        if self._loss is None or columns.get("train") != _ONE:
            return
        generator = torch.Generator().manual_seed(0)
        with calling(self, "model_fn"):
            model = self.build(generator)
        batch = next(self.batches("train", generator))
        try:
            build_seeded(partial(self.loss, model, batch), generator)
        except SolError:
            raise
        except Exception as error:  # of a loss of others
            raise SolError(
                f"the train data of {self.name} has no targets, and with its inputs in their place the loss raised "
                f"{_raised(error)}; pass (inputs, targets)"
            ) from error

    def identity(self) -> dict[str, Any]:
        """What a resumed run must agree on, JSON-able."""
        return {
            "task": self.name,
            "horizon": self.horizon,
            "batch_size": self.batch_size,
            "rows": {split: len(rows) for split, (_, rows) in self._rows.items()},
            "parameters": sum(p.numel() for p in trainable(self.build(torch.Generator().manual_seed(0)))),
            "device": self.device.type,
        }

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
        totals, weights = dict.fromkeys(("loss", *self._metrics), 0.0), 0.0
        for chosen in rows.split(max(_CHUNK, self.batch_size) if source.fixed else self.batch_size):
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(int(chosen[0]))  # a split is the same at every evaluation
                batch = source[chosen]
            loss, outputs, targets = self._outcome(model, batch)
            weight = self._weight(targets, len(chosen))
            weights += weight
            mean = float(loss.detach()) / (len(chosen) if self._sums else 1)
            totals["loss"] += weight * mean if weight else 0.0  # a mean over no labels is NaN
            for key, metric in self._metrics.items():
                value = torch.as_tensor(metric(outputs, targets)).detach()
                if value.numel() != 1:
                    shape = tuple(value.shape)
                    raise SolError(
                        f"the metric {key!r} must give a number, got a tensor of shape {shape}; take its mean"
                    )
                totals[key] += float(value) * len(chosen) / len(rows)
        factor = self.batch_size if self._sums else 1  # a sum is that of a batch
        totals["loss"] = totals["loss"] * factor / weights if weights else numpy.nan
        return totals

    @property
    def _sums(self) -> bool:
        """Whether the loss is a sum over rows."""
        return getattr(self._loss, "reduction", "mean") == "sum"

    def _weight(self, targets: Any, count: int) -> float:
        """What a batch counts in the mean of the loss: its rows, or the labels that the loss does not ignore, each with
        the weight of its class."""
        labels = targets.get("labels") if isinstance(targets, Mapping) else targets
        ignored = getattr(self._loss, "ignore_index", -100 if self._loss is None else None)
        if self._sums or ignored is None or not isinstance(labels, Tensor) or labels.is_floating_point():
            return float(count)
        counted, classes = labels[labels != ignored], getattr(self._loss, "weight", None)
        return float(len(counted) if classes is None else classes.to(labels.device)[counted].sum())


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
) -> LoaderTask:
    """A task from what a training script has.

    Data is a :class:`~torch.utils.data.DataLoader`, of which the data set, the batch size and the collation are taken,
    and the rows of a :class:`~torch.utils.data.SubsetRandomSampler`; a sampler that weighs, repeats or orders rows is
    refused. Or it is a data set with a length; or tensors or arrays, in a tuple or a dictionary, with a row for each
    example, the targets last. A single tensor is inputs that are their own targets, as of an autoencoder.

    Batches are full and shuffled anew in every epoch by the task's generator. Data that is the same at every access is
    kept as tensors on the device, up to 2 GiB; a data set with random transforms, or a loader with its own collation
    (padding), makes every batch when it is needed. Where batches differ in their shapes, models are trained one after
    another.

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
        SolError: An argument is of the wrong kind, or the data has no length, no rows, no order, or no targets where
            the loss needs them.

    Example::

        task = from_loaders("digits", lambda: Net(), (images, labels), steps=200, loss_fn=nn.CrossEntropyLoss())
    """
    if not isinstance(name, str):
        raise SolError(f"name, the first argument, must be text, got a {type(name).__name__}")
    if isinstance(model_fn, nn.Module) or not callable(model_fn):
        kind = type(model_fn).__name__
        example = kind if isinstance(model_fn, nn.Module) else "Net"
        raise SolError(f"model_fn must make a fresh model in every call, got a {kind}; pass lambda: {example}(...)")
    numbers = {"steps": steps, "sample": sample, **({} if batch_size is None else {"batch_size": batch_size})}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | numpy.integer) or number < 1:
            raise SolError(f"{key} must be a whole number of at least 1, got {quoted(number)}")
    _require_functions(loss_fn, {} if metrics is None else metrics)
    place = _device(device)
    given = {split: _rows(split, data, place) for split, data in zip(SPLITS, (train, valid, test)) if data is not None}
    if "train" not in given:
        raise SolError("pass training data: a DataLoader, a data set, or tensors")
    bare = [data.shape for data in (train, valid) if isinstance(data, Tensor | numpy.ndarray)]
    if len(bare) == 2 and not _takes_model(loss_fn) and (bare[0][1:] != bare[1][1:] or bare[0][0] == bare[1][0]):
        raise SolError(
            "train and valid are inputs without targets; pass (inputs, targets) as one argument, or (inputs,) as each "
            "if inputs are their own targets"
        )
    batches: Any = train.batch_sampler if isinstance(train, DataLoader) else None
    size = getattr(batches, "batch_size", _BATCH) if batch_size is None else batch_size
    sizes = int(steps), int(size), dict(metrics or {}), place, int(sample)
    return LoaderTask(name, model_fn, _divided(given), loss_fn, *sizes)


def _require_functions(loss_fn: Any, metrics: Any) -> None:
    """Check that the loss and the metrics can be called with outputs and targets."""
    if isinstance(loss_fn, type):
        raise SolError(f"loss_fn must be a function, got the class {loss_fn.__name__}; pass {loss_fn.__name__}()")
    if loss_fn is not None and not callable(loss_fn):
        raise SolError(f"loss_fn must be a function, such as torch.nn.CrossEntropyLoss(), got {quoted(loss_fn)}")
    if isinstance(loss_fn, nn.Module) and trainable(loss_fn):
        names = ", ".join(name for name, parameter in loss_fn.named_parameters() if parameter.requires_grad)
        raise SolError(
            f"loss_fn has trainable parameters ({names}), which would not be trained; keep it in the model, and pass a "
            "loss_fn of (model, batch)"
        )
    if not isinstance(metrics, Mapping):
        raise SolError(f"metrics must be a dictionary from names to functions, got {quoted(metrics)}")
    for name, metric in metrics.items():
        if not isinstance(name, str) or isinstance(metric, type) or not callable(metric):
            fault = f"{quoted(name)}: {quoted(metric)}"
            raise SolError(f"metrics must be names and functions of (outputs, targets), got {fault}")
    if "loss" in metrics:
        raise SolError("metrics must not have the name 'loss', which is that of loss_fn; choose another name")


def _device(device: Any) -> torch.device:
    """The device that is meant.

    Raises:
        SolError: This machine has none of that name.
    """
    try:
        return parse_device(None if device is None else str(torch.device(device)))
    except (SolError, RuntimeError, TypeError):
        count = torch.accelerator.device_count()
        there = ", ".join(["cpu", *(f"{torch.accelerator.current_accelerator()}:{number}" for number in range(count))])
        raise SolError(f"device must be one that this machine has ({there}), got {quoted(device)}") from None


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
        collate, data = data.collate_fn, _drawn(split, data)
    elif isinstance(data, list) and _holds_columns(data):
        data = tuple(data)
    if isinstance(data, str | bytes | Path | type):
        raise SolError(
            f"the {split} data must be tensors, a data set or a DataLoader, got {quoted(data)}; load it first"
        )
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise SolError(
            f"the {split} data has no length or no order ({type(data).__name__}), so it cannot be shuffled; pass a "
            "data set with __len__ and __getitem__, such as a list of its examples"
        )
    if type(data) is TensorDataset and collate is default_collate:
        data = data.tensors
    if isinstance(data, tuple | dict | numpy.ndarray):
        try:
            data = pytree.tree_map(lambda a: torch.as_tensor(a) if isinstance(a, numpy.ndarray) else a, data)
        except TypeError as error:
            raise SolError(f"the arrays of the {split} data must hold numbers: {error}") from None
    leaves = pytree.tree_leaves(data) if isinstance(data, tuple | dict | Tensor) else []
    if leaves and all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
        lengths = sorted({len(leaf) for leaf in leaves})
        if len(lengths) > 1 or not lengths[0]:
            raise SolError(f"the tensors of the {split} data must have as many rows, at least one, got {lengths}")
        return _Tensors(data, device), torch.arange(lengths[0])
    if not isinstance(data, Tensor) and not len(data):
        raise SolError(f"the {split} data is empty")
    if isinstance(data, Tensor | dict) or (isinstance(data, tuple) and len(data) == 2):
        parts = data.values() if isinstance(data, dict) else data if isinstance(data, tuple) else [data]
        kinds = ", ".join(type(part).__name__ if getattr(part, "shape", 1) else "a number" for part in parts)
        raise SolError(f"the {split} data must be tensors or arrays with a row for each example, got {kinds}")
    numbers = torch.arange(len(data))
    if collate is default_collate:
        kept = _kept(split, data)
        if kept is not None:
            return _Tensors(kept, device), numbers
    return _Items(data, collate, device), numbers


def _drawn(split: str, loader: DataLoader[Any]) -> Any:
    """The data set of a loader, or the part of it that the loader's sampler draws.

    Raises:
        SolError: The sampler does not draw each row of such a part once.
    """
    data: Any = loader.dataset
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        return data
    batches: Any = loader.batch_sampler
    sampler: Any = batches.sampler if type(batches) is BatchSampler else None
    drawn: Any = None
    if type(sampler) is SubsetRandomSampler:
        drawn = sampler.indices
    elif type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    ):
        drawn = range(len(sampler.data_source))
    if drawn is None:
        kind = type(batches if sampler is None else sampler).__name__
        what = f"the {'batch_sampler' if sampler is None else 'sampler'} {kind}"
        what += " with replacement or num_samples" if kind == "RandomSampler" else ""
        what = "batch_size=None" if batches is None else what
        raise SolError(
            f"the {split} loader has {what}, but tasks shuffle the rows themselves; pass its data set, a Subset of it, "
            "or a loader of one of them without a sampler"
        )
    if isinstance(drawn, range) and drawn == range(len(data)):
        return data
    rows, count = torch.as_tensor(drawn).tolist(), len(data)
    if not all(-count <= row < count for row in rows) or len({row % count for row in rows}) < len(rows):
        raise SolError(f"the sampler of the {split} loader must draw different rows of the {count} of its data set")
    return TensorDataset(*data[rows]) if type(data) is TensorDataset else Subset(data, rows)


def _holds_columns(data: list[Any]) -> bool:
    """Whether a list holds inputs and targets, and not examples, which are more than two and alike."""
    shapes = [part.shape for part in data if isinstance(part, Tensor | numpy.ndarray) and part.ndim]
    if len(data) == 2:
        return bool(shapes)
    return len(shapes) == len(data) and len({*shapes}) > 1 and len({shape[0] for shape in shapes}) == 1


def _columns(batch: Any) -> str:
    """What a batch consists of, in words."""
    if isinstance(batch, Mapping):
        return "a dictionary"
    count = len(batch) if isinstance(batch, tuple | list) else 1
    return _ONE if count == 1 else f"{count} tensors"


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _kept(split: str, data: Any) -> Any:
    """All examples as tensors; ``None`` if they are random, of several shapes, too large, or hold other values."""
    try:
        first, again = default_collate([data[0]]), default_collate([data[0]])
    except Exception as error:  # of a data set of others
        raise SolError(
            f"cannot make a batch of the {split} data ({_raised(error)}); pass a data set whose examples are tensors, "
            "arrays or numbers, or a DataLoader with a collate_fn"
        ) from error
    pairs = list(zip(pytree.tree_leaves(first), pytree.tree_leaves(again)))
    if not all(isinstance(a, Tensor) and a.ndim and torch.equal(a, b) for a, b in pairs):
        return None
    if len(data) * sum(a.numel() * a.element_size() for a, _ in pairs) > _MEMORY:
        return None
    some = _spread(len(data)).tolist()
    try:
        draws = [default_collate([data[row] for row in some]) for _ in range(3)]  # one that is rare may be missed twice
        if not all(same_values(draws[0], draw) for draw in draws[1:]):
            return None
        kept = default_collate([data[row] for row in range(len(data))])
    except (RuntimeError, TypeError):
        return None
    return dict(kept) if isinstance(kept, Mapping) else kept


def _spread(count: int) -> Tensor:
    """Some of ``count`` places, evenly spread."""
    return torch.linspace(0, count - 1, min(count, _LOOKED_AT), dtype=torch.float64).long()


def _alike(source: _Items, rows: Tensor) -> bool:
    """Whether examples, each in a batch of its own, have the same shapes."""
    shapes = [
        [leaf.shape for leaf in pytree.tree_leaves(source[rows[i : i + 1]]) if isinstance(leaf, Tensor)]
        for i in _spread(len(rows)).tolist()
    ]
    return all(found == shapes[0] for found in shapes)


def _takes_model(loss_fn: Callable[..., Any] | None) -> bool:
    """Whether a loss is one of the model and the batch."""
    try:
        return loss_fn is not None and next(iter(inspect.signature(loss_fn).parameters), None) == "model"
    except (TypeError, ValueError):
        return False


def _twice(batch: Any) -> Sequence[Any]:
    """Inputs that are their own targets, as of an autoencoder."""
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    return inputs, inputs
