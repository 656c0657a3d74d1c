"""The conformance test for task authors: ``check_task(my_task)``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sol_learner.inner.side_by_side import obstacle, seeded
from sol_learner.task import (
    SPLITS,
    Batch,
    Stream,
    Substream,
    Task,
    batch_leaves,
    build_optimizee,
    calling,
    dense,
    draw_batches,
    generator_for,
    measured,
    not_finite,
    prepared,
    require_iterator,
    require_model,
    require_scalar,
    require_task,
    require_training,
    same_value,
    same_values,
    shared,
    shown,
    task_for,
    trainable,
    which_splits,
)
from sol_symbols import SolError

__all__ = ["check_task"]

_NEW = "make a new model in every call"
_SEEDED = "draw the initial weights from it, or use sol_learner.build_seeded(constructor, generator)"


@torch.inference_mode(False)
@torch.enable_grad()
def check_task(task: Task) -> None:
    """Check that ``task`` keeps the promises of :class:`~sol_learner.Task`.

    Builds are fresh and a function of the generator; batches are a function of the generator and keep their shapes;
    losses are finite scalars with gradients, a function of the model, the batch and PyTorch's random numbers, and leave
    the batch alone; the splits' batches differ (or, with ``pool``, the models built over the
    problems of different splits); ``evaluate``, given a model in evaluation mode, reports a finite loss and leaves the
    parameters, buffers and mode of the model alone, and again if it is called again; PyTorch's global settings and
    seed stay as they are; side-by-side training agrees with one at a time; ``project``, if there is one, is idempotent.
    The members of a pool keep the same promises, with the task's horizon.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    try:
        require_task(task)
        if getattr(task, "pool", None) is None:
            _check(task)
        else:
            require_training(task)
            _check(task)
            _check_pool(task)
    except SolError as error:
        raise AssertionError(str(error)) from None


def _check_pool(task: Task) -> None:
    """Check a member of each split, and that the splits are different."""
    problems = {}
    for split, stream in zip(SPLITS, (Stream.TRAIN, Stream.VALID, Stream.EVALUATE)):
        member = task_for(task, stream)
        try:
            _require(
                member.horizon == task.horizon,
                f"its horizon is {member.horizon}, that of {task.name} is {task.horizon}; make them the same",
            )
            require_training(member)
            _check(member)
        except (SolError, AssertionError) as error:
            raise AssertionError(f"pool({split!r}): {error}") from None
        problems[split] = build_optimizee(member, 0, Stream.TRAIN, 0).state_dict()
    _require_different(task, problems, "pool: the problems of")


def _require_different(task: Task, parts: dict[str, Batch], what: str) -> None:
    for left, right in itertools.combinations(() if getattr(task, "single_domain", False) else SPLITS, 2):
        _require(
            not same_values(parts[left], parts[right], unknown=False),
            f"{what} {left!r} and {right!r} are equal; divide the data, "
            "or set single_domain = True if they are meant to be",
        )


def _check(task: Task) -> None:
    with calling(task, "build", seed=True):
        model, again, other = (build_optimizee(task, seed, Stream.TRAIN, 0) for seed in (0, 0, 1))
    for built in (model, again, other):
        require_model(task, built)
    _require(not shared(model, again), f"build: models share parameters; {_NEW}")
    _require(
        torch.equal(_parameters(model), _parameters(again)),
        f"build: the same generator state gives different models; {_SEEDED}",
    )
    _require(not torch.equal(_parameters(model), _parameters(other)), f"build: the generator has no effect; {_SEEDED}")

    first: dict[str, list[Batch]] = {}
    for split in SPLITS:
        first[split] = _take(task, split, 0)
        _require(
            same_values(first[split], _take(task, split, 0)),
            f"batches({split!r}): the same generator gives different streams; draw from it alone",
        )
        leaves = [[leaf for leaf in batch_leaves(batch) if isinstance(leaf, Tensor)] for batch in first[split]]
        nan = any(bool(dense(leaf).isnan().any()) for row in leaves for leaf in row)
        _require(not nan, f"batches({split!r}): a batch holds NaN; clean the data")
        shapes = [[leaf.shape for leaf in row] for row in leaves]
        _require(
            all(shape == shapes[0] for shape in shapes) or not getattr(task, "vectorizable", True),
            f"batches({split!r}): shapes differ between batches; pad them, or set vectorizable = False",
        )
    if getattr(task, "pool", None) is None:
        _require_different(task, first, "batches: the splits")

    with calling(task, "batches('train')", seed=True):
        train = draw_batches(task, "train", 0, Stream.TRAIN, 0)
        count = sum(1 for _ in itertools.islice(train, task.horizon + 1))
    _require(count == task.horizon + 1, f"batches('train') ended after {count}; it must be endless: while True")

    losses, batch = [], first["train"][0]
    for fresh in (model, again):
        with seeded(0), calling(task, "loss", seed=True, advice=lambda: shown(model, batch)):
            losses.append(task.loss(prepared(fresh), batch))
        require_scalar(task, losses[-1])
    loss, once_more = losses
    if not bool(torch.isfinite(loss)):
        _require(False, f"loss = {float(loss.detach())} at the start; {not_finite(batch)}")
    _require(
        bool(torch.isclose(loss, once_more, rtol=1e-3)),
        f"loss: the same weights, batch and random numbers of PyTorch give {float(loss.detach())}, then "
        f"{float(once_more.detach())}; keep no state in the task, and draw from PyTorch's own generator alone",
    )
    latest = prepared(build_optimizee(task, 0, Stream.TRAIN, 0))
    with seeded(0):
        late = task.loss(latest, batch)
    _require(
        bool(torch.isclose(loss, late, rtol=1e-3)),
        f"loss: a model has the loss {float(late.detach())}, and {float(loss.detach())} after another one was built; "
        "take parameters from the model that loss gets, and keep none in the task",
    )
    gradients = torch.autograd.grad(loss, trainable(model), allow_unused=True, materialize_grads=True)
    _require(
        any(bool((g != 0).any()) for g in gradients),
        "every gradient is zero at the start; start elsewhere",
    )

    before = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    for split in SPLITS:
        with calling(task, f"evaluate({split!r})", seed=True, advice=which_splits):
            metrics = measured(task, model, split)
        _require(math.isfinite(metrics["loss"]), f"evaluate({split!r}): loss = {metrics['loss']}; {_GAPS}")
    with calling(task, f"evaluate({SPLITS[-1]!r})", seed=True):
        first_loss, second_loss = metrics["loss"], measured(task, model, SPLITS[-1])["loss"]
    _require(
        math.isclose(first_loss, second_loss, rel_tol=1e-3, abs_tol=1e-6),
        f"evaluate({SPLITS[-1]!r}): loss = {first_loss}, then {second_loss} at a second call; measure the whole split, "
        "or the same rows in every call, leave the data as it is, and give F.dropout training=self.training",
    )
    changed = [name for name, tensor in _tensors(model) if not same_value(before[name], tensor.detach())]
    _require(not changed, f"evaluate changes the model: {', '.join(changed)}; leave it as it is")

    fault = obstacle(task) if getattr(task, "vectorizable", True) else None
    _require(fault is None or not fault.broken, f"{fault.reason if fault else ''}; set vectorizable = False")

    project = getattr(task, "project", None)
    if project is not None:
        with calling(task, "project"), torch.no_grad():
            project(model)
            once = _parameters(model).clone()
            project(model)
        _require(
            torch.allclose(once, _parameters(model)),
            "project: a second call moves the parameters again; project once",
        )


_GAPS = "a row of the data may hold NaN or infinity, or an empty label"


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad] or [torch.empty(0)])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _take(task: Task, split: str, seed: int, count: int = 3) -> list[Batch]:
    generator = generator_for(seed, Stream.TRAIN, 0, Substream.BATCHES)  # the same numbers for every split
    with calling(task, f"batches({split!r})", seed=True, advice=which_splits):
        stream = task.batches(split, generator)
        require_iterator(task, stream)
        batches = list(itertools.islice(stream, count))
    _require(len(batches) == count, f"batches({split!r}) ended after {len(batches)}; it must be endless: while True")
    return batches
