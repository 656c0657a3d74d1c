"""One training run with one optimizer: the unit of a comparison, and what is kept of it.

Each run trains one optimizee alone, on as many threads as the comparison says, so that its numbers depend on nothing
that runs beside it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sol_learner.comparing.optimizer_specs import OptimizerSpec, Settings, schedule_factor
from sol_learner.inner.optimizees import Optimizees
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.workers import threads
from sol_learner.task import SPLITS, Stream, Task, build_optimizee, device_of, draw_batches, task_for
from sol_learner.task_registry import Recipe

__all__ = ["PeakMemory", "Trial", "fingerprint", "run_trial", "versions"]

RESULT_VERSION = 4
"""Raised whenever the meaning of a trial's result changes, so that stored ones are not used any longer."""


@dataclass(frozen=True)
class Trial:
    """A training run.

    Attributes:
        task: The task, or what makes it.
        optimizer: The optimizer.
        settings: Its hyperparameters.
        seed, stream, episode: The random stream and the place in it.
        steps: Inner steps.
        splits: Splits to evaluate on after the last step.
        threads: Threads of the run; as many as there are where ``None``.
    """

    task: Task | Recipe
    optimizer: OptimizerSpec
    settings: Settings
    seed: int
    stream: Stream
    episode: int
    steps: int
    splits: tuple[str, ...]
    threads: int | None = 1

    def identity(self, task: str) -> dict[str, Any]:
        """Everything that the run's numbers follow from, JSON-able; ``task`` is the task's :func:`fingerprint`."""
        return {
            "result_version": RESULT_VERSION,
            "task": task,
            "optimizer": self.optimizer.identity(),
            "settings": dict(sorted(self.settings.items())),
            "seed": self.seed,
            "stream": self.stream.name.lower(),
            "episode": self.episode,
            "steps": self.steps,
            "splits": list(self.splits),
            "threads": self.threads,
            "versions": versions(),
        }


@functools.cache
def versions() -> dict[str, str]:
    """Versions that numbers depend on."""
    return {name: metadata.version(name) for name in ("sol-learner", "sol-symbols", "torch", "numpy")}


def run_trial(trial: Trial, clock: Clock | None = None) -> dict[str, Any]:
    """Train a fresh optimizee and measure it.

    Returns:
        JSON-able; numbers that are not finite are ``None``. ``batch_loss``: the loss on each step's batch, before the
        step. ``metrics``: of each split after the last step. ``diverged``: the step after which the loss or the
        parameters were not finite any more, else ``None``; the run ends there. ``seconds``: wall time of a step, data
        and gradient included, evaluation not. ``peak_bytes``: the largest memory of the process during the run (on
        CUDA, of the device's tensors), ``None`` where the system does not tell. ``state_bytes``: of the optimizer.

    Raises:
        Interrupted: By the clock.
    """
    task = trial.task.load() if isinstance(trial.task, Recipe) else trial.task
    with threads(trial.threads):
        peak = PeakMemory()
        optimizees = Optimizees(task, trial.seed, trial.stream, [trial.episode])
        step, state_bytes = trial.optimizer.begin(optimizees, trial.settings, trial.steps)
        lr, schedule = float(trial.settings["lr"]), str(trial.settings.get("schedule", "constant"))
        losses: list[Tensor] = []
        diverged = None
        start = time.perf_counter()
        for t in range(1, trial.steps + 1):
            if clock is not None:
                clock.check()
            loss, gradient = optimizees.losses_and_gradients()
            losses.append(loss[0, 0])
            if not math.isfinite(loss[0, 0]) and not bool(optimizees.theta.isfinite().all()):
                diverged = t - 1
                break
            step(t, gradient, lr * schedule_factor(schedule, t, trial.steps))
        if optimizees.theta.is_cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(losses)
        metrics: dict[str, dict[str, float | None]] = {}
        if diverged is None:
            for split in trial.splits:
                values = {name: float(value[0, 0]) for name, value in optimizees.evaluate(split).items()}
                metrics[split] = {name: _finite(value) for name, value in values.items()}
            if any(table["loss"] is None for table in metrics.values()):
                diverged = trial.steps
        return {
            "batch_loss": [_finite(float(loss)) for loss in losses],
            "metrics": metrics,
            "diverged": diverged,
            "seconds": seconds,
            "peak_bytes": peak.bytes(),
            "state_bytes": state_bytes(),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class PeakMemory:
    """Largest memory since construction: of CUDA's tensors, or on Linux of the process, whose mark can be reset.

    Attributes:
        before: Bytes at construction.
    """

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._reset = True
        except OSError:
            self._reset = False
        self.before = self.bytes()

    def bytes(self) -> int | None:
        """Bytes, ``None`` where the system does not tell."""
        if self._cuda and torch.cuda.max_memory_allocated():
            return int(torch.cuda.max_memory_allocated())
        if not self._reset:
            return None
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return None if line is None else 1024 * int(line.split()[1])


def fingerprint(task: Task, splits: Sequence[str] = SPLITS) -> str:
    """Hash of what a task computes, whatever it is made of: two tasks of one fingerprint give one set of numbers.

    It covers the class and the name, the kind of device, the initial parameters of an episode, its first batch of each
    split, the loss there, the metrics of the fresh model over each split, and two steps of training, dropout and
    projection included, of which the second is long (to six digits: last ones differ between processors).
    """
    cls = f"{type(task).__module__}.{type(task).__qualname__}"
    digest = hashlib.sha256(f"{cls} {task.name} {device_of(task).type}".encode())
    for stream in (Stream.TUNE, Stream.EVALUATE):
        part = task_for(task, stream)
        model = build_optimizee(part, 0, stream, 0).eval()
        for parameter in model.parameters():
            _add(digest, parameter)
        for split in splits:
            batch = next(iter(draw_batches(part, split, 0, stream, 0)))
            for leaf in pytree.tree_leaves(batch):
                _add(digest, leaf)
            with torch.no_grad():
                loss = float(part.loss(model, batch))
                measured = part.evaluate(model, split) if stream is Stream.EVALUATE else {}
            told = {"loss of the batch": loss, **measured}
            _add(digest, [(name, f"{value:.6g}") for name, value in told.items()])
        optimizees = Optimizees(task, 0, stream, [0])
        for length in (1e-3, 1.0):
            losses, gradient = optimizees.losses_and_gradients()
            optimizees.descend(gradient, length / max(float(gradient.abs().max()), 1e-30))
            _add(digest, f"{float(losses):.6g} {float(optimizees.theta.abs().mean()):.6g}")
    return digest.hexdigest()


def _add(digest: Any, leaf: object) -> None:
    if isinstance(leaf, Tensor):
        tensor = leaf.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else repr(tensor.item()).encode())
    else:
        digest.update(repr(leaf).encode())
