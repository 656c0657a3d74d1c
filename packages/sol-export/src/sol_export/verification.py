"""Proof that emitted source is the rule: both are run on the same gradients and compared.

    θ_t = θ_{t-1} - lr · φ(g_1..g_t, θ_{t-1}, t/T)

for random gradients of ordinary, tiny, huge and very different sizes, with zeros among them, over more steps than the
horizon has. The reference is the rule on NumPy, which is what a rule means; each step of the source starts from the
reference's parameters and its own states, so that a rule that amplifies differences is no worse off than others.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from sol_symbols import SolError, UpdateRule, evaluator

__all__ = ["Executable", "Trajectory", "imported", "verify"]

Array = np.ndarray

TOLERANCES: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference allowed in one step, relative to the parameter before or after it, whichever is larger.

Room for sums in another order, for other libraries' functions, for 1 - beta**t in float32 (JAX) and for roundings to
bfloat16 (2^-8) that fall the other way.
"""

_STEPS, _HORIZON, _LR = 24, 16, 0.01


@dataclass(frozen=True)
class Trajectory:
    """What an optimizer is run on.

    Attributes:
        parameters: Before each step, shape (steps, N), float64 but exact in ``dtype``.
        gradients: At each step, likewise.
        lr: Learning rate.
        horizon: The rule's horizon; ``None`` where it has none.
        dtype: ``float64``, ``float32`` or ``bfloat16``: what parameters and gradients are in.
    """

    parameters: Array
    gradients: Array
    lr: float
    horizon: float | None
    dtype: str


@runtime_checkable
class Executable(Protocol):
    """An exporter whose source can be run here: what ``sol_export.verification.verify`` needs of it.

    Attributes:
        filename: Name of the file that holds the source.
        dtypes: The dtypes that the language has.
    """

    filename: str
    dtypes: tuple[str, ...]

    def load(self, path: Path, name: str) -> Callable[[Trajectory], Array]:
        """A function that runs the source at ``path`` on a trajectory: parameters after each step, shape (steps, N).

        Each step starts from the trajectory's parameters, and from the states that the steps before have left.

        Raises:
            ImportError: What runs this language is not installed.
        """


def verify(rule: UpdateRule, source: str, name: str, exporter: Executable) -> dict[str, float]:
    """Run emitted source against its rule.

    Args:
        rule: The rule.
        source: What ``exporter`` made of it.
        name: The name that it was given.
        exporter: Knows how to run the source.

    Returns:
        The largest relative difference for each dtype.

    Raises:
        SolError: The source is not the rule, or fails.
        ImportError: What runs the language is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / exporter.filename
        path.write_text(source, encoding="utf-8")
        run = exporter.load(path, name)
        return {dtype: _compare(rule, run, *_trajectory(rule, dtype)) for dtype in exporter.dtypes}


def _compare(rule: UpdateRule, run: Callable[[Trajectory], Array], trajectory: Trajectory, expected: Array) -> float:
    """The largest relative difference on one trajectory."""
    try:
        found = run(trajectory)
    except Exception as error:
        raise SolError(f"the emitted source fails in {trajectory.dtype}: {type(error).__name__}: {error}") from error
    # An element is compared until it is nan, infinity included: what follows differs, as the sign of nan is 0 or nan.
    defined = np.logical_and.accumulate(~np.isnan(expected), axis=0)
    tolerance = TOLERANCES[trajectory.dtype]
    with np.errstate(all="ignore"):
        scale = np.fmax(abs(trajectory.parameters), abs(expected))
        difference = np.where(found == expected, 0.0, abs(found - expected) / scale)
    wrong = defined & ~(difference <= tolerance)
    if wrong.any():
        t, i = (int(index[0]) for index in np.nonzero(wrong))
        raise SolError(
            f"the emitted source is not the rule {rule}: in {trajectory.dtype}, step {t + 1} takes a parameter from "
            f"{float(trajectory.parameters[t, i])!r} to {float(found[t, i])!r} instead of {float(expected[t, i])!r}. "
            "This is a defect of the exporter, or the rule amplifies rounding errors; --no-verify skips the check"
        )
    return float(np.max(difference, where=defined, initial=0.0))


def _trajectory(rule: UpdateRule, dtype: str) -> tuple[Trajectory, Array]:
    """Columns of gradients, each of a kind; most elements of each also see zeros."""
    random = np.random.default_rng(0)
    single = dtype != "float64"
    tiny, huge = (1e-30, 1e15) if single else (1e-200, 1e120)
    kinds = [
        random.normal(size=(_STEPS, 24)),
        random.normal(size=(_STEPS, 24)) * 10.0 ** random.uniform(-8, 3, size=(1, 24)),
        random.normal(size=(_STEPS, 24)) * 10.0 ** random.uniform(-8, 3, size=(_STEPS, 24)),
        random.normal(size=(_STEPS, 8)) * tiny,
        random.normal(size=(_STEPS, 8)) * huge,
        np.ones((_STEPS, 4)) * random.normal(size=4),
        (-1.0) ** np.arange(_STEPS)[:, None] * random.normal(size=4),
        np.zeros((_STEPS, 4)),
    ]
    gradients = np.concatenate(kinds, axis=1)
    gradients[random.uniform(size=gradients.shape) < 0.1] = 0.0
    gradients[:, ::2][:2] = np.concatenate(kinds, axis=1)[:, ::2][:2]  # half of them not in the first steps
    gradients = _rounded(gradients, dtype)
    start = np.asarray(random.normal(size=gradients.shape[1]))
    horizon = _HORIZON if rule.needs_horizon else None
    before, after = _reference(rule, _rounded(start, dtype), gradients, horizon, dtype)
    return Trajectory(before, gradients, _LR, horizon, dtype), after


def _reference(
    rule: UpdateRule, start: Array, gradients: Array, horizon: float | None, dtype: str
) -> tuple[Array, Array]:
    """Parameters before and after each step; in float32 for bfloat16, the parameter rounded after each step."""
    calculated = np.float64 if dtype == "float64" else np.float32
    phi = evaluator(rule, horizon=horizon)
    state, w = phi.init(start.astype(calculated)), start
    before, after = [], []
    with np.errstate(all="ignore"):
        for t, g in enumerate(gradients.astype(calculated), start=1):
            before.append(np.where(np.isfinite(w), w, start))
            update, state = phi(g, state, before[-1].astype(calculated), t)
            w = _rounded(before[-1].astype(calculated) - _LR * update, dtype)
            after.append(w)
    return np.array(before), np.array(after)


def _rounded(values: Array, dtype: str) -> Array:
    """``values`` as float64 numbers that ``dtype`` has."""
    if dtype == "float64":
        return values.astype(np.float64)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if dtype == "bfloat16":  # the upper half of a float32, rounded to even
        bits = single.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
        single = np.where(np.isfinite(single), rounded, single)
    return single.astype(np.float64)


def imported(path: Path) -> ModuleType:
    """The emitted module at ``path``, not registered in ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(f"sol_emitted_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
