"""Sources of a report: a run folder or the JSON of a comparison or a study, read and validated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from sol_learner.comparing.verdict import Contrast, Side, Verdict, judge, standing
from sol_learner.report.schema import COMPARISON, FRONT, LOG_LINE, STUDY, SUITE, SUMMARY, TABLES, check, read_json
from sol_learner.runtime.checkpoints import CHECKPOINTS
from sol_symbols import RuleError, SolError, UpdateRule, resolve_rule
from sol_symbols.files import is_regular, read_regular
from sol_symbols.resolve import MAX_BYTES

__all__ = [
    "ComparisonRecord",
    "Difference",
    "Evidence",
    "FrontRecord",
    "LogLine",
    "OptimizerRecord",
    "SuiteRecord",
    "Table",
    "read_evidence",
]

_OF_A_RUN = {
    "lowest loss": ("best_loss", 1.0),
    "area under the curve": ("area", 1.0),
    "steps to target": ("steps_to_target", 1.0),
    "seconds to target": ("seconds_to_target", 1.0),
    "ms per step": ("seconds_per_step", 1e-3),
    "peak memory, MB": ("peak_bytes", 1e6),
}
"""Per-run quantities in a comparison's JSON other than metrics: name on the page, key in the JSON, unit."""


@dataclass(frozen=True)
class OptimizerRecord:
    """One optimizer in a comparison.

    Attributes:
        name: Name in tables.
        rule: Formula as text, or another description; may be empty.
        lr: Learning rate of its runs.
        tuning: Every (learning rate, objective) pair tried in tuning.
        metrics: One value per held-out episode by (split, name); nan where the run diverged. Quantities without a
            split, such as the time per step, have the split ``""``.
        curve: Mean loss of each step's batch, [T].
        spread: Standard deviation of the curve over episodes, [T].
        runs: Number of runs behind ``curve`` and ``spread``; ``None`` if unknown.
        diverged: Number of runs that diverged.
        remarks: One line per diverged or failed run.
    """

    name: str
    rule: str = ""
    lr: float | None = None
    tuning: tuple[tuple[float, float], ...] = ()
    metrics: Mapping[tuple[str, str], numpy.ndarray] = field(default_factory=dict)
    curve: numpy.ndarray | None = None
    spread: numpy.ndarray | None = None
    runs: int | None = None
    diverged: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """The first optimizer minus another, paired over episodes: mean, interval and p-value."""

    baseline: str
    quantity: str
    mean: float | None
    interval: tuple[float, float] | None
    p: float | None


@dataclass(frozen=True)
class ComparisonRecord:
    """Optimizers on the same held-out episodes of one task.

    Attributes:
        task: Name of the task.
        horizon: Steps of each run.
        seed: Base seed.
        episodes: Number of held-out episodes.
        results: One per optimizer, in the order of the training loss.
        first: Name of the optimizer that is compared with the others.
        verdict: Whether it is better; ``None`` without a baseline.
        differences: Its differences from the baselines.
        target: The loss that defines steps to target.
    """

    task: str
    horizon: int | None
    seed: int | None
    episodes: int
    results: tuple[OptimizerRecord, ...]
    first: str = ""
    verdict: Verdict | None = None
    differences: tuple[Difference, ...] = ()
    target: float | None = None


@dataclass(frozen=True)
class SuiteRecord:
    """What several comparisons say together.

    Attributes:
        first: Name of the optimizer of interest.
        line: The verdict.
        outcome: One of :data:`~sol_learner.comparing.verdict.OUTCOMES`.
        rows: For each problem, task, steps, outcome, the best baseline, the ratio of the training loss, and of the
            held-out loss, to its, and the p-value after Holm's correction.
        profile: The performance profile: (factor, fraction of the problems) by optimizer.
    """

    first: str
    line: str
    outcome: str
    rows: tuple[tuple[str, int, str, str, Contrast | None, Contrast | None, float | None], ...]
    profile: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class FrontRecord:
    """A rule on the front, with its objective on the validation stream."""

    terms: int
    loss: float
    rule: UpdateRule


@dataclass(frozen=True)
class LogLine:
    """A line of ``metrics.jsonl``; ``numbers`` has only the finite ones.

    ``phase`` is a value of :class:`~sol_learner.runtime.progress.Phase`, ``title`` its display text.
    """

    phase: str
    title: str
    step: int
    seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """A table that a study shows unchanged; each row starts with a name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


@dataclass(frozen=True)
class Evidence:
    """Everything read from a source; parts that it does not contain are empty.

    Attributes:
        name: Name of the folder or file.
        kind: ``"run"``, ``"unfinished"`` (a run without a rule yet), ``"comparison"`` or ``"study"``.
        rule: The learned rule.
        rules: Rules of a study by name.
        study: A study's description: ``shows``, ``title``, ``size``, ``settings``, ``budget``, ``notes``.
        summary: ``summary.json`` of a run.
        tables: What a study measured in addition to comparisons.
        comparisons: One per task.
        suite: What they say together, if they were made together.
        front: Rules of other lengths.
        log: The run's log.
        files: Contents of the downloadable files, by name.
        described: Descriptions of these files, by name.
    """

    name: str
    kind: str
    rule: UpdateRule | None = None
    rules: Mapping[str, UpdateRule] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    comparisons: tuple[ComparisonRecord, ...] = ()
    suite: SuiteRecord | None = None
    front: tuple[FrontRecord, ...] = ()
    log: tuple[LogLine, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)


def read_evidence(source: Path) -> Evidence:
    """Read a run folder, the output of ``sol compare --json``, or the JSON of a study.

    A study's JSON has such comparisons under ``comparisons``, or a single one under ``comparison``, or ``tables`` with
    ``title``, ``head`` and ``rows``, or both.

    Raises:
        SolError: ``source`` does not exist or is none of these, or a file is corrupted.
    """
    if source.is_dir():
        return _read_run(source)
    if not source.is_file():
        raise SolError(f"{source} does not exist; pass a run folder or a JSON file written by sol compare --json")
    record = read_json(source)
    table = record if isinstance(record, Mapping) else {}
    shown = table.get("tables")
    studied = table.get("comparisons", table.get("comparison", None if shown is None else []))
    given = record if studied is None else studied
    records = given if isinstance(given, list) else [given]
    if not ((records or shown) and all(isinstance(item, Mapping) and "optimizers" in item for item in records)):
        hint = "; pass the run folder instead" if {"expression", "config"} & {*table} else ""
        raise SolError(f"{source} was not written by sol compare --json: 'optimizers' is missing{hint}")
    if studied is None or "suite" in table:
        suite = _suite(table["suite"], source) if "suite" in table else None
        return Evidence(source.stem, "comparison", comparisons=_comparisons(records, source), suite=suite)
    rules = table.get("rules", {"learned": table["rule"]} if "rule" in table else {})
    if not (isinstance(table.get("study", {}), Mapping) and isinstance(rules, Mapping)):
        raise SolError(f"{source} is not a valid study file: 'study' and 'rules' must be tables")
    return Evidence(
        source.stem,
        "study",
        rules={str(name): UpdateRule.parse(str(text)) for name, text in rules.items()},
        study=check(STUDY, table.get("study", {}), source, "study"),
        tables=_tables(shown or [], source),
        comparisons=_comparisons(records, source),
    )


def _tables(records: Any, path: Path) -> tuple[Table, ...]:
    check(TABLES, records, path, "study, 'tables'")
    tables = [Table(t["title"], tuple(t["head"]), tuple(map(_row, t["rows"]))) for t in records]
    if any(len(row) != len(table.head) for table in tables for row in table.rows):
        raise SolError(f"{path} is not a valid study file: every row of a table must be as long as its head")
    return tuple(tables)


def _row(cells: Sequence[Any]) -> tuple[str | float, ...]:
    name, *numbers = cells
    return (str(name), *map(float, numbers))


def _read_run(folder: Path) -> Evidence:
    finished, started = os.path.lexists(folder / "rule.json"), os.path.lexists(folder / "metrics.jsonl")
    if not (finished or started or (folder / CHECKPOINTS).is_dir()):
        raise SolError(f"{folder} is not a run folder: it contains neither rule.json nor metrics.jsonl")
    log = _log(folder / "metrics.jsonl") if started else ()
    name = folder.resolve().name
    if not finished:
        return Evidence(name, "unfinished", log=log)
    read_regular(folder / "rule.json", MAX_BYTES)  # a link is not followed
    path, front = folder / "summary.json", folder / "front.json"
    summary = read_json(path) if os.path.lexists(path) else {}
    if not isinstance(summary, Mapping):
        raise SolError(f"{path} is not a run summary: it must contain a JSON object")
    check(SUMMARY, summary, path, "summary")
    described = _described(summary, path)
    return Evidence(
        name,
        "run",
        resolve_rule(str(folder)),
        summary=summary,
        comparisons=_comparisons(summary.get("comparison", []), path),
        front=_front(front) if os.path.lexists(front) else (),
        log=log,
        files={name: _embedded(folder / name) for name in described if _is_plain(folder / name)},
        described=described,
    )


def _described(summary: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Names and descriptions of the downloadable files, from the summary."""
    files = summary.get("files", {})
    if not isinstance(files, Mapping) or any(name != Path(name).name for name in files):
        raise SolError(f"{path} is corrupted: 'files' must map names of files in the run folder to descriptions")
    return {str(name): str(what) for name, what in files.items()}


def _is_plain(path: Path) -> bool:
    """Whether a file may be embedded: not a symbolic link, and small enough for the page."""
    return is_regular(path) and path.stat().st_size <= MAX_BYTES


def _embedded(path: Path) -> bytes:
    return read_regular(path, MAX_BYTES)


def _comparisons(records: Any, path: Path) -> tuple[ComparisonRecord, ...]:
    return tuple(_comparison(check(COMPARISON, record, path, "comparison")) for record in records)


def _suite(record: Mapping[str, Any], path: Path) -> SuiteRecord:
    check(SUITE, record, path, "suite")
    rows = tuple(_problem(row) for row in record["problems"])
    profile = {
        name: tuple((float(tau), float(fraction)) for tau, fraction in points)
        for name, points in record["profile"].items()
    }
    return SuiteRecord(record["first"], record["line"], record["outcome"], rows, profile)


def _problem(row: Mapping[str, Any]) -> tuple[str, int, str, str, Contrast | None, Contrast | None, float | None]:
    train, test = (None if row[name] is None else Contrast.from_record(row[name]) for name in ("train", "test"))
    names = str(row["task"]), int(row["steps"]), str(row["outcome"]), str(row["baseline"])
    return (*names, train, test, _number(row["p_holm"]))


def _comparison(record: Mapping[str, Any]) -> ComparisonRecord:
    given = tuple(_result(optimizer) for optimizer in record["optimizers"])
    results = tuple(sorted(given, key=lambda result: standing(result.metrics.get(_TRAIN, numpy.array([numpy.nan])))))
    counts = [len(values) for result in results for values in result.metrics.values()]
    horizon, seed = record.get("horizon"), record.get("seed")
    return ComparisonRecord(
        str(record["task"]),
        None if horizon is None else int(horizon),
        None if seed is None else int(seed),
        max([len(record.get("episodes", ())), *counts]),
        results,
        given[0].name if given else "",
        _verdict(record, given),
        tuple(_difference(row) for row in record.get("differences") or ()),
        _number(record.get("target")),
    )


def _verdict(record: Mapping[str, Any], results: Sequence[OptimizerRecord]) -> Verdict | None:
    """The recorded verdict; of files that have none, the one that their losses give."""
    if "verdict" in record:
        return None if record["verdict"] is None else Verdict.from_record(record["verdict"])
    sides = [Side(r.name, r.metrics[_TRAIN], r.metrics.get(_TEST)) for r in results if _TRAIN in r.metrics]
    if not results or _TRAIN not in results[0].metrics or len({len(side.train) for side in sides}) > 1:
        return None
    return judge(sides[0], sides[1:], int(record.get("horizon") or 1))


_TRAIN, _TEST = ("train", "loss"), ("test", "loss")


def _difference(record: Mapping[str, Any]) -> Difference:
    interval = record.get("interval")
    return Difference(
        str(record["baseline"]),
        str(record["quantity"]),
        _number(record.get("mean")),
        None if interval is None else (float(interval[0]), float(interval[1])),
        _number(record.get("p_holm")),
    )


def _result(record: Mapping[str, Any]) -> OptimizerRecord:
    metrics = {
        (str(split), str(name)): numbers
        for split, table in record.get("metrics", {}).items()
        for name, numbers in ((name, _numbers(values)) for name, values in table.items())
        if len(numbers)
    }
    for name, (key, unit) in _OF_A_RUN.items():
        if isinstance(record.get(key), list | tuple):
            metrics["", name] = _numbers(record[key]) / unit
    failed = [int(seed) for seed in record.get("failed") or ()]
    for name in ("steps to target", "seconds to target"):
        values = metrics.get(("", name))
        if values is not None:  # missed, unless the run failed
            metrics["", name] = numpy.where(
                numpy.isnan(values) & ~numpy.isin(range(len(values)), failed), numpy.inf, values
            )
    diverged = [f"seed {seed} after step {step}" for seed, step in (record.get("diverged") or {}).items()]
    remarks = [f"diverged: {', '.join(diverged)}"] if diverged else []
    remarks += [f"seed {seed} failed: {error}" for seed, error in (record.get("failed") or {}).items()]
    curve, spread = (_numbers(record[key]) if record.get(key) else None for key in ("batch_loss", "batch_loss_std"))
    return OptimizerRecord(
        str(record["name"]),
        str(record.get("rule") or ""),
        _number(record.get("lr")),
        tuple((float(rate), math.nan if loss is None else float(loss)) for rate, loss in record.get("tuning") or ()),
        metrics,
        curve,
        spread,
        None if record.get("batch_loss_runs") is None else int(record["batch_loss_runs"]),
        len(record.get("diverged") or {}),
        tuple(remarks),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Sequence[Any]) -> numpy.ndarray:
    """Numbers of runs; nan where there is none, or one that is too large to mean anything."""
    numbers = numpy.asarray(values, float)
    return numpy.where(abs(numbers) < 1e100, numbers, numpy.nan)


def _front(path: Path) -> tuple[FrontRecord, ...]:
    points = check(FRONT, read_json(path), path, "front")
    try:
        found = [
            FrontRecord(point["terms"], float(point["loss"]), UpdateRule.from_json(json.dumps(point["rule"])))
            for point in points
            if point["loss"] is not None and abs(point["loss"]) < 1e100
        ]
    except RuleError as error:
        raise SolError(f"{path} is corrupted: {error}") from None
    return tuple(sorted(found, key=lambda point: (point.terms, point.loss)))


def _log(path: Path) -> tuple[LogLine, ...]:
    """Every complete line; an interrupted run may end with a partial one."""
    lines = []
    try:
        texts = read_regular(path, 10 * MAX_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise SolError(f"cannot read {path}: {error}") from None
    for number, text in enumerate(texts, 1):
        try:
            record = json.loads(text)
            if not isinstance(record, dict):
                raise SolError("not a table")
            if "step" in record:
                lines.append(_log_line(check(LOG_LINE, record, path, "line")))
        except (ValueError, RecursionError, SolError) as error:
            if number < len(texts):
                raise SolError(f"{path} is corrupted in line {number}: {error}") from None
    return tuple(lines)


def _log_line(record: Mapping[str, Any]) -> LogLine:
    given = {name: value for name, value in record.items() if name not in ("phase", "title", "step", "seconds")}
    shown = {name: float(value) for name, value in given.items() if type(value) in (int, float) and abs(value) < 1e100}
    return LogLine(record["phase"], record["title"], record["step"], float(record["seconds"]), shown)
