"""Verification of emitted source: run it and the rule on the same gradients, and compare the parameters.

    θ_t = θ_{t-1} - lr · φ(g_1..g_t, θ_{t-1}, t/T)

for random gradients of ordinary, tiny, huge and widely varying magnitudes, including zeros, over more steps than the
horizon. The reference is the rule evaluated in NumPy, which defines its meaning. Each step of the source starts from
the reference's parameters and from its own states. This keeps rules that amplify differences from accumulating them in
the parameters.

Rules with reductions run on a list of tensors, among them a scalar, an empty one and one whose gradients are zero.
"""

from __future__ import annotations

import bisect
import importlib.util
import inspect
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sol_symbols import Layout, SolError, UpdateRule, evaluator, lower

__all__ = [
    "STEPS",
    "Executable",
    "Trajectory",
    "imported",
    "is_class",
    "load_class",
    "stepped",
    "verify",
    "verify_class",
]

Array = np.ndarray

TOLERANCES: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 2e-2}
"""Largest allowed difference in one step, relative to the parameter before or after it, whichever is larger.

This allows for a different order of summation, the functions of other libraries, 1 - beta**t in float32 (JAX) and
bfloat16 rounding (2^-8) in the other direction.
"""

AMPLIFIED = 64.0
"""What a rule amplifies is allowed in addition: this multiple of what :func:`_amplification` finds."""

STEPS = 24
"""Steps of a trajectory."""

_HORIZON, _LR = 16, 0.01


@dataclass(frozen=True)
class Trajectory:
    """Parameters and gradients on which an optimizer runs.

    Attributes:
        parameters: Values before each step, shape (steps, N); float64 numbers that are exact in ``dtype``.
        gradients: Gradients at each step, same shape and precision.
        lr: Learning rate.
        horizon: The rule's horizon; ``None`` if it has none.
        dtype: Dtype of parameters and gradients: ``float64``, ``float32`` or ``bfloat16``.
        layout: The tensors that the N numbers belong to; by default, all are one vector.
        averages: Whether the rule has evaluation weights.
        losses: Loss of each step, shape (steps,); ``None`` if the rule does not use it.
    """

    parameters: Array
    gradients: Array
    lr: float
    horizon: float | None
    dtype: str
    layout: Layout = field(default=Layout(()))
    averages: bool = False
    losses: Array | None = None

    def __post_init__(self) -> None:
        if not self.layout.shapes:
            object.__setattr__(self, "layout", Layout((self.parameters.shape[1:],)))


@runtime_checkable
class Executable(Protocol):
    """An exporter whose source can be executed, as ``sol_export.verification.verify`` requires.

    Attributes:
        filename: Name of the source file.
        dtypes: The dtypes that the language supports.
    """

    filename: str
    dtypes: tuple[str, ...]

    def load(self, path: Path, name: str) -> Callable[[Trajectory], Array]:
        """Return a function from a trajectory to the parameters after each step of the source at ``path``.

        The result has shape (steps, N); if the rule has evaluation weights, (steps, 2 N), and they follow those of the
        parameters. Each step starts from the trajectory's parameters and from the states that the
        previous steps left.

        Raises:
            ImportError: A library that runs the language is not installed.
        """


EXPORTER_BUG = "The exporter has a bug; --no-verify skips this check"

_EMITTED = "the emitted source"


def verify(
    rule: UpdateRule, source: str, name: str, exporter: Executable, remark: str = EXPORTER_BUG
) -> dict[str, float]:
    """Run emitted source and compare it with its rule.

    Args:
        rule: The rule.
        source: The source text from ``exporter``.
        name: The name passed to the exporter.
        exporter: Loads and runs the source.
        remark: What a difference means, the end of the message.

    Returns:
        The largest relative difference for each dtype. It is above the dtype's tolerance only if the rule amplifies
        rounding errors that much, as ``m_hat - g`` does at the first step.

    Raises:
        SolError: The source fails or does not match the rule.
        ImportError: A library that runs the language is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / exporter.filename
        path.write_text(source, encoding="utf-8")
        try:
            run = exporter.load(path, name)
        except (SolError, ImportError):
            raise
        except Exception as error:  # of the source
            raise SolError(f"{_EMITTED} cannot be loaded: {type(error).__name__}: {error}") from error
        return _differences(rule, run, exporter.dtypes, _EMITTED, remark)


_LIBRARIES = {"torch": "torch.optim", "torch.optim": "torch.optim", "pytorch_optimizer": "pytorch_optimizer"}


def is_class(text: str) -> bool:
    """Whether a text is ``torch:NAME``, ``pytorch_optimizer:NAME`` or ``FILE.py:CLASS``."""
    source = text.rpartition(":")[0]
    return source in _LIBRARIES or source.endswith(".py")


def load_class(text: str) -> type[Any]:
    """The optimizer class that such a text names; names of libraries' classes ignore case.

    Raises:
        SolError: There is no such class, or its file cannot be imported.
        ImportError: PyTorch or the library is not installed.
    """
    from torch.optim import Optimizer

    source, _, name = text.rpartition(":")
    library = _LIBRARIES.get(source)
    members = _members(Path(source)) if library is None else vars(importlib.import_module(library))
    classes = {
        key: kind
        for key, kind in members.items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    for key, kind in classes.items():
        if key == name or (library is not None and key.lower() == name.lower()):
            return kind
    raise SolError(f"no optimizer {name!r} in {source}; available: {', '.join(sorted(classes)) or 'none'}")


def _members(path: Path) -> dict[str, Any]:
    """What a Python file defines; it finds modules in its folder, as a script does."""
    if not path.is_file():
        raise SolError(f"cannot read {path}: no such file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return vars(imported(path))
    except Exception as error:  # files of users can raise anything
        raise SolError(f"cannot import {path}: {type(error).__name__}: {error}") from error


def verify_class(rule: UpdateRule, kind: type[Any], name: str) -> dict[str, float]:
    """Run an optimizer class of PyTorch and compare it with a rule.

    It is called with the parameters and ``lr``, and with ``horizon`` if the rule has one. bfloat16 is left out: how
    states are rounded there is up to a class.

    Args:
        rule: The rule.
        kind: The class.
        name: What messages call it.

    Returns:
        The largest relative difference for each dtype; see :func:`verify`.

    Raises:
        SolError: The class fails or does not match the rule.
    """
    return _differences(rule, lambda trajectory: stepped(kind, trajectory), ("float64", "float32"), name)


def stepped(
    kind: Callable[..., Any], trajectory: Trajectory, resumed: Callable[[Any, Any], Any] | None = None
) -> Array:
    """The parameters after each step of an optimizer of PyTorch; see :class:`Executable`.

    Args:
        kind: The class; it is called with the parameters and ``lr``, and with ``horizon`` if the trajectory has one.
        trajectory: What it sees.
        resumed: Returns its first argument, a fresh optimizer, with the state of its second one; it is called halfway.
    """
    import torch

    dtype, layout = getattr(torch, trajectory.dtype), trajectory.layout
    horizon = {} if trajectory.horizon is None else {"horizon": trajectory.horizon}

    def tensors(values: Array) -> list[torch.Tensor]:
        return [torch.tensor(value, dtype=dtype) for value in layout.split(values)]

    def fresh() -> Any:
        return kind(params, lr=trajectory.lr, **horizon)

    def values_now() -> Array:
        return np.concatenate([p.detach().double().numpy().ravel() for p in params])

    params = [torch.nn.Parameter(p) for p in tensors(trajectory.parameters[0])]
    optimizer, found = fresh(), []
    for t, (values, gradients) in enumerate(zip(trajectory.parameters, trajectory.gradients)):
        for p, value, gradient in zip(params, tensors(values), tensors(gradients)):
            p.data.copy_(value)
            p.grad = gradient
        if resumed is not None and t == len(trajectory.parameters) // 2:
            optimizer = resumed(fresh(), optimizer)
        losses = [] if trajectory.losses is None else [float(trajectory.losses[t])]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the schedule has ended")
            optimizer.step(*((lambda loss=loss: loss) for loss in losses))
        averaged = []
        if trajectory.averages:
            optimizer.eval()
            averaged.append(values_now())
            optimizer.train()
        found.append(np.concatenate([values_now(), *averaged]))
    return np.array(found)


def imported(path: Path) -> ModuleType:
    """Import the module at ``path`` without adding it to ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(f"sol_emitted_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _differences(
    rule: UpdateRule, run: Callable[[Trajectory], Array], dtypes: Sequence[str], what: str, remark: str = ""
) -> dict[str, float]:
    """The largest relative difference for each dtype; ``what`` runs, and ``remark`` ends the message."""
    return {dtype: _compare(rule, run, *_trajectory(rule, dtype), what, remark) for dtype in dtypes}


def _compare(
    rule: UpdateRule,
    run: Callable[[Trajectory], Array],
    trajectory: Trajectory,
    expected: Array,
    what: str,
    remark: str,
) -> float:
    """Return the largest relative difference on one trajectory."""
    try:
        found = run(trajectory)
    except Exception as error:
        raise SolError(f"{what} fails in {trajectory.dtype}: {type(error).__name__}: {error}") from error
    if found.shape != expected.shape:
        weights = " and the evaluation weights" if trajectory.averages else ""
        raise SolError(
            f"{what} does not match the rule {rule}: its result is of shape {[*found.shape]}, and the "
            f"parameters{weights} after each step are of shape {[*expected.shape]}"
        )
    # Compare each element, including infinities, until it is nan. Later steps differ: libraries disagree on sign(nan).
    defined = np.logical_and.accumulate(~np.isnan(expected), axis=0)
    tolerance = TOLERANCES[trajectory.dtype]
    before = np.tile(trajectory.parameters, 2 if trajectory.averages else 1)
    with np.errstate(all="ignore"):
        scale = np.fmax(abs(before), abs(expected))
        difference = np.where(found == expected, 0.0, abs(found - expected) / scale)
    wrong = defined & ~(difference <= tolerance)
    if wrong.any():
        with np.errstate(all="ignore"):
            allowed = tolerance * scale + AMPLIFIED * _amplification(rule, trajectory)
            wrong &= ~((abs(found - expected) <= allowed) | np.isinf(allowed))
    if wrong.any():
        t, i = (int(index[0]) for index in np.nonzero(wrong))
        column = i % trajectory.layout.ends[-1]
        largest = np.max(difference[t], where=wrong[t], initial=0.0)
        raise SolError(
            f"{what} does not match the rule {rule}: in {trajectory.dtype}, step {t + 1} moves a parameter "
            f"from {float(before[t, i])!r} to {float(found[t, i])!r}, not {float(expected[t, i])!r} "
            f"({_place(trajectory.layout, column)}, with the gradient {trajectory.gradients[t, column]:.3g}; relative "
            f"difference {difference[t, i]:.2g}, at most {largest:.2g} in this step)"
            + (f". {remark}" if remark else "")
        )
    return float(np.max(difference, where=defined, initial=0.0))


def _place(layout: Layout, column: int) -> str:
    """Which tensor holds a number."""
    index = bisect.bisect_right(layout.ends, column)
    return f"in tensor {index + 1} of {len(layout.shapes)}, of shape {[*layout.shapes[index]]}"


def _amplification(rule: UpdateRule, trajectory: Trajectory) -> Array:
    """How far a few units of rounding move each parameter: in gradients, parameters, numbers and order of summation.

    The largest of some random changes, at this step or up to two steps before or after; infinite where a change makes
    the update nan.
    """
    random = np.random.default_rng(1)
    calculated = np.float64 if trajectory.dtype == "float64" else np.float32
    gradients, parameters = trajectory.gradients.astype(calculated), trajectory.parameters.astype(calculated)
    unit = 4 * float(np.finfo(calculated).eps)

    def changed(values: Any) -> Any:
        return (values * (1 + unit * random.uniform(-1, 1, size=np.shape(values)))).astype(calculated)

    def updates(hoist: bool, change: Callable[[Any], Any]) -> Array:
        phi = evaluator(rule, horizon=trajectory.horizon, layout=trajectory.layout, hoist=hoist)
        values = {name: x if name == "T" else float(change(np.float64(x))) for name, x in phi.values.items()}
        state, found = phi.init(parameters[0]), []
        for t, (g, w) in enumerate(zip(gradients, parameters), start=1):
            loss = None if trajectory.losses is None else float(change(np.asarray(trajectory.losses[t - 1])))
            scalars = phi.scalars(t, values)  # bias corrections and decays change by themselves, too
            scalars = {name: x if name in ("t", "T") else float(change(np.float64(x))) for name, x in scalars.items()}
            (update,), state = phi.elementwise(change(g), state, change(w), scalars, loss)
            moves = [update.astype(np.float64) * _LR]
            if trajectory.averages:
                moves.append(phi.weights(state, change(w - _LR * update), t, _LR, values).astype(np.float64))
            found.append(np.concatenate(moves))
        return np.array(found)

    with np.errstate(all="ignore"):
        exact = updates(False, lambda values: values)
        others = [updates(True, lambda values: values), *(updates(False, changed) for _ in range(12))]
        moves = np.max([np.where(other == exact, 0.0, abs(other - exact)) for other in others], axis=0)
    moves = np.pad(np.where(np.isnan(moves), np.inf, moves), ((2, 2), (0, 0)))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(moves, 5, axis=0).max(-1))


def _trajectory(rule: UpdateRule, dtype: str) -> tuple[Trajectory, Array]:
    """Return gradients in columns of several kinds, with random zeros, and the reference for them."""
    random = np.random.default_rng(0)
    single = dtype != "float64"
    tiny, huge = (1e-30, 1e15) if single else (1e-200, 1e120)
    kinds = [
        random.normal(size=(STEPS, 24)),
        random.normal(size=(STEPS, 24)) * 10.0 ** random.uniform(-8, 3, size=(1, 24)),
        random.normal(size=(STEPS, 24)) * 10.0 ** random.uniform(-8, 3, size=(STEPS, 24)),
        random.normal(size=(STEPS, 8)) * tiny,
        random.normal(size=(STEPS, 8)) * huge,
        np.ones((STEPS, 4)) * random.normal(size=4),
        (-1.0) ** np.arange(STEPS)[:, None] * random.normal(size=4),
        np.zeros((STEPS, 4)),
    ]
    gradients = np.concatenate(kinds, axis=1)
    gradients[random.uniform(size=gradients.shape) < 0.1] = 0.0
    # Every other column has no added zeros in its first two steps.
    gradients[:, ::2][:2] = np.concatenate(kinds, axis=1)[:, ::2][:2]
    gradients = _rounded(gradients, dtype)
    layout = Layout((gradients.shape[1:],))
    program = lower(rule)
    if program.reduces:
        layout, gradients = _tensors(random, dtype)
    start = np.asarray(random.normal(size=gradients.shape[1]))
    horizon = _HORIZON if rule.needs_horizon else None
    losses = _rounded(10.0 ** random.uniform(-3, 1, STEPS), dtype) if program.uses("loss") else None
    before, after = _reference(rule, _rounded(start, dtype), gradients, horizon, dtype, layout, losses)
    return Trajectory(before, gradients, _LR, horizon, dtype, layout, rule.evaluation is not None, losses), after


def _tensors(random: np.random.Generator, dtype: str) -> tuple[Layout, Array]:
    """Return tensors and gradients of ordinary, small, large and varying sizes, zeros, and gradients that stop."""
    tiny, huge = (1e-15, 1e12) if dtype != "float64" else (1e-100, 1e60)
    shapes = ((4, 6), (12,), (), (0,), (2, 3, 2, 2), (3, 5), (7,), (3, 3), (4, 2))
    varying = 10.0 ** random.uniform(-4, 2, size=(STEPS, 1))
    scales: list[Array] = [*map(np.asarray, (1.0, 1e-3, 1.0, 1.0, varying, tiny, 0.0, huge, 1.0))]
    parts = []
    for shape, scale in zip(shapes, scales):
        size = int(np.prod(shape, dtype=int))
        parts.append(scale * (random.normal(size=(STEPS, size)) + 0.5 * random.normal(size=size)))
    parts[-1][STEPS // 3 :] = 0.0
    gradients = np.concatenate(parts, axis=1)
    gradients[random.uniform(size=gradients.shape) < 0.05] = 0.0
    return Layout(shapes), _rounded(gradients, dtype)


def _reference(
    rule: UpdateRule,
    start: Array,
    gradients: Array,
    horizon: float | None,
    dtype: str,
    layout: Layout,
    losses: Array | None,
) -> tuple[Array, Array]:
    """Return the parameters before and after each step; bfloat16 is computed in float32 and rounded after each step.

    If the rule has evaluation weights, they follow those after each step.
    """
    calculated = np.float64 if dtype == "float64" else np.float32
    phi = evaluator(rule, horizon=horizon, layout=layout)
    state, w = phi.init(start.astype(calculated)), start
    largest = 1e9 if phi.program.reduces else np.inf  # libraries compute the norm of larger numbers differently
    before, after = [], []
    with np.errstate(all="ignore"):
        for t, g in enumerate(gradients.astype(calculated), start=1):
            before.append(np.where(abs(w) < largest, w, start))
            loss = None if losses is None else float(losses[t - 1])
            update, state = phi(g, state, before[-1].astype(calculated), t, loss)
            w = _rounded(before[-1].astype(calculated) - _LR * update, dtype)
            averaged = phi.weights(state, w.astype(calculated), t, _LR)
            after.append(w if rule.evaluation is None else np.concatenate([w, _rounded(averaged, dtype)]))
    return np.array(before), np.array(after)


def _rounded(values: Array, dtype: str) -> Array:
    """Round ``values`` to ``dtype``; the result is float64."""
    if dtype == "float64":
        return values.astype(np.float64)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if dtype == "bfloat16":  # the upper half of a float32, rounded to even
        bits = single.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
        single = np.where(np.isfinite(single), rounded, single)
    return single.astype(np.float64)
