"""The same optimizers on several problems, a problem being a task and a number of steps: is the first better overall?

Each problem is compared and judged on its own. The headline is the geometric mean of the ratios of the training loss to
that of the best baseline *of each problem*, a rival that no single baseline can be. Its bootstrap is hierarchical:
tasks are drawn with replacement, then seeds within each drawn task; the horizons of a task stay together. The p-value
is of a t-test on the tasks' mean log ratios or, with a single task, on the seeds' relative differences.

Wins, ties and losses are the problems' outcomes after Holm's correction for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from sol_learner.comparing.comparison import Comparison, csv_of, wrapped
from sol_learner.comparing.config import CompareConfig
from sol_learner.comparing.optimizer_result import OptimizerResult
from sol_learner.comparing.optimizer_specs import OptimizerSpec
from sol_learner.comparing.protocol import compare
from sol_learner.comparing.significance import holm, interval_between, paired_test, resampling
from sol_learner.comparing.store import Store
from sol_learner.comparing.tables import laid_out, shortened
from sol_learner.comparing.verdict import Contrast, Verdict
from sol_learner.task import Task
from sol_learner.task_registry import Recipe, load_task
from sol_symbols import SolError, UpdateRule

__all__ = ["Problem", "Suite", "compare_tasks", "performance_profile"]

OUTCOMES = {"better": "win", "even": "tie", "worse": "loss"}
TAUS = (1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Factors in the text table of the performance profile."""


def compare_tasks(
    tasks: Sequence[Task | str | Recipe],
    optimizers: Sequence[str | Path | UpdateRule] | Mapping[str, str | Path | UpdateRule | OptimizerSpec],
    config: CompareConfig | None = None,
    *,
    steps: Sequence[int] = (),
    store: Store | str | Path | None = None,
    **options: Any,
) -> Suite:
    """Compare optimizers on every task at every number of steps; they are tuned for each.

    Args:
        tasks: Tasks, as for :func:`~sol_learner.compare`.
        optimizers: As for :func:`~sol_learner.compare`.
        config: Settings of each comparison.
        steps: Numbers of steps; by default, the tasks' horizons.
        store: Cache of finished runs, shared by all comparisons.
        options: Further arguments of :func:`~sol_learner.compare`, and settings.

    Raises:
        SolError: There is no task, a task or a number of steps is given twice, or one target is set for several
            problems; further, as :func:`~sol_learner.compare`.

    Example::

        suite = compare_tasks(["mnistnet", "mnistnet-wide"], ["runs/mine", "adam"], steps=[100, 400])
        print(suite.report())
    """
    horizons = list(steps) or [0 if config is None else config.steps]
    if not tasks:
        raise SolError("at least one task is required")
    for what, values in (("tasks", [_name(task) for task in tasks]), ("steps", [str(horizon) for horizon in horizons])):
        if len({*values}) < len(values):
            raise SolError(f"{what} must differ, got {', '.join(values)}")
    target = options.get("target", config.target if config else None)
    if target is not None and len(tasks) * len(horizons) > 1:
        raise SolError("one target cannot fit several problems; leave it out to take the best baseline's final loss")
    for task in tasks if len(tasks) > 1 else ():  # a mistake in the last one must not cost the comparison of the first
        if isinstance(task, str):
            Recipe(load_task, (task, options.get("data"), options.get("device", "cpu"))).load()
    opened = Store(store) if isinstance(store, str | Path) else store
    comparisons = [
        compare(task, optimizers, config, store=opened, **{**options, "steps": horizon})
        for task in tasks
        for horizon in horizons
    ]
    return Suite(comparisons)


def _name(task: Task | str | Recipe) -> str:
    return task if isinstance(task, str) else task.load().name if isinstance(task, Recipe) else task.name


@dataclass(frozen=True)
class Problem:
    """One problem of a suite: its comparison's verdict, and the outcome after Holm's correction for all problems."""

    task: str
    steps: int
    verdict: Verdict
    p: float | None
    outcome: str


@dataclass(frozen=True)
class Suite:
    """Comparisons of the same optimizers on several problems; see the module's docstring.

    Attributes:
        comparisons: One per problem.
    """

    comparisons: list[Comparison]

    @property
    def first(self) -> str:
        """The optimizer of interest."""
        return self.comparisons[0].optimizers[0].name

    @property
    def failures(self) -> list[str]:
        """One line per failed run."""
        return [f"{c.task}, {c.horizon} steps: {line}" for c in self.comparisons for line in c.failures]

    @cached_property
    def problems(self) -> list[Problem]:
        """The problems with their verdicts; none if there is no baseline."""
        adjusted, of_test = (
            holm([found.p if found else None for found in column])
            for column in ([v.train for _, v in self._judged], [v.test for _, v in self._judged])
        )
        return [
            Problem(comparison.task, comparison.horizon, verdict, p, verdict.outcome_at(p, p_test))
            for (comparison, verdict), p, p_test in zip(self._judged, adjusted, of_test)
        ]

    @cached_property
    def _judged(self) -> list[tuple[Comparison, Verdict]]:
        judged = [(comparison, comparison.verdict()) for comparison in self.comparisons]
        return [(comparison, verdict) for comparison, verdict in judged if verdict is not None]

    @property
    def counts(self) -> dict[str, int]:
        """Wins, ties and losses."""
        return {word: sum(p.outcome == outcome for p in self.problems) for outcome, word in OUTCOMES.items()}

    @cached_property
    def train(self) -> Contrast | None:
        """The geometric mean of the training losses' ratios; ``None`` if no problem has a ratio."""
        return self._mean("train loss")

    @cached_property
    def test(self) -> Contrast | None:
        """The same for the held-out loss."""
        return self._mean("test loss")

    @property
    def left_out(self) -> int:
        """Problems without a ratio, because of lost runs or of losses that are not positive."""
        return sum(problem.verdict.train is None or not problem.verdict.train.ratio for problem in self.problems)

    @property
    def outcome(self) -> str:
        """``better``, ``even`` or ``worse`` overall; never better if the first optimizer loses runs on a problem."""
        if any(problem.outcome == "worse" and problem.verdict.train is None for problem in self.problems):
            return "worse"
        if self.train is None or (self.test is not None and self.test.sign > 0):
            return "worse" if self.train is not None else "even"
        loses = any(comparison.optimizers[0].side(None).lost for comparison, _ in self._judged)
        return {-1: "even" if loses else "better", 0: "even", 1: "worse"}[self.train.sign]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        if not self.problems:
            return "no baseline to compare with"
        count = len(self.problems)
        rival, better = f"the best baseline of each of {count} problems", self.outcome == "better"
        parts = []
        if self.train is not None:
            shown = ", ".join(part for part in ("geometric mean", self.train.evidence) if part)
            whose = f"the training loss of {rival}" if better else "their training loss"
            parts.append(f"{self.train.text} of {whose} ({shown})")
        if self.test is not None:
            worse = f" ({self.test.evidence}), significantly worse" if self.test.sign > 0 else ""
            parts.append(f"held-out loss {self.test.text}{worse}")
        plural = {"win": "wins", "tie": "ties", "loss": "losses"}
        parts.append(", ".join(f"{n} {word if n == 1 else plural[word]}" for word, n in self.counts.items()))
        parts += [f"{self.left_out} without a ratio"] if self.left_out else []
        facts = "; ".join(parts)
        return facts if better else f"not better than {rival}: use those; {facts}"

    def _mean(self, quantity: str) -> Contrast | None:
        pairs: dict[str, list[numpy.ndarray]] = {}
        for comparison, verdict in self._judged:
            best = next(optimizer for optimizer in comparison.baselines if optimizer.name == verdict.baseline)
            sides = [o.quantities(None).get(quantity) for o in (comparison.optimizers[0], best)]
            if sides[0] is None or sides[1] is None:
                continue
            pair = numpy.stack([side.numpy() for side in sides if side is not None], 1)
            if numpy.isfinite(pair).all() and (pair > 0).all():
                pairs.setdefault(comparison.task, []).append(pair)
        return _overall([*pairs.values()]) if pairs else None

    @cached_property
    def profile(self) -> dict[str, list[tuple[float, float]]]:
        """The performance profile of the training loss; see :func:`performance_profile`."""
        names = [optimizer.name for optimizer in self.comparisons[0].optimizers]
        rows = [[_final(o) for o in comparison.optimizers] for comparison in self.comparisons]
        return dict(zip(names, performance_profile(numpy.array(rows))))

    def report(self, statistics: bool = False) -> str:
        """The verdict, the table of problems, the profile, and the tables of each problem as text."""
        parts = [wrapped(f"{self.first}: {self.line}")] if self.problems else []
        parts += [_problems(self)] if self.problems else []
        parts += [_profile(self)]
        return "\n\n".join([*parts, *(comparison.table() for comparison in self.comparisons)])

    def record(self, statistics: bool = False) -> dict[str, Any]:
        """Everything, JSON-serializable."""
        suite = {
            "first": self.first,
            "line": self.line,
            "outcome": self.outcome,
            "train": None if self.train is None else asdict(self.train),
            "test": None if self.test is None else asdict(self.test),
            "counts": self.counts,
            "problems": [
                {"task": p.task, "steps": p.steps, "outcome": p.outcome, "p_holm": p.p, **_row(p.verdict)}
                for p in self.problems
            ],
            "profile": {name: [list(point) for point in points] for name, points in self.profile.items()},
        }
        return {"suite": suite, "comparisons": [comparison.record(statistics) for comparison in self.comparisons]}

    def csv(self) -> str:
        """CSV with one row per run of all comparisons."""
        return csv_of([row for comparison in self.comparisons for row in comparison.rows()])


def performance_profile(losses: numpy.ndarray) -> list[list[tuple[float, float]]]:
    """For each optimizer, the steps (tau, fraction of problems on which its loss is at most tau times the lowest).

    The fraction holds from tau up to the next step. Lost runs never come within a factor. Problems whose lowest loss is
    not positive are left out. Source: Dolan and More, "Benchmarking optimization software with performance profiles",
    2002.

    Args:
        losses: Mean loss by problem and optimizer, [P, O]; infinite for lost runs.

    >>> performance_profile(numpy.array([[1.0, 2.0], [3.0, 1.5]]))
    [[(1.0, 0.5), (2.0, 1.0)], [(1.0, 0.5), (2.0, 1.0)]]
    """
    lowest = losses.min(1, initial=math.inf)
    used = losses[(lowest > 0) & numpy.isfinite(lowest)]
    if not len(used):
        return [[] for _ in range(losses.shape[1])]
    ratios = used / used.min(1, keepdims=True)
    return [
        [(float(tau), float((column <= tau).mean())) for tau in sorted({1.0, *column[numpy.isfinite(column)].tolist()})]
        for column in ratios.T
    ]


def _final(optimizer: OptimizerResult) -> float:
    lost, mean = optimizer.standing
    return math.inf if lost else mean


def _overall(tasks: Sequence[Sequence[numpy.ndarray]]) -> Contrast:
    """Geometric mean over tasks of the mean over horizons of mean(a)/mean(b), from pairs [S, 2]."""

    def log_ratio(means: numpy.ndarray) -> numpy.ndarray:
        return numpy.log(means[..., 0] / means[..., 1])

    observed = numpy.array([numpy.mean([log_ratio(pair.mean(0)) for pair in pairs]) for pairs in tasks])
    places = range(len(tasks))
    drawn = [
        [numpy.mean([log_ratio(resampling(len(pair), place) @ pair) for pair in pairs], 0) for pairs in tasks]
        for place in places
    ]  # [places, tasks, R]: seeds are drawn anew for each place, also if two places draw the same task
    resamples = len(drawn[0][0])
    chosen = numpy.random.default_rng(len(tasks)).integers(len(tasks), size=(len(tasks), resamples))
    means = numpy.mean([numpy.array(drawn[place])[chosen[place], range(resamples)] for place in places], 0)
    if len(tasks) > 1:
        p = paired_test(observed, numpy.zeros(len(tasks)))
        count = len(tasks)
    else:
        relative = [pair / pair[:, 1].mean() for pair in tasks[0]]
        p = paired_test(*numpy.mean(relative, 0).T)
        count = len(tasks[0][0])
    interval = interval_between(numpy.exp(means), count) if count > 1 else None
    return Contrast(float(numpy.exp(observed.mean())), interval, p)


def _row(verdict: Verdict) -> dict[str, Any]:
    record = verdict.record()
    return {key: record[key] for key in ("baseline", "described", "train", "test", "steps_ratio", "seconds_ratio")}


def _problems(suite: Suite) -> str:
    rows = [["task", "steps", "baseline", "ratio", "95% interval", "p", "test", "result"]]
    names = [*dict.fromkeys(problem.task for problem in suite.problems)]
    tasks = dict(zip(names, shortened(names)))
    for problem in suite.problems:
        train, test = problem.verdict.train, problem.verdict.test
        interval = "-" if train is None or train.interval is None else " to ".join(f"{x:.2f}" for x in train.interval)
        p = "-" if problem.p is None else f"{problem.p:.2g}"
        numbers = ["-" if train is None else train.text, interval, p, "-" if test is None else test.text]
        (baseline,) = shortened([problem.verdict.baseline])
        rows.append([tasks[problem.task], str(problem.steps), baseline, *numbers, OUTCOMES[problem.outcome]])
    note = "against the best baseline of each: ratios of the training and the test loss;"
    return f"{laid_out(rows)}\n{note}\nresults and p after Holm's correction for {len(suite.problems)} problems"


def _profile(suite: Suite) -> str:
    names = [*suite.profile]
    rows = [["within a factor of", *(f"{tau:g}" for tau in TAUS)]]
    within = {n: [max((f for at, f in suite.profile[n] if at <= tau), default=0.0) for tau in TAUS] for n in names}
    for short, name in sorted(zip(shortened(names), names), key=lambda pair: [-f for f in within[pair[1]]]):
        rows.append([short, *(f"{100 * fraction:.0f} %" for fraction in within[name])])
    return f"{laid_out(rows)}\nof the lowest training loss: share of the {len(suite.comparisons)} problems"
