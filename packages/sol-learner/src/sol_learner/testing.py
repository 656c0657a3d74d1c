"""The conformance test for task authors: ``check_task(my_task)``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sol_learner.inner.optimizees import Optimizees, vectorizes
from sol_learner.task import (
    SPLITS,
    Batch,
    Stream,
    Substream,
    Task,
    build_optimizee,
    draw_batches,
    generator_for,
    require_task,
)
from sol_symbols import SolError

__all__ = ["check_task"]


def check_task(task: Task) -> None:
    """Check that ``task`` keeps the promises of :class:`~sol_learner.Task`.

    Builds are fresh and a function of the generator; batches are a function of the generator and keep their shapes;
    losses are finite scalars with gradients; the splits' batches differ (or, with ``pool``, the models built over the
    problems of different splits); ``evaluate``, given a model in evaluation mode, reports a finite loss and leaves the
    parameters, buffers and mode of the model alone; side-by-side training agrees with one at a time; ``project``, if
    there is one, is idempotent.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    try:
        require_task(task)
    except SolError as error:
        raise AssertionError(str(error)) from None

    model, again, other = (build_optimizee(task, seed, Stream.TRAIN, 0) for seed in (0, 0, 1))
    _require({*map(id, model.parameters())}.isdisjoint(map(id, again.parameters())), "build: models share parameters")
    _require(
        torch.equal(_parameters(model), _parameters(again)), "build: the same generator state gives different models"
    )
    _require(not torch.equal(_parameters(model), _parameters(other)), "build: the generator has no effect")

    first: dict[str, list[Batch]] = {}
    for split in SPLITS:
        first[split] = _take(task, split, 0)
        _require(
            _same(first[split], _take(task, split, 0)),
            f"batches({split!r}): the same generator gives different streams",
        )
        shapes = [[leaf.shape for leaf in pytree.tree_leaves(batch)] for batch in first[split]]
        _require(all(shape == shapes[0] for shape in shapes), f"batches({split!r}): shapes differ between batches")
    pool, parts = getattr(task, "pool", None), first
    if pool is not None:
        parts = {split: [build_optimizee(pool(split), 0, Stream.TRAIN, 0).state_dict()] for split in SPLITS}
    for left, right in itertools.combinations(SPLITS, 2):
        _require(not _same(parts[left], parts[right]), f"batches: the splits {left!r} and {right!r} are equal")

    train = draw_batches(task, "train", 0, Stream.TRAIN, 0)
    count = sum(1 for _ in itertools.islice(train, task.horizon + 1))
    _require(count == task.horizon + 1, f"batches('train') ended after {count}; it must be endless")

    loss = task.loss(model, first["train"][0])
    _require(bool(torch.isfinite(loss)), f"loss = {float(loss.detach())} at the start")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, trainable)
    _require(any(bool((g != 0).any()) for g in gradients), "every gradient is zero at the start")

    model.eval()
    before = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    for split in SPLITS:
        with torch.no_grad():
            metrics = task.evaluate(model, split)
        _require(isinstance(metrics, dict) and "loss" in metrics, f"evaluate({split!r}) has no 'loss'")
        _require(all(isinstance(v, float) for v in metrics.values()), f"evaluate({split!r}): a metric is not a float")
        _require(math.isfinite(metrics["loss"]), f"evaluate({split!r}): loss = {metrics['loss']}")
    changed = [name for name, tensor in _tensors(model) if not torch.equal(before[name], tensor)]
    _require(not changed, f"evaluate changes the model: {', '.join(changed)}")
    _require(not any(module.training for module in model.modules()), "evaluate changes the model: its training mode")
    model.train()

    both = Optimizees(task, 0, Stream.TRAIN, range(2))
    if not vectorizes(task, model) or torch.equal(loss, task.loss(model, first["train"][0])):  # else dropout differs
        single = [Optimizees(task, 0, Stream.TRAIN, [index]).losses_and_gradients()[1][0, 0] for index in range(2)]
        try:
            together = both.losses_and_gradients()[1][0]
        except RuntimeError as error:
            raise AssertionError(f"the loss fails under torch.vmap; set vectorizable = False: {error}") from error
        _require(
            torch.allclose(together, torch.stack(single), rtol=1e-3, atol=1e-6),
            "gradients under torch.vmap differ; set vectorizable = False",
        )

    project = getattr(task, "project", None)
    if project is not None:
        project(model)
        once = _parameters(model).clone()
        project(model)
        _require(torch.allclose(once, _parameters(model)), "project: a second call moves the parameters again")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad] or [torch.empty(0)])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _take(task: Task, split: str, seed: int, count: int = 3) -> list[Batch]:
    generator = generator_for(seed, Stream.TRAIN, 0, Substream.BATCHES)  # the same numbers for every split
    batches = list(itertools.islice(task.batches(split, generator), count))
    _require(len(batches) == count, f"batches({split!r}) ended after {len(batches)}; it must be endless")
    return batches


def _same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = zip(pytree.tree_leaves(left), pytree.tree_leaves(right))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
