"""What a task is, and the random streams that separate its uses."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import numbers
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum, unique
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sol_symbols import SolError
from sol_symbols.errors import quoted

__all__ = [
    "SPLITS",
    "Batch",
    "Purpose",
    "Stream",
    "Substream",
    "Task",
    "batch_leaves",
    "build_optimizee",
    "build_seeded",
    "calling",
    "dense",
    "device_of",
    "draw_batches",
    "generator_for",
    "measured",
    "not_finite",
    "prepared",
    "require_iterator",
    "require_model",
    "require_scalar",
    "require_task",
    "require_training",
    "same_value",
    "same_values",
    "shared",
    "shown",
    "task_for",
    "trainable",
    "which_splits",
    "with_horizon",
]

Batch = Any
"""A pytree of tensors (a tensor, a tuple, a dict, ...), the same structure and shapes at every step.

Other values in it are carried along, and shapes may differ, where models are trained one after another.
"""

SPLITS = ("train", "valid", "test")


@runtime_checkable
class Task(Protocol):
    """Something to train again and again: a model, its data and its loss.

    Any object with these members is a task; no base class is needed. Six optional members are used where present:
    ``vectorizable: bool`` (default true) says whether the loss may be mapped over stacked parameters by
    :func:`torch.vmap`; ``unroll: int`` is the window of meta-training that suits the task (default 20);
    ``project(model)`` is called after every inner step and moves the parameters back into their constraint set;
    ``pool(split)`` is for tasks where every episode is a separate problem, such as the images under attack, and returns
    the same task over the problems of a split (see :func:`task_for`); ``single_domain = True`` says that the splits are
    meant to be the same data, as for the points of an equation or a function with a known optimum;
    ``priors: Sequence[str]`` are zoo rules that suit the task, which are tried before those for networks.
    """

    name: str
    """Short and unique; the name for ``sol learn``."""

    horizon: int
    """Inner steps of one episode, T."""

    def build(self, generator: torch.Generator) -> nn.Module:
        """A fresh optimizee on the task's device, a function of ``generator``'s state alone."""

    def batches(self, split: str, generator: torch.Generator) -> Iterator[Batch]:
        """An endless stream of batches of a split (``train``, ``valid`` or ``test``)."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar to be minimised."""

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Metrics over a whole split; ``loss`` is always among them."""


@unique
class Stream(IntEnum):
    """The purpose of random numbers. Different streams never share an episode."""

    TUNE = 0
    """Choosing the learning rates of baselines."""
    TRAIN = 1
    """Meta-training and polishing."""
    VALID = 2
    """Keeping the best, choosing on the front."""
    EVALUATE = 3
    """The reported comparison; nothing is ever chosen on it."""


Purpose = Stream
"""Earlier name of :class:`Stream`."""


@unique
class Substream(IntEnum):
    """What the random numbers of one episode are for. Each member has one use: two uses would draw the same numbers."""

    MODEL = 0
    """Initial parameters of the optimizee."""
    BATCHES = 1
    """Batches of the split train."""
    META_TRAINING = 2
    """Coordinates, perturbations and gates that meta-training samples; one stream for the whole run."""
    NETWORK = 3
    """Initial weights of the network that is meta-trained."""
    LAYERS = 4
    """Random numbers of layers: dropout masks."""
    SCALES = 5
    """Random scaling of parameters."""
    OUTER_BATCHES = 6
    """Batches of the other splits, for outer losses."""
    RECORDING = 7
    """Coordinates that are recorded."""
    TASK = 8
    """The task that an episode draws from a mixture."""
    REFERENCE = 9
    """A reference training."""


_POOLS = {Stream.TUNE: "train", Stream.TRAIN: "train", Stream.VALID: "valid", Stream.EVALUATE: "test"}


def task_for(task: Task, stream: Stream) -> Task:
    """The task that a stream's episodes are drawn from: ``task.pool(split)`` if it has a pool, else ``task``.

    Tuning and training draw problems from the split ``train``, selection from ``valid``, the comparison from ``test``.

    Raises:
        SolError: ``pool`` fails or returns no task.
    """
    pool = getattr(task, "pool", None)
    if pool is None:
        return task
    with calling(task, "pool", advice=which_splits):
        member = pool(_POOLS[stream])
    made = f"the class {member.__name__}" if isinstance(member, type) else type(member).__name__
    if isinstance(member, type) or not isinstance(member, Task):
        raise SolError(f"pool of {task.name} must return a task, got {made}")
    return member


def device_of(task: Task) -> torch.device:
    """Where the task's optimizees live."""
    return next(task.build(torch.Generator().manual_seed(0)).parameters()).device


def with_horizon(task: Task, steps: int) -> Task:
    """The same task over ``steps`` inner steps.

    Raises:
        SolError: Its horizon cannot be set.
    """
    other = copy.copy(task)
    try:
        other.horizon = steps
    except AttributeError:
        raise SolError(f"cannot set the horizon of {task.name}, which is {task.horizon} steps") from None
    return other


def generator_for(seed: int, stream: Stream, episode: int, substream: Substream) -> torch.Generator:
    """The CPU generator of one use of random numbers in one episode of a stream."""
    words = numpy.random.SeedSequence([seed, int(stream), episode, int(substream)]).generate_state(2, numpy.uint64)
    return torch.Generator().manual_seed(int(words[0] >> 1))


def build_optimizee(task: Task, seed: int, stream: Stream, episode: int) -> nn.Module:
    """The model that an episode starts with."""
    return task.build(generator_for(seed, stream, episode, Substream.MODEL))


def draw_batches(task: Task, split: str, seed: int, stream: Stream, episode: int) -> Iterator[Batch]:
    """The batches of an episode."""
    substream = Substream.BATCHES if split == "train" else Substream.OUTER_BATCHES
    return task.batches(split, generator_for(seed, stream, episode, substream))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def prepared(model: nn.Module) -> nn.Module:
    """A fresh model as it is trained: in training mode, but for parts that ``build`` has put into evaluation mode.

    A model that is in evaluation mode as a whole, as pretrained ones are, is put into training mode as a whole.
    """
    return model if any(module.training for module in model.modules()) else model.train()


def measured(task: Task, model: nn.Module, split: str) -> dict[str, float]:
    """``task.evaluate`` of a model in evaluation mode, as floats; the modes of its parts are restored afterwards.

    There are no gradients, unless ``evaluate`` needs them, as for the residual of a differential equation.

    Raises:
        SolError: It returns no dict with a loss, or a metric that is no number.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        try:
            with torch.no_grad():
                values = task.evaluate(model, split)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            with torch.enable_grad():
                values = task.evaluate(model, split)
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(values, Mapping) or "loss" not in values:
        raise SolError(f"evaluate of {task.name} must return a dict of metrics with a loss, got {quoted(values)}")
    return {name: _number(task, name, value) for name, value in values.items()}


def _number(task: Task, name: str, value: object) -> float:
    if isinstance(value, Tensor | numpy.ndarray | numpy.generic) and value.shape in ((), (1,)):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise SolError(f"evaluate of {task.name} must return numbers, got {name} = {quoted(value)}")
    return float(value)


def batch_leaves(batch: Batch) -> list[Any]:
    """The values in a batch, those of mappings by their sorted keys.

    Also in what PyTorch does not know: mappings such as the BatchEncoding of a tokenizer, and objects with attributes,
    such as a graph of PyTorch Geometric.
    """
    return _leaves(batch, ())


def _leaves(part: Any, around: tuple[int, ...]) -> list[Any]:
    """The values of a part of a batch; ``around`` are the objects that hold it, which it may hold again."""
    if id(part) in around:
        return []
    within = (*around, id(part))
    if isinstance(part, Mapping):
        return [leaf for key in sorted(part, key=str) for leaf in _leaves(part[key], within)]
    if isinstance(part, tuple | list):
        return [leaf for item in part for leaf in _leaves(item, within)]
    leaves = pytree.tree_leaves(part)
    if len(leaves) == 1 and leaves[0] is part:
        inner = _attributes(part)
        return leaves if inner is None else _leaves(inner, within)
    return _leaves(leaves, within)


def _attributes(part: Any) -> Mapping[str, Any] | None:
    """The values of an object that holds some of a batch; ``None`` for others."""
    if isinstance(part, (*_COMPARED, nn.Module, type)) or inspect.isroutine(part):
        return None
    own = getattr(part, "__dict__", {})
    with contextlib.suppress(Exception):  # a method of others
        own = part.to_dict() if callable(getattr(part, "to_dict", None)) else own
    held = isinstance(own, Mapping) and any(isinstance(value, Tensor | numpy.ndarray) for value in own.values())
    return own if held else None


def same_values(left: Batch, right: Batch, unknown: bool = True) -> bool:
    """Whether all values of two batches that can be compared are equal: tensors, arrays, numbers and text.

    ``unknown`` is the answer if there are none.
    """
    leaves = batch_leaves(left), batch_leaves(right)
    pairs = [pair for pair in zip(*leaves) if isinstance(pair[0], _COMPARED)]
    if not pairs:
        return unknown
    return len(leaves[0]) == len(leaves[1]) and all(a is b or same_value(a, b) for a, b in pairs)


_COMPARED = (Tensor, numpy.ndarray, numpy.generic, int, float, str, bytes)


def dense(tensor: Tensor) -> Tensor:
    """A tensor of any layout and type as one that PyTorch can compare and search."""
    if tensor.is_nested:
        parts = [part.reshape(-1) for part in tensor.unbind()]
        tensor = torch.cat(parts) if parts else torch.empty(0)
    tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return tensor.float() if small else tensor


def same_value(left: Any, right: Any) -> bool:
    """Whether two tensors, of any layout, arrays, numbers or texts are equal, NaN included."""
    if not isinstance(left, Tensor):
        return type(left) is type(right) and bool(numpy.array_equal(left, right))
    if not isinstance(right, Tensor) or left.dtype != right.dtype or left.is_nested != right.is_nested:
        return False
    left, right = dense(left), dense(right)
    return left.shape == right.shape and torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)


def _copied(batch: Batch) -> list[Any]:
    """The values of a batch, as they are now."""
    leaves = batch_leaves(batch)
    return [leaf.detach().clone() if isinstance(leaf, Tensor) else copy.copy(leaf) for leaf in leaves]


@contextlib.contextmanager
def calling(task: Task, member: str, seed: bool = False, advice: Callable[[], str] = str) -> Iterator[None]:
    """Call a member of a task: what it raises becomes a message that names the place in its file, and PyTorch's global
    settings, and with ``seed`` its seed, have to stay as they are.

    Raises:
        SolError: One of these. Settings are set back.
    """

    def settings() -> dict[str, Any]:
        found = {
            "default dtype": torch.get_default_dtype(),
            "default device": torch.get_default_device(),
            "gradient mode": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "autocast on cpu": torch.is_autocast_enabled("cpu"),
            "autocast on cuda": torch.is_autocast_enabled("cuda"),
        }
        return found | ({"seed": torch.initial_seed()} if seed else {})

    before = settings()
    try:
        yield
    except SolError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raised = type(error).__name__ + (f": {first}" if first else "")
        remark = advice()
        place = f"{member} of {task.name} raised {raised} ({_place(task, error)})"
        raise SolError(place + (f"; {remark}" if remark else "")) from error
    changed = {name: value for name, value in settings().items() if value != before[name]}
    if "default dtype" in changed:
        torch.set_default_dtype(before["default dtype"])
    if "default device" in changed:
        torch.set_default_device(before["default device"])
    if "gradient mode" in changed:
        torch.set_grad_enabled(before["gradient mode"])
    for device in ("cpu", "cuda"):
        if f"autocast on {device}" in changed:
            torch.set_autocast_enabled(device, before[f"autocast on {device}"])
    for name, value in changed.items():
        raise SolError(
            f"{member} of {task.name} leaves PyTorch's {name} at {value}, which was {before[name]}; set it back before "
            "every return and yield" + (", or draw from the generator that it gets" if name == "seed" else "")
        )


def _place(task: Task, error: Exception) -> str:
    """The line of the task's own file in which an error was raised, or the innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        own = inspect.getsourcefile(type(task))
    except TypeError:  # a class without a file, as in a notebook
        own = None
    frame = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def which_splits() -> str:
    """Advice for members that get the name of a split."""
    return f"the splits are {', '.join(map(repr, SPLITS))}"


def shown(model: nn.Module, batch: Batch) -> str:
    """What a model and a batch are, for an error of the loss."""

    def described(leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return type(leaf).__name__
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)} on {leaf.device}"

    first = trainable(model)[0]
    leaves = [described(leaf) for leaf in batch_leaves(batch)]
    more = ["..."] if len(leaves) > _SHOWN else []
    return f"the model is {str(first.dtype).removeprefix('torch.')} on {first.device}, the batch holds " + (
        ", ".join(leaves[:_SHOWN] + more) or "nothing"
    )


_SHOWN = 6

_ARGUMENTS = {
    "build": ("generator",),
    "batches": ("split", "generator"),
    "loss": ("model", "batch"),
    "evaluate": ("model", "split"),
}


def _loss_fault(loss: object) -> str:
    """What is wrong with a value that ``loss`` returned; nothing if it is a scalar tensor."""
    if isinstance(loss, Tensor):
        shape = f"a tensor of shape {tuple(loss.shape)}; take its mean"
        return shape if loss.shape != () else ""
    if isinstance(loss, float):
        return f"{loss!r}; return the tensor, without .item() or float()"
    if isinstance(getattr(loss, "loss", None), Tensor):
        return f"{type(loss).__name__}; return its .loss"
    if loss is None:
        return "None; does it lack a return?"
    return f"{type(loss).__name__}; return the loss alone"


_PATIENCE = 20  # steps in which a parameter may be skipped, as by LayerDrop, before it counts as unused


def require_task(task: object) -> None:
    """Check a task with one model and one batch, before any other work.

    It needs all members, a name that can be a file name, models with parameters, a stream of batches of their own
    tensors, and a scalar loss that depends on every parameter and leaves the batch alone; PyTorch's global settings
    stay as they are. :func:`sol_learner.testing.check_task` checks all promises.

    Raises:
        SolError: One of these does not hold; the message says which.
    """
    if isinstance(task, type):
        raise SolError(f"not a task: {task.__name__} is a class; pass an object, {task.__name__}(...)")
    absent = [name for name in ("name", "horizon", "build", "batches", "loss", "evaluate") if not hasattr(task, name)]
    _require(not absent, f"{type(task).__name__} has no {', '.join(absent)}")
    assert isinstance(task, Task)
    _require(
        isinstance(task.name, str) and bool(re.fullmatch(r"[^/\\\0]+", task.name)),
        f"name must be text without slashes, got {task.name!r}",
    )
    for name, steps in (("horizon", task.horizon), ("unroll", getattr(task, "unroll", 1))):
        _require(
            isinstance(steps, int) and steps >= 1,
            f"{name} of {task.name} must be a number of steps, got {steps!r}",
        )
    for name, arguments in _ARGUMENTS.items():
        signature = _signature(getattr(task, name))
        try:
            if signature is not None:
                signature.bind(*arguments)
        except TypeError:
            wanted = ", ".join(("self", *arguments))
            _require(False, f"{name} of {task.name} is def {name}{signature} without self; write def {name}({wanted})")
    require_training(task_for(task, Stream.TRAIN), evaluates=getattr(task, "pool", None) is None)


def require_training(task: Task, evaluates: bool = True) -> None:
    """Check a task without its pool, with one model and one batch; see :func:`require_task`.

    Args:
        task: The task, or a member of its pool.
        evaluates: Whether to evaluate the model on the split that a run needs last, after hours.

    Raises:
        SolError: It breaks a promise; the message says which.
    """
    with calling(task, "build"):
        model, another = (build_optimizee(task, 0, Stream.TRAIN, episode) for episode in (0, 1))
    require_model(task, model)
    require_model(task, another)
    _require(not shared(model, another), f"build of {task.name} must make a new model in every call; models share some")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    streams = []
    for episode in (0, 1):
        with calling(task, "batches", advice=which_splits):
            streams.append(draw_batches(task, "train", 0, Stream.TRAIN, episode))
        require_iterator(task, streams[-1])
    stream, other = streams
    model, unused = prepared(model), dict(named)
    for step in range(_PATIENCE):
        with calling(task, "batches", advice=which_splits):
            batch = next(stream, stream)
        if batch is stream:  # it ended
            break
        before = _copied(batch)
        if not step:
            next(other, None)
            own_rows = same_values(before, batch_leaves(batch))
            _require(own_rows, f"batches of {task.name} overwrites a batch when another is drawn; yield new tensors")
        _require_loss(task, model, batch, unused)
        unchanged = same_values(before, batch_leaves(batch))
        _require(unchanged, f"loss of {task.name} changes its batch in place; work on a copy, or on new tensors")
        if not unused:
            break
    _require(len(unused) < len(named), f"batches('train') of {task.name} is empty")
    _require(not unused, f"loss of {task.name} does not depend on the parameters {', '.join(unused)}")
    if evaluates:
        with calling(task, "evaluate", advice=which_splits):
            measured(task, model, SPLITS[-1])


def require_model(task: Task, model: object) -> None:
    """Check what ``build`` returned: a module with trainable parameters on one device."""
    made = "None" if model is None else "a class" if isinstance(model, type) else f"a {type(model).__name__}"
    _require(isinstance(model, nn.Module), f"build of {task.name} must return a module, got {made}")
    assert isinstance(model, nn.Module)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    _require(bool(named), f"the model of {task.name} has no trainable parameters, none with requires_grad")
    for name, parameter in named:
        lazy = isinstance(parameter, nn.parameter.UninitializedParameter)
        _require(not lazy, f"build of {task.name} must call the model once: {name} has no shape yet")
        _require(not parameter.is_complex(), f"the parameter {name} of {task.name} is complex; learn on its real parts")
        hooked = bool(getattr(parameter, "_post_accumulate_grad_hooks", None))
        advice = "which do not run, since gradients are taken without backward(); use register_hook"
        _require(
            not hooked, f"the parameter {name} of {task.name} has hooks after the accumulation of gradients, {advice}"
        )
    places: dict[int, str] = {}
    for name, parameter in named:
        other = places.setdefault(parameter.data_ptr(), name) if parameter.data_ptr() else name
        advice = "tie them as one parameter: b.weight = a.weight, without .data"
        _require(other == name, f"{other} and {name} of {task.name} are two parameters in the same memory; {advice}")
    devices = {str(parameter.device) for _, parameter in named}
    _require(len(devices) == 1, f"the model of {task.name} must be on one device, got {', '.join(sorted(devices))}")


def shared(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models have a trainable parameter in common."""
    return not {*map(id, trainable(model))}.isdisjoint(map(id, trainable(other)))


def require_iterator(task: Task, stream: object) -> None:
    """Check what ``batches`` returned."""
    advice = "; write yield from it in a loop, while True" if isinstance(stream, Iterable) else ""
    got = type(stream).__name__ + advice
    _require(isinstance(stream, Iterator), f"batches of {task.name} must return an iterator, got {got}")


def require_scalar(task: Task, loss: object) -> None:
    """Check what ``loss`` returned: a scalar tensor with a gradient."""
    fault = _loss_fault(loss)
    _require(not fault, f"loss of {task.name} must return a scalar tensor, got {fault}")
    advice = "compute it without torch.no_grad, detach, item and argmax"
    has_gradient = isinstance(loss, Tensor) and loss.requires_grad
    _require(has_gradient, f"loss of {task.name} has no gradient: it was detached; {advice}")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise SolError(f"not a task: {fault}")


def _require_loss(task: Task, model: nn.Module, batch: Batch, unused: dict[str, nn.Parameter]) -> None:
    """Check the loss of a batch; parameters that it depends on are taken out of ``unused``."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    values = [(parameter.detach().clone(), parameter.grad) for _, parameter in named]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        with calling(task, "loss", advice=lambda: shown(model, batch)), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            loss = task.loss(model, batch)
        for warning in said:
            match = _BROADCASTS.search(str(warning.message))
            if match is None or any(math.prod(map(int, re.findall(r"\d+", size))) == 1 for size in match.groups()):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
                continue
            sizes = f"outputs {match[2]} and targets {match[1]}"
            _require(False, f"loss of {task.name} broadcasts {sizes}; give them one shape, as by squeeze(-1)")
        # An embedding with max_norm changes its own rows.
        renormed = {id(own) for m in model.modules() if getattr(m, "max_norm", None) for own in m.parameters()}
        works = all(
            parameter.grad is slope and (id(parameter) in renormed or same_value(value, parameter.detach()))
            for (value, slope), (_, parameter) in zip(values, named)
        )
        advice = "return the loss alone: the learner takes gradients and steps"
        _require(works, f"loss of {task.name} calls backward or changes the parameters; {advice}")
        require_scalar(task, loss)
        if not bool(loss.isfinite()):
            _require(False, f"loss of {task.name} is {float(loss.detach()):g} at the start; {not_finite(batch)}")
        with calling(task, "the backward pass of loss", advice=lambda: shown(model, batch)):
            slopes = torch.autograd.grad(loss, [parameter for _, parameter in named], allow_unused=True)
    sparse = [name for (name, _), gradient in zip(named, slopes) if gradient is not None and gradient.is_sparse]
    _require(not sparse, f"the gradient of {', '.join(sparse)} of {task.name} is sparse; build it with sparse=False")
    for (name, _), gradient in zip(named, slopes):
        if gradient is not None:
            unused.pop(name, None)


def not_finite(batch: Batch) -> str:
    """What to do about a loss that is not finite."""
    tensors = [dense(leaf) for leaf in batch_leaves(batch) if isinstance(leaf, Tensor)]
    for what, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        if any(bool(test(tensor).any()) for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()):
            return f"the batch holds {what}; clean the data"
    labels = [tensor for tensor in tensors if not tensor.is_floating_point() and tensor.numel()]
    if any(bool((tensor == _IGNORED).all()) for tensor in labels):
        return f"all labels of the batch are {_IGNORED}, which losses ignore; leave such rows out"
    return "scale inputs or weights"


_IGNORED = -100
_BROADCASTS = re.compile(r"target size \(torch\.Size\((.*?)\)\).* input size \(torch\.Size\((.*?)\)\)")


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # not one of Python's functions
        return None


Built = TypeVar("Built")


def build_seeded(constructor: Callable[[], Built], generator: torch.Generator) -> Built:
    """Call ``constructor`` with PyTorch's global generator seeded from ``generator``, and restore it afterwards.

    Modules initialise themselves from the global generator; this makes them a function of an explicit one.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.random.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        return constructor()
