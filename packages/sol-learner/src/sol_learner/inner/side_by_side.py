"""Losses of several models in one evaluation, and the test that this gives what one model after another gives."""

from __future__ import annotations

import inspect
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from sol_learner.task import (
    Batch,
    Stream,
    Task,
    build_optimizee,
    draw_batches,
    prepared,
    same_value,
    task_for,
    trainable,
)
from sol_symbols import SolError

__all__ = [
    "LossFunction",
    "Obstacle",
    "SideBySide",
    "flat",
    "obstacle",
    "one_step",
    "require_alike",
    "seeded",
    "turn",
    "vectorizes",
]


turn = threading.Lock()
"""Held by the thread that uses PyTorch's own random numbers, of which a process has one stream."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of layers (dropout) from ``seed``; the caller's stream continues afterwards as if unused."""
    cuda = torch.cuda.is_available()
    with turn:
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


def flat(model: nn.Module) -> Tensor:
    """The trainable parameters as one row, in float32, or float64 if one of them has that type."""
    parameters = [parameter.detach() for parameter in trainable(model)]
    dtype = torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return torch.cat([parameter.reshape(-1).to(dtype) for parameter in parameters])


class _Loss(nn.Module):
    """``task.loss`` as a module with the model as its only part, even if the task is a module, too."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.call, self.model = task.loss, model

    def forward(self, batch: Batch) -> Tensor:
        return self.call(self.model, batch)


class LossFunction:
    """``task.loss`` of a model as a function of the trainable parameters, and of other tensors of the model."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        self._module = _Loss(task, model)
        self.parameters = trainable(model)
        number = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        # Each module once, with all its parameters: a layer may have two names, and a parameter two layers.
        tensors = [
            (f"{prefix}.{name}", tensor)
            for prefix, module in self._module.named_modules()
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        ]
        self._names = [(name, number[id(tensor)]) for name, tensor in tensors if id(tensor) in number]
        self.others = {name: tensor for name, tensor in tensors if id(tensor) not in number}

    def __call__(self, values: Sequence[Tensor], others: dict[str, Tensor], batch: Batch) -> Tensor:
        """The loss at ``values`` of :attr:`parameters`, which are given their types, and of some of :attr:`others`."""
        typed = [value.to(parameter.dtype) for value, parameter in zip(values, self.parameters)]
        tensors = {name: typed[index] for name, index in self._names}
        return torch.func.functional_call(self._module, {**tensors, **others}, (batch,), tie_weights=False)


def require_alike(task: Task, models: Sequence[nn.Module]) -> None:
    """Check that the trainable parameters of models have the same names and shapes.

    Raises:
        SolError: They do not.
    """
    named = [[(n, p.shape) for n, p in model.named_parameters() if p.requires_grad] for model in models]
    if any(rows != named[0] for rows in named):
        raise SolError(
            f"models of {task.name} differ in the names or shapes of their trainable parameters: build the same ones "
            "in every call, or train one at a time (vectorizable = False, meta_batch = 1)"
        )


class SideBySide:
    """Losses of models of one task that differ in their tensors alone.

    Frozen parameters and buffers that differ between the models stay those of each.

    Args:
        task: The task.
        models: A model of each episode, S of them.
        candidates: Models of each episode, C, which share its batches and masks.
        randomness: ``different`` random numbers of layers in each episode, or the ``same``.

    Raises:
        SolError: Tensors of one name have different shapes.
    """

    def __init__(self, task: Task, models: Sequence[nn.Module], candidates: int, randomness: str = "different") -> None:
        self._task, self.template, self._candidates = task, models[0], candidates
        self._function = LossFunction(task, models[0])
        require_alike(task, models)
        columns = zip(*(LossFunction(task, model).others.items() for model in models))
        self._others: dict[str, Tensor] = {}
        for column in columns:
            name, tensors = column[0][0], [tensor for _, tensor in column]
            if len({tensor.shape for tensor in tensors}) > 1:
                raise SolError(f"models of {task.name} differ in the shape of {name.removeprefix('model.')}{_ADVICE}")
            if not all(same_value(tensor.detach(), tensors[0].detach()) for tensor in tensors):
                self._others[name] = torch.stack([tensor.detach() for tensor in tensors])
        self._stacked: dict[object, list[Tensor]] = {}
        self._randomness, self._nests = randomness, candidates > 1

    def load(self, episode: int) -> nn.Module:
        """The template with the frozen parameters and buffers of an episode."""
        for name, column in self._others.items():
            self._function.others[name].data = column[episode]
        return self.template

    def losses(
        self,
        values: Sequence[Tensor],
        batches: list[Batch],
        seed: int,
        casting: torch.autocast | None = None,
        reuse: bool = False,
    ) -> Tensor:
        """Losses [C, S] at ``values``, a tensor [C, S, ...] of each parameter, on a batch of each episode.

        With ``reuse``, the next call overwrites the stacked batches, so that gradients have to be taken before it.

        Raises:
            SolError: Batches differ in their shapes or structure, or the loss fails where models are stacked.
        """
        leaves, structures = map(list, zip(*(pytree.tree_flatten(batch) for batch in batches)))
        for s, structure in enumerate(structures):
            if structure != structures[0]:  # dictionaries may be in another order
                try:
                    leaves[s] = structures[0].flatten_up_to(batches[s])
                except ValueError:
                    raise SolError(f"batches of {self._task.name} differ in their structure{_ADVICE}") from None
        kept = [isinstance(leaf, Tensor) for leaf in leaves[0]]

        def one(values: list[Tensor], others: dict[str, Tensor], tensors: list[Tensor]) -> Tensor:
            rest = iter(tensors)
            whole = [next(rest) if tensor else leaf for leaf, tensor in zip(leaves[0], kept)]
            return self._function(values, others, pytree.tree_unflatten(whole, structures[0]))

        mapped = torch.vmap(one, randomness=self._randomness)
        tensors = self._stack([[leaf for leaf, tensor in zip(row, kept) if tensor] for row in leaves], reuse)
        context = casting or torch.autocast("cpu", enabled=False)
        if self._nests:
            both = torch.vmap(mapped, in_dims=(0, None, None), randomness="same")
            try:
                with seeded(seed), context, _without_advice():
                    return both(list(values), self._others, tensors)
            except Exception:  # PyTorch maps some functions once, but not twice; if it is the task's, it comes again
                self._nests = False
        rows = []
        try:
            for c in range(self._candidates):
                with seeded(seed), context, _without_advice():
                    own = [value.squeeze(0) if self._candidates == 1 else value[c] for value in values]
                    rows.append(mapped(own, self._others, tensors))
        except SolError:
            raise
        except Exception as error:  # of the task's code or of PyTorch, perhaps not at the first step
            first = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise SolError(f"the loss of {self._task.name} fails under torch.vmap: {first}{_ADVICE}") from error
        return torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)

    def _stack(self, rows: list[list[Tensor]], reuse: bool) -> list[Tensor]:
        columns = list(zip(*rows))
        if any(tensor.shape != column[0].shape for column in columns for tensor in column):
            raise SolError(f"batches of {self._task.name} differ in their shapes{_ADVICE}")
        if not reuse or any(tensor.requires_grad for column in columns for tensor in column):
            return [torch.stack(column) for column in columns]
        # Fresh memory of this size would cause page faults at every step.
        key = tuple((column[0].shape, column[0].dtype) for column in columns)
        if key not in self._stacked:
            self._stacked[key] = [column[0].new_empty((len(column), *column[0].shape)) for column in columns]
        return [torch.stack(column, out=buffer) for column, buffer in zip(columns, self._stacked[key])]


_ADVICE = "; set vectorizable = False"


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without PyTorch's warning, at every step, that it maps a function by a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


@dataclass(frozen=True)
class Obstacle:
    """Why models of a task are trained one after another.

    Attributes:
        reason: What stands in the way.
        broken: Whether the loss breaks the promise that it can be mapped, rather than never having made it.
    """

    reason: str
    broken: bool = False


_IGNORED = ("padding_idx", "max_norm")

_known: dict[int, tuple[weakref.ref[Any], Obstacle | None]] = {}
"""What :func:`obstacle` found for tasks, by their identity."""


def vectorizes(task: Task) -> bool:
    """Whether models of the task are trained side by side: the task allows it, and nothing stands in the way."""
    return bool(getattr(task, "vectorizable", True)) and obstacle(task) is None


def obstacle(task: Task) -> Obstacle | None:
    """What keeps models of the task from being trained side by side, by a test of one step; ``None`` for nothing.

    Two models take the step side by side, and one after the other with the same random numbers. Losses and gradients
    have to agree. A task is tested once; its ``vectorizable`` is not asked.
    """
    found = _known.get(id(task))
    if found is not None and found[0]() is task:
        return found[1]
    with torch.enable_grad():
        result = _tested(task_for(task, Stream.TRAIN))
    try:
        key = id(task)
        _known[key] = (weakref.ref(task, lambda _: _known.pop(key, None)), result)
    except TypeError:  # an object without weak references
        pass
    return result


def _tested(task: Task) -> Obstacle | None:
    batches = [next(draw_batches(task, "train", 0, Stream.TRAIN, episode)) for episode in (0, 1)]
    models = _built(task)
    leaves = pytree.tree_leaves(batches)
    odd = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor | None)]
    if odd:
        return Obstacle(f"a batch holds values that are no tensors ({odd[0]})")
    if any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in leaves):
        return Obstacle("a batch holds sparse tensors")
    for name in _IGNORED:
        if any(getattr(module, name, None) is not None for module in models[0].modules()):
            return Obstacle(f"torch.vmap ignores the {name} of embeddings")
    rows = [[(name, p.shape, p.dtype) for name, p in model.named_parameters()] for model in models]
    if rows[0] != rows[1]:
        return Obstacle("models differ in the shapes of their parameters")
    others = [*models[0].named_buffers(), *((n, p) for n, p in models[0].named_parameters() if not p.requires_grad)]
    before = [tensor.detach().clone() for _, tensor in others]
    alone = [one_step(task, model, batch) for model, batch in zip(models, batches)]
    changed = [name for old, (name, new) in zip(before, others) if not same_value(old, new.detach())]
    if changed:
        return Obstacle(f"training changes tensors of a model that are not trained ({', '.join(changed[:3])})")
    if alone[0].ignored:
        return Obstacle(f"torch.vmap ignores the {alone[0].ignored} of embeddings")
    masked = not torch.equal(alone[0].loss, one_step(task, models[0], batches[0], 1).loss)
    if not (masked and trainable(models[0])[0].is_cuda):
        found = _compared(task, batches, alone)
        if found is None or not masked:
            return found
    # Masks follow the order in memory, which vmap may change, and CUDA draws others for stacked tensors: without masks.
    alone = [one_step(task, model, batch) for model, batch in zip(_unmasked(task, batches), batches)]
    return _compared(task, batches, alone, masks=False)


def _unmasked(task: Task, batches: list[Batch]) -> list[nn.Module]:
    """Models without dropout: in evaluation mode only if their loss is random all the same."""

    def built() -> list[nn.Module]:
        models = _built(task)
        for module in (module for model in models for module in model.modules()):
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):  # of attention and recurrent layers
                setattr(module, "dropout", 0.0)  # noqa: B010  (types of attributes of modules are not known)
        return models

    first, second = (one_step(task, built()[0], batches[0], seed).loss for seed in (0, 1))
    return built() if torch.equal(first, second) else [model.eval() for model in _built(task)]


def _compared(task: Task, batches: list[Batch], alone: Sequence[Step], masks: bool = True) -> Obstacle | None:
    """The obstacle if two models side by side do not take the steps that they took alone, with dropout or without."""
    models = _built(task)  # as before the step, also in what they keep beside tensors
    values = [torch.stack([a.detach(), b.detach()])[None].requires_grad_() for a, b in zip(*map(trainable, models))]
    try:
        together = SideBySide(task, models, 2)  # as in training, with different masks, and what the first call left
        for _ in range(2):
            together.losses([value.expand(2, *value.shape[1:]) for value in values], batches, seed=0)
        with torch.no_grad():
            task.loss(together.load(0), batches[0])
        models = _built(task) if masks else _unmasked(task, batches)
        losses = SideBySide(task, models, 1, "same").losses(values, batches, seed=0)
        gradients = torch.autograd.grad(losses.sum(), values, allow_unused=True, materialize_grads=True)
    except Exception as error:  # of the task's code or of PyTorch
        known = isinstance(error, SolError)
        first = "" if known else f"after the loss was mapped, the task raised {type(error).__name__}: "
        return Obstacle(first + str(error).strip().partition("\n")[0].removesuffix(_ADVICE), broken=True)
    for s, step in enumerate(alone):
        if not step.agrees(losses[0, s], [gradient[0, s] for gradient in gradients]):
            return Obstacle("losses or gradients under torch.vmap differ from those of a model alone", broken=True)
    return None


def _built(task: Task) -> list[nn.Module]:
    with seeded(0):
        return [prepared(build_optimizee(task, 0, Stream.TRAIN, episode)) for episode in (0, 1)]


class _Types(TorchFunctionMode):
    """Collects the floating types of what functions return, and options of embeddings that ``torch.vmap`` ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.ignored = {torch.float32}, ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.functional.embedding, nn.functional.embedding_bag):
            given = inspect.signature(func).bind(*args, **(kwargs or {})).arguments
            self.ignored = next((name for name in _IGNORED if given.get(name) is not None), self.ignored)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.found.add(result.dtype)
        return result


@dataclass(frozen=True)
class Step:
    """The loss and the gradients of a model alone, the relative error of the types that it computes in, and an option
    of embeddings that ``torch.vmap`` ignores."""

    loss: Tensor
    gradients: list[Tensor]
    error: float
    ignored: str = ""

    def agrees(self, loss: Tensor, gradients: Sequence[Tensor]) -> bool:
        """Whether the others are the same up to rounding."""
        most = max((float(own.abs().max()) for own in self.gradients if own.numel()), default=0.0)
        return self._near(loss, self.loss, 0.0) and all(
            self._near(gradient, own, most) for gradient, own in zip(gradients, self.gradients)
        )

    def _near(self, found: Tensor, own: Tensor, most: float) -> bool:
        if not own.numel() or not bool(own.isfinite().all()):
            return True  # a loss that is not finite is another fault
        difference = float((found.detach().double() - own.double()).abs().max())
        return difference <= self.error * float(own.abs().max()) + 1e-6 * most


def one_step(task: Task, model: nn.Module, batch: Batch, seed: int = 0) -> Step:
    """A step of a model alone, with random numbers of layers from ``seed``."""
    parameters = trainable(model)
    with seeded(seed), _Types() as types:
        loss = task.loss(model, batch)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    lowest = [torch.finfo(dtype).eps for dtype in types.found | {parameter.dtype for parameter in parameters}]
    return Step(loss.detach(), list(gradients), max(3e-4, *(8 * eps for eps in lowest)), types.ignored)
