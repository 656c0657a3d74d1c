"""Fair comparison of optimizers, on held-out episodes.

The protocol: an optimizer with a learning rate is used unchanged. All others are tuned with the same number of
trainings, on the tuning stream, by one criterion: by default the objective that rules are learned for, a mean of the
training and the validation loss after the last step. Then every optimizer trains on the same episodes of the evaluation
stream, with the same initial parameters and batches. The streams share no episodes, and the test split is used only in
the evaluation.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from sol_learner.comparing.comparison import Comparison
from sol_learner.comparing.config import CompareConfig
from sol_learner.comparing.optimizer_result import OptimizerResult
from sol_learner.comparing.optimizer_specs import PANEL, OptimizerSpec, RuleSpec, resolve_optimizer
from sol_learner.comparing.spaces import Settings
from sol_learner.comparing.store import Store
from sol_learner.comparing.trials import Trial, TrialBatch, fingerprint, loaded_task, run_batch, run_trial, versions
from sol_learner.comparing.tuning import Request, tune_side_by_side
from sol_learner.inner.episodes import Outcome
from sol_learner.inner.side_by_side import vectorizes
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import NullProgress, Phase, Progress
from sol_learner.runtime.workers import Constant, Workers
from sol_learner.settings import settings_from, with_current_names
from sol_learner.task import SPLITS, Stream, Task, build_optimizee, task_for
from sol_learner.task_registry import Recipe, load_task
from sol_symbols import ZOO, SolError, UpdateRule

__all__ = ["against_panel", "compare"]

REFERENCE = "adam-constant"
"""Name in tables of Adam at a constant learning rate."""

Tuned = tuple[float, list[tuple[float, float]]]
Result = dict[str, Any]


@torch.inference_mode(False)
@torch.enable_grad()
def compare(
    task: Task | str | Recipe | Constant[Any],
    optimizers: Sequence[str | Path | UpdateRule] | Mapping[str, str | Path | UpdateRule | OptimizerSpec],
    config: CompareConfig | None = None,
    *,
    tuned: Mapping[str, Tuned] | None = None,
    references: Sequence[str] = (),
    spent: Mapping[str, int] | None = None,
    store: Store | str | Path | None = None,
    workers: Workers | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    clock: Clock | None = None,
    checkpoints: Checkpoints | None = None,
    **settings: Any,
) -> Comparison:
    """Tune every optimizer that has no learning rate, then train with each on the same held-out episodes.

    Args:
        task: A task, the name of an installed one, or a recipe from which other processes can build it.
        optimizers: Names (see :func:`~sol_learner.resolve_optimizer`), paths of run folders or rules; or a mapping
            from names in tables to these or specs. The first optimizer is compared with each of the others.
        config: Settings; see :class:`~sol_learner.CompareConfig`.
        tuned: Learning rate and (rate, objective) pairs of already tuned optimizers, by name.
        references: Names of optimizers that are shown, but are no baselines of the verdict.
        spent: Trainings that were already spent on an optimizer, by name: on learning or tuning it.
        store: Cache of finished runs, read and extended.
        workers: Processes that share the runs. They must be able to import or unpickle the task.
        data, device: Dataset folder and device of a task passed by name.
        progress: Progress reporter.
        clock: Source of interrupts.
        checkpoints: Checkpoints of a learning run, used instead of a store.
        settings: Individual settings that override ``config``.

    Raises:
        SolError: A name is unknown, a setting is out of range, an optimizer cannot train the task, a package is
            missing, or ``tuned`` has an optimizer that has a learning rate of its own.
        Interrupted: The clock expired or was cancelled.

    Example::

        comparison = compare("mnistnet", ["adam", "nesterov"], episodes=5, trainings=64)
        print(comparison.table())
    """
    config = settings_from(
        CompareConfig, {**asdict(config or CompareConfig()), **with_current_names(CompareConfig, settings)}
    )
    threads = config.threads or None
    specs = {name: _spec(value) for name, value in _named(optimizers).items()}
    if not specs:
        raise SolError("at least one optimizer is required")
    given = Recipe(load_task, (task, data, device)) if isinstance(task, str) else task
    loaded = loaded_task(given)
    horizon, progress = config.steps or loaded.horizon, progress or NullProgress()
    for spec in specs.values():
        spec.check()
    opened = Store(store) if isinstance(store, str | Path) else store
    runs = _Runs(loaded, given, config.seed, horizon, threads, opened, workers or Workers(), clock, checkpoints)

    chosen: dict[str, Settings] = {name: spec.fixed for name, spec in specs.items() if spec.fixed is not None}
    tables: dict[str, list[Result]] = {}
    for name, (rate, pairs) in (tuned or {}).items():
        if name in chosen:
            raise SolError(
                f"{name} has the learning rate {chosen[name].get('lr')}, and 'tuned' gives it {rate}: leave one out"
            )
        if name in specs:
            chosen[name] = {"lr": rate}
            tables[name] = [{"settings": {"lr": r}, "objective": v if math.isfinite(v) else None} for r, v in pairs]
    protocol: dict[str, Any] = {"threads": threads, "versions": versions(), "device": str(device)}
    missing = {name: spec for name, spec in specs.items() if name not in chosen}
    if missing:
        found, tuning_protocol = _tune(missing, runs, config, progress)
        protocol |= tuning_protocol
        tables |= found
        failures = tuning_protocol["tuning_failures"]
        chosen |= {name: _best(name, loaded.name, table, failures) for name, table in found.items()}
    counts = {name: sum(len(trial["losses"]) for trial in table if "losses" in trial) for name, table in tables.items()}
    results = _evaluate(specs, chosen, tables, {**counts, **(spent or {})}, runs, config, progress)
    comparison = Comparison(
        loaded.name, config.seed, config.episodes, horizon, results, config.target, protocol, tuple(references)
    )
    return comparison if config.target is not None else replace(comparison, target=comparison.baseline_target)


def against_panel(optimizer: str) -> tuple[dict[str, str | OptimizerSpec], tuple[str, ...]]:
    """An optimizer and the panel, as arguments ``optimizers`` and ``references`` of :func:`compare`.

    Adam at the best constant rate is added for reference; it is a weak opponent.
    """
    panel = {name: name for name in PANEL if name != optimizer}
    return {optimizer: optimizer, **panel, REFERENCE: RuleSpec(ZOO["adam"], rate_only=True)}, (REFERENCE,)


def _tune(
    specs: Mapping[str, OptimizerSpec], runs: _Runs, config: CompareConfig, progress: Progress
) -> tuple[dict[str, list[Result]], dict[str, Any]]:
    """Tune the optimizers; returns all trials, and the tuning part of the protocol."""
    if config.tune == "none":
        raise SolError(
            f"no learning rate for {', '.join(specs)}; enable tuning or set one in the rule: 'ad where lr = 0.001'"
        )
    spaces = {name: spec.space(config.tune == "full") for name, spec in specs.items()}
    side_by_side = {name for name, spec in specs.items() if isinstance(spec, RuleSpec) and runs.vectorizable}
    failures = list[str]()
    protocol: dict[str, Any] = {
        "tune": config.tune,
        "trainings": config.trainings,
        "tune_for": config.tune_for,
        "weights": config.weights,
        "tuner": "grid of rates, Sobol points, TPE, finals",
        "tuning_stream": Stream.TUNE.name.lower(),
        "tuning_episodes": list(range(config.tuning_episodes)),
        "space": {name: [asdict(dimension) for dimension in space] for name, space in spaces.items()},
        "tuning_failures": failures,
    }
    progress.phase(Phase.TUNE, "tuning", config.trainings)
    measure = partial(_losses, runs, specs, side_by_side, config.weights, failures)
    halving = specs.keys() - side_by_side
    budget = config.trainings, config.tuning_episodes
    return tune_side_by_side(spaces, measure, *budget, config.seed, progress, halving), protocol


def _evaluate(
    specs: Mapping[str, OptimizerSpec],
    chosen: Mapping[str, Settings],
    tables: Mapping[str, list[Result]],
    spent: Mapping[str, int],
    runs: _Runs,
    config: CompareConfig,
    progress: Progress,
) -> list[OptimizerResult]:
    """Run each optimizer on the evaluation episodes."""
    episodes = config.episodes
    progress.phase(Phase.COMPARE, "comparing", episodes * len(specs))
    plan = [
        (name, runs.trial(spec, chosen[name], Stream.EVALUATE, episode, SPLITS))
        for name, spec in specs.items()
        for episode in range(episodes)
    ]
    results = runs(plan, progress)
    names = _metric_names(results)
    found = []
    for i, (name, spec) in enumerate(specs.items()):
        own = results[i * episodes : (i + 1) * episodes]
        result = _result(name, spec, chosen[name], tables.get(name, []), own, runs, names)
        found.append(replace(result, trainings=spent.get(name, 0)))
    return found


def _named(optimizers: Sequence[str | Path | UpdateRule] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(optimizers, Mapping):
        return optimizers
    if isinstance(optimizers, str | Path):
        raise SolError(f"optimizers must be a list of names, not one name; use [{str(optimizers)!r}]")
    names = [str(name) if isinstance(name, Path | UpdateRule) else name for name in optimizers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SolError(f"duplicate optimizer: {twice}")
    return dict(zip(names, optimizers))


def _spec(value: Any) -> OptimizerSpec:
    if isinstance(value, str | Path):
        return resolve_optimizer(str(value))
    if isinstance(value, UpdateRule):
        return RuleSpec(value)
    if not hasattr(value, "fixed"):
        raise SolError(f"an optimizer must be text, a path, an UpdateRule or a specification, got {value!r}")
    return value


class _Runs:
    """Creates the trials of a comparison and runs those without a stored result.

    Args:
        task: The task.
        given: The task or recipe that is sent to other processes.
        seed, steps, threads: Common to all trials.
        store, checkpoints: Sources of stored results.
        workers, clock: As for :func:`compare`.
    """

    def __init__(
        self,
        task: Task,
        given: Task | Recipe | Constant[Any],
        seed: int,
        steps: int,
        threads: int | None,
        store: Store | None,
        workers: Workers,
        clock: Clock | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        self._task, self._seed, self.steps, self._threads = task, seed, steps, threads
        self._given = task if workers.jobs == 1 else given
        self._store, self._workers, self._clock, self._checkpoints = store, workers, clock, checkpoints
        self._fingerprint = fingerprint(task) if store is not None else ""

    @cached_property
    def _size(self) -> tuple[bool, int]:
        """Whether models train side by side, and the parameters of one; only tuning needs to build one for this."""
        model = build_optimizee(task_for(self._task, Stream.TUNE), self._seed, Stream.TUNE, 0)
        return vectorizes(self._task), sum(parameter.numel() for parameter in model.parameters())

    @property
    def vectorizable(self) -> bool:
        """Whether models of the task train side by side."""
        return self._size[0]

    def trial(
        self, spec: OptimizerSpec, settings: Settings, stream: Stream, episode: int, splits: tuple[str, ...]
    ) -> Trial:
        """A training run."""
        return Trial(self._given, spec, settings, self._seed, stream, episode, self.steps, splits, self._threads)

    def batches(
        self, spec: RuleSpec, settings: Sequence[Settings], episodes: Sequence[int], splits: tuple[str, ...]
    ) -> list[TrialBatch]:
        """Training runs for tuning, as many side by side as memory suggests."""
        width = max(1, min(_WIDTH, _NUMBERS // (self._size[1] * len(episodes))))
        parts = [tuple(settings[i : i + width]) for i in range(0, len(settings), width)]
        fixed = (Stream.TUNE, tuple(episodes), self.steps, splits, self._threads)
        return [TrialBatch(self._given, spec, part, self._seed, *fixed) for part in parts]

    def __call__(self, plan: Plan, progress: Progress | None = None) -> list[Result | Exception]:
        """The result of each trial, or its exception. Results are stored as soon as they arrive.

        Args:
            plan: Pairs of optimizer name and trial.
            progress: Advances by one step per trial.

        Raises:
            Interrupted: The clock expired or was cancelled.
        """
        progress = progress or NullProgress()
        if self._checkpoints is not None:  # in a learning run, all ranks wait for the results of the first
            names = json.dumps([trial.identity(self._task.name) for _, trial in plan], sort_keys=True)
            key = f"compare/{hashlib.sha256(names.encode()).hexdigest()}"
            computed = list[bool]()

            def compute() -> list[Result]:
                computed.append(True)
                return _successful(self._completed(plan, progress))

            results = self._checkpoints.once(key, compute)
            for done in range(0 if computed else len(plan)):
                progress.step(done + 1)
            return results
        return self._completed(plan, progress)

    def _completed(self, plan: Plan, progress: Progress) -> list[Result | Exception]:
        results: dict[int, Result | Exception] = {}
        for i, (_, trial) in enumerate(plan):
            known = None if self._store is None else self._store.get(trial.identity(self._fingerprint))
            if known is not None:
                results[i] = known
                progress.step(len(results))
        missing = [i for i in range(len(plan)) if i not in results]
        clock = self._clock if self._workers.jobs == 1 else None  # a clock cannot be shared with other processes
        for place, result in self._workers.completed(partial(_run, clock=clock), [plan[i][1] for i in missing]):
            if isinstance(result, Interrupted):
                raise result
            i = missing[place]
            results[i] = result if isinstance(result, Exception) else self._keep(plan[i], result)
            progress.step(len(results))
            if self._clock is not None:
                self._clock.check()
        return [results[i] for i in range(len(plan))]

    def _keep(self, entry: tuple[str, Trial | TrialBatch], result: Result) -> Result:
        if self._store is None:
            return result
        return self._store.put(entry[1].identity(self._fingerprint), self._task.name, entry[0], result)


_WIDTH = 16  # settings side by side: more are not faster
_NUMBERS = 2**23  # parameters of all models side by side

Plan = Sequence[tuple[str, Trial | TrialBatch]]


def _run(trial: Trial | TrialBatch, clock: Clock | None) -> Result:
    return run_batch(trial, clock) if isinstance(trial, TrialBatch) else run_trial(trial, clock)


def _successful(results: list[Result | Exception]) -> list[Result]:
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if failed is not None:
        raise failed
    return results  # type: ignore[return-value]


def _losses(
    runs: _Runs,
    specs: Mapping[str, OptimizerSpec],
    side_by_side: Set[str],
    weights: Mapping[str, float],
    failures: list[str],
    requests: Sequence[tuple[str, Request]],
) -> list[list[float]]:
    """The losses of each request by episode: sums over splits with ``weights``; infinite if a run failed."""
    splits, plan = tuple(weights), list[tuple[str, Trial | TrialBatch]]()
    places = list[list[tuple[int, int]]]()  # (request, episode) of each loss of each trial
    groups = dict[tuple[str, tuple[int, ...]], list[int]]()
    for number, (name, (_, episodes)) in enumerate(requests):
        groups.setdefault((name, tuple(episodes)), []).append(number)
    for (name, episodes), numbers in groups.items():
        spec = specs[name]
        if name in side_by_side and isinstance(spec, RuleSpec):
            remaining = iter(numbers)
            for batch in runs.batches(spec, [requests[n][1][0] for n in numbers], episodes, splits):
                own = [next(remaining) for _ in batch.settings]
                plan.append((name, batch))
                places.append([(n, e) for n in own for e in range(len(episodes))])
        else:
            for n in numbers:
                for e, episode in enumerate(episodes):
                    plan.append((name, runs.trial(spec, requests[n][1][0], Stream.TUNE, episode, splits)))
                    places.append([(n, e)])
    found = [[math.inf] * len(episodes) for _, (_, episodes) in requests]
    for (name, trial), trained, result in zip(plan, places, runs(plan)):
        if isinstance(result, Exception):
            failures.append(f"{name}, {_tried(trial)}: {result}")
            continue
        for place, (n, e) in enumerate(trained):
            values = [_final(result, split, place) for split in weights]
            found[n][e] = sum(math.inf if v is None else w * v for w, v in zip(weights.values(), values))
    return found


def _tried(trial: Trial | TrialBatch) -> str:
    if isinstance(trial, TrialBatch):
        return f"tuning seeds {', '.join(map(str, trial.episodes))}, {len(trial.settings)} settings"
    return f"tuning seed {trial.episode}, {dict(trial.settings)}"


def _final(result: Result, split: str, place: int) -> float | None:
    """The final loss of a trial, or of one of a batch."""
    if "losses" in result:
        return [loss for row in result["losses"][split] for loss in row][place]
    return result["metrics"].get(split, {}).get("loss")


def _best(name: str, task: str, table: Sequence[Result], failures: Sequence[str]) -> Settings:
    """The settings that tuning chose, the first of its table."""
    if table[0]["objective"] is None:
        failed = next((line for line in failures if line.startswith(f"{name},")), None)
        if failed is not None:
            raise SolError(f"{name} cannot train {task}: every run failed or diverged, for example {failed}")
        raise SolError(f"{name} cannot train {task}: its loss was not finite for any of {len(table)} settings")
    return table[0]["settings"]


def _metric_names(results: Sequence[Result | Exception]) -> dict[str, list[str]]:
    """Names of the task's metrics by split, collected from all runs."""
    names: dict[str, dict[str, None]] = {split: {"loss": None} for split in SPLITS}
    for result in results:
        for split, table in {} if isinstance(result, Exception) else result["metrics"].items():
            names[split] |= dict.fromkeys(table)
    return {split: list(found) for split, found in names.items()}


def _result(
    name: str,
    spec: OptimizerSpec,
    settings: Settings,
    trials: list[Result],
    results: Sequence[Result | Exception],
    runs: _Runs,
    names: Mapping[str, Sequence[str]],
) -> OptimizerResult:
    """Combine the results of one optimizer's episodes."""
    done = [result if isinstance(result, dict) else None for result in results]

    def row(values: Sequence[float | None]) -> torch.Tensor:
        return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)

    losses = [[*(r["batch_loss"] if r else []), *[None] * runs.steps][: runs.steps] for r in done]
    metrics = {
        split: {key: row([r["metrics"].get(split, {}).get(key) if r else None for r in done])[None] for key in keys}
        for split, keys in names.items()
    }
    return OptimizerResult(
        name,
        spec.rule,
        settings,
        trials,
        Outcome(torch.stack([row(values) for values in losses], 1)[:, None], metrics),
        {e: r["diverged"] for e, r in enumerate(done) if r is not None and r["diverged"] is not None},
        {e: str(result) for e, result in enumerate(results) if isinstance(result, Exception)},
        row([r["seconds"] if r else None for r in done]),
        row([r["peak_bytes"] if r else None for r in done]),
        next((r["state_bytes"] for r in done if r is not None), None),
    )
