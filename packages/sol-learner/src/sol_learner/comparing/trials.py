"""One training run with one optimizer, the unit of a comparison, and its stored result.

Each run trains a single optimizee on a fixed number of threads, so its numbers do not depend on other runs.
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

from sol_learner.comparing.optimizer_specs import OptimizerSpec, RuleSpec
from sol_learner.comparing.schedules import schedule_factor
from sol_learner.comparing.spaces import Settings
from sol_learner.inner.episodes import run_rule
from sol_learner.inner.optimizees import Optimizees
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.workers import Constant, threads
from sol_learner.task import (
    SPLITS,
    Stream,
    Task,
    batch_leaves,
    build_optimizee,
    dense,
    device_of,
    draw_batches,
    measured,
    task_for,
)
from sol_learner.task_registry import Recipe

__all__ = ["PeakMemory", "Trial", "TrialBatch", "fingerprint", "loaded_task", "run_batch", "run_trial", "versions"]

RESULT_VERSION = 6
"""Incremented whenever the meaning of a trial's result changes, which invalidates stored results."""

Given = Task | Recipe | Constant[Any]


@dataclass(frozen=True)
class Trial:
    """A training run.

    Attributes:
        task: The task, or a recipe that builds it; in another process also a constant.
        optimizer: The optimizer.
        settings: Its hyperparameters.
        seed, stream, episode: The random stream and the position in it.
        steps: Inner steps.
        splits: Splits to evaluate on after the last step.
        threads: Threads for the run; ``None`` uses all.
    """

    task: Given
    optimizer: OptimizerSpec
    settings: Settings
    seed: int
    stream: Stream
    episode: int
    steps: int
    splits: tuple[str, ...]
    threads: int | None = 1

    @property
    def count(self) -> int:
        """Trainings."""
        return 1

    def identity(self, task: str) -> dict[str, Any]:
        """Everything that determines the results, JSON-serializable; ``task`` is the task's :func:`fingerprint`."""
        return _identity(self, task, dict(sorted(self.settings.items())), self.episode)


@dataclass(frozen=True)
class TrialBatch:
    """Several settings of one rule on several episodes, trained side by side.

    Attributes:
        task: As in :class:`Trial`; its models can be vectorized.
        optimizer: The rule.
        settings: C settings with the same keys.
        seed, stream, steps, splits, threads: As in :class:`Trial`.
        episodes: S positions in the stream.
    """

    task: Given
    optimizer: RuleSpec
    settings: tuple[Settings, ...]
    seed: int
    stream: Stream
    episodes: tuple[int, ...]
    steps: int
    splits: tuple[str, ...]
    threads: int | None = 1

    @property
    def count(self) -> int:
        """Trainings."""
        return len(self.settings) * len(self.episodes)

    def identity(self, task: str) -> dict[str, Any]:
        """See :meth:`Trial.identity`. Neighbours change the last digits, so they are part of it."""
        return _identity(self, task, [dict(sorted(s.items())) for s in self.settings], list(self.episodes))


def _identity(trial: Trial | TrialBatch, task: str, settings: Any, episode: int | list[int]) -> dict[str, Any]:
    return {
        "result_version": RESULT_VERSION,
        "task": task,
        "optimizer": trial.optimizer.identity(),
        "settings": settings,
        "seed": trial.seed,
        "stream": trial.stream.name.lower(),
        "episode": episode,
        "steps": trial.steps,
        "splits": list(trial.splits),
        "threads": trial.threads,
        "versions": versions(),
    }


def loaded_task(given: Given) -> Task:
    """The task itself."""
    given = given.value if isinstance(given, Constant) else given
    return given.load() if isinstance(given, Recipe) else given


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: metadata.version(name) for name in ("sol-learner", "sol-symbols", "torch", "numpy")}


def run_trial(trial: Trial, clock: Clock | None = None) -> dict[str, Any]:
    """Train a fresh optimizee and measure it.

    Returns:
        JSON-serializable; non-finite numbers are ``None``. ``batch_loss``: the loss on each step's batch, before the
        step. ``metrics``: for each split after the last step. ``diverged``: the step after which the loss or the
        parameters became non-finite, which ends the run, else ``None``. ``seconds``: wall time per step, including
        data and gradient but not evaluation. ``peak_bytes``: peak memory of the process during the run (on CUDA, of
        the device's tensors), ``None`` if not available. ``state_bytes``: size of the optimizer state.

    Raises:
        Interrupted: By the clock.
    """
    with threads(trial.threads):
        peak = PeakMemory()
        optimizees = Optimizees(loaded_task(trial.task), trial.seed, trial.stream, [trial.episode])
        optimizer = trial.optimizer.begin(optimizees, trial.settings, trial.steps)
        lr = float(trial.settings["lr"])
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
            optimizer.step(t, gradient, lr * schedule_factor(trial.settings, t, trial.steps))
        if optimizees.theta.is_cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(losses)
        optimizer.finish()
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
            "state_bytes": optimizer.state_bytes(),
        }


def run_batch(batch: TrialBatch, clock: Clock | None = None) -> dict[str, Any]:
    """Train all settings on all episodes side by side.

    Returns:
        ``{"losses": {split: ...}}``: the losses after the last step as C lists of S; ``None`` if not finite.

    Raises:
        Interrupted: By the clock.
    """
    rule, steps = batch.optimizer.with_decay(batch.settings[0]), batch.steps
    columns = {name: [settings[name] for settings in batch.settings] for name in batch.settings[0]}
    values = {n: torch.tensor(c, dtype=torch.float64) for n, c in columns.items() if n == "lr" or n in rule.values}
    factors = [[schedule_factor(settings, t, steps) for settings in batch.settings] for t in range(1, steps + 1)]
    with threads(batch.threads):
        outcome = run_rule(
            loaded_task(batch.task),
            rule,
            batch.seed,
            batch.stream,
            batch.episodes,
            values.pop("lr"),
            values,
            batch.splits,
            steps,
            clock,
            torch.tensor(factors, dtype=torch.float64),
        )
    table = {split: metrics["loss"].tolist() for split, metrics in outcome.metrics.items()}
    return {"losses": {split: [[_finite(loss) for loss in row] for row in rows] for split, rows in table.items()}}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class PeakMemory:
    """Peak memory since construction: of CUDA tensors, or on Linux of the process, whose high-water mark is resettable.

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
        """Peak memory in bytes, ``None`` if not available."""
        if self._cuda and torch.cuda.max_memory_allocated():
            return int(torch.cuda.max_memory_allocated())
        if not self._reset:
            return None
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return None if line is None else 1024 * int(line.split()[1])


def fingerprint(task: Task, splits: Sequence[str] = SPLITS) -> str:
    """Hash of a task's behavior: tasks with the same fingerprint give the same numbers.

    It covers the class and the name, the device type, the initial parameters of an episode, its first batch of each
    split, the loss there, the metrics of the fresh model over each split, and two training steps including dropout and
    projection, the second of them large. Values are rounded to six digits, because last digits differ between
    processors.
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
            for leaf in batch_leaves(batch):
                _add(digest, leaf)
            loss = float(part.loss(model, batch).detach())  # a residual or a penalty needs gradients
            with torch.no_grad():
                found = measured(part, model, split) if stream is Stream.EVALUATE else {}
            measurements = {"loss of the batch": loss, **found}
            _add(digest, [(name, f"{value:.6g}") for name, value in measurements.items()])
        optimizees = Optimizees(task, 0, stream, [0])
        for length in (1e-3, 1.0):
            losses, gradient = optimizees.losses_and_gradients()
            optimizees.descend(gradient, length / max(float(gradient.abs().max()), 1e-30))
            _add(digest, f"{float(losses):.6g} {float(optimizees.theta.abs().mean()):.6g}")
    return digest.hexdigest()


def _add(digest: Any, leaf: object) -> None:
    if isinstance(leaf, Tensor):
        tensor = dense(leaf.detach()).cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else repr(tensor.item()).encode())
    else:
        digest.update(repr(leaf).encode())
