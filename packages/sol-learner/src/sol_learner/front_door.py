"""From a training script to an optimizer and a verdict, in one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch
from torch import nn

from sol_learner.config import LearnConfig
from sol_learner.loaders import from_loaders
from sol_learner.pipeline import Learner, LearnResult, suitable_jobs
from sol_learner.run_folder import prepare_folder, write_run
from sol_learner.runtime.checkpoints import CHECKPOINTS, Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import Progress, open_progress
from sol_learner.runtime.workers import Workers, shared_threads
from sol_learner.settings import require_known, with_current_names
from sol_learner.task import Task
from sol_learner.user_code import from_file
from sol_symbols import SolError, UpdateRule
from sol_symbols.files import lock_folder

__all__ = ["LearnedOptimizer", "learn_optimizer"]

_EMITTED = "optimizer.py"


@dataclass(frozen=True)
class LearnedOptimizer:
    """What :func:`learn_optimizer` returns.

    Attributes:
        optimizer_class: The emitted optimizer, a :class:`torch.optim.Optimizer`.
        result: The run.
        task: The task that it was learned on.
        folder: The run folder, with ``optimizer.py`` and ``report.html``.
    """

    optimizer_class: type[torch.optim.Optimizer]
    result: LearnResult
    task: Task
    folder: Path

    @property
    def rule(self) -> UpdateRule:
        """The learned rule."""
        return self.result.rule

    @property
    def verdict(self) -> str:
        """Whether the rule is better than the best tuned baseline on held-out seeds, in one line."""
        verdicts = [comparison.verdict() for comparison in self.result.comparisons]
        lines = [verdict.line for verdict in verdicts if verdict is not None]
        return lines[0] if lines else f"no verdict: {self._why_none()}"

    def _why_none(self) -> str:
        """Why there is no verdict, and what to do."""
        summary = self.result.summary
        if summary["interrupted"]:
            return "the run ended before the comparison"
        baselines = summary["config"]["baselines"]
        if not baselines:
            return "the run had no baselines to compare with"
        if any(comparison.baselines for comparison in self.result.comparisons):
            return "no training of the rule, or none of a baseline, succeeded in the comparison"
        call = f"sol_learner.compare(learned.task, {[str(self.folder), *baselines]})"
        return f"the budget of {summary['budget']:g} s left no time to compare; raise it, or call {call}"

    def optimizer(self, params: Iterable[Any], **options: Any) -> torch.optim.Optimizer:
        """The optimizer for ``params``; its decay, if it has one, ends at the steps that it was learned for.

        Args:
            params: As for every optimizer of PyTorch.
            options: Arguments of the class, such as ``lr``.
        """
        if "horizon" in inspect.signature(self.optimizer_class).parameters and self.rule.horizon is not None:
            options = {"horizon": self.rule.horizon, **options}
        return self.optimizer_class(params, **options)


def learn_optimizer(
    name: str,
    model_fn: Callable[[], nn.Module],
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    steps: int,
    out: str | Path,
    loss_fn: Callable[..., Any] | None = None,
    metrics: Any = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    budget: float | str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    resume: bool = False,
    **settings: Any,
) -> LearnedOptimizer:
    """Learn an optimizer for a model and its data, compare it with tuned baselines, and write the run folder.

    Args:
        name, model_fn, train, valid, test, steps, loss_fn, metrics, batch_size, device: As of
            :func:`~sol_learner.from_loaders`.
        out: Folder of the run, which holds no other run, unless ``overwrite`` or ``resume`` is set.
        budget: Time for the run, in seconds or as text (``"5min"``), for which it is planned; unlimited by default.
        progress: Progress reporter; on standard error by default.
        overwrite: Whether to replace a run that is in the folder.
        resume: Whether to continue the run in the folder if it was interrupted. The model, the loss and the data must
            be those that it began with.
        settings: Settings of :class:`~sol_learner.LearnConfig`; ``effort`` (quick, normal or thorough) and ``preset``
            (default or paper) stand for several of them.

    Ctrl-C ends the search, and what was found is written.

    Raises:
        SolError: As of :func:`~sol_learner.from_loaders`, :func:`~sol_learner.learn` and
            :func:`~sol_learner.write_run`, or sol-export is not installed.

    Example::

        learned = learn_optimizer("digits", Net, (x, y), steps=200, loss_fn=nn.CrossEntropyLoss(), out="runs/digits")
        print(learned.verdict)
        optimizer = learned.optimizer(model.parameters())
    """
    arguments = inspect.getfullargspec(learn_optimizer)
    known = [*arguments.args, *arguments.kwonlyargs, "effort", "preset", *(field.name for field in fields(LearnConfig))]
    for key in with_current_names(LearnConfig, settings):
        require_known(key.replace("-", "_"), known)
    folder, config, clock = Path(out), LearnConfig.from_mapping(settings), Clock(budget)
    options: dict[str, Any] = {"loss_fn": loss_fn, "metrics": metrics, "batch_size": batch_size, "device": device}
    task = from_loaders(name, model_fn, train, valid, test, steps=steps, **options)
    jobs = suitable_jobs([task], config)
    learner = Learner([task], config, clock=clock, workers=Workers(jobs))
    prepare_folder(folder, overwrite, resume)
    identity = {**task.identity(), "jobs": jobs, **asdict(config)}
    with lock_folder(folder):
        try:
            with (
                shared_threads(jobs),
                _interruptible(clock),
                open_progress() if progress is None else nullcontext(progress) as learner.progress,
            ):
                report = learner.progress.note
                checkpoints = Checkpoints(folder / CHECKPOINTS, identity, resume=resume, report=report)
                clock.credit(checkpoints.elapsed)
                learner.checkpoints = checkpoints
                result = learner.run()
        except Interrupted:
            raise KeyboardInterrupt from None
        result.summary["command"] = _code(name, steps, {**options, "budget": budget, **settings})
        files = write_run(result, folder)
        checkpoints.clear()
    if _EMITTED not in files:
        raise SolError(
            f"wrote {folder}, but no {_EMITTED}: pip install sol-export, then sol export {folder} --to torch"
        )
    found = from_file(folder / _EMITTED, result.rule.class_name)
    return LearnedOptimizer(found, result, task, folder)


def _interruptible(clock: Clock) -> AbstractContextManager[None]:
    """Ctrl-C cancels the clock; only the main thread can arrange this."""
    return clock.catching_interrupts() if current_thread() is main_thread() else nullcontext()


def _code(name: str, steps: int, options: Mapping[str, Any]) -> str:
    """The call that repeats a run; what has no short text is named as in the call."""
    given = {key: value for key, value in options.items() if value is not None}
    plain = int | float | str | tuple | list
    words = [f"{key}={value!r}" if isinstance(value, plain) else f"{key}={key}" for key, value in given.items()]
    arguments = [repr(name), "model_fn", "train", "valid", "test", f"steps={steps}", 'out="runs/again"', *words]
    return f"learn_optimizer({', '.join(arguments)})"
