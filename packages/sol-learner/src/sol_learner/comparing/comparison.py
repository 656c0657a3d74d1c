"""The result of a comparison: all per-run numbers, the verdict, significance tests, tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from sol_learner.comparing.optimizer_result import OptimizerResult, finite_mean
from sol_learner.comparing.significance import bootstrap_interval, holm, paired_test
from sol_learner.comparing.tables import laid_out, median_of, reached, shortened, spread
from sol_learner.comparing.verdict import Verdict, judge
from sol_learner.task import Stream

__all__ = ["Comparison", "csv_of", "wrapped"]


DERIVED = ("best loss", "area")
"""Quantities derived from the losses during training."""

TARGETS = ("steps to target", "seconds to target")
"""Quantities that are infinite for a run that misses the target: they have medians, not means."""


@dataclass(frozen=True)
class Comparison:
    """Results of optimizers on the same evaluation episodes; the first is compared with the others.

    Attributes:
        task: Name of the task.
        seed: Base seed of all random streams.
        episodes: Number of evaluation episodes, S.
        horizon: Inner steps, T.
        optimizers: Results in the order given.
        target: The loss that defines ``steps to target``.
        protocol: What was tuned and how; threads; versions.
        references: Names of optimizers that tables show for reference, but that are no baselines.
    """

    task: str
    seed: int
    episodes: int
    horizon: int
    optimizers: list[OptimizerResult]
    target: float | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()

    @property
    def contenders(self) -> list[OptimizerResult]:
        """Earlier name of :attr:`optimizers`."""
        return self.optimizers

    @property
    def baselines(self) -> list[OptimizerResult]:
        """All but the first and the references."""
        return [optimizer for optimizer in self.optimizers[1:] if optimizer.name not in self.references]

    @property
    def ranked(self) -> list[OptimizerResult]:
        """All optimizers by their training loss, the best first; those that lost runs come last."""
        return sorted(self.optimizers, key=lambda optimizer: optimizer.standing)

    @property
    def baseline_target(self) -> float | None:
        """The mean final :attr:`~OptimizerResult.smooth` of the best baseline: the first has no part in it."""
        best = min(self.baselines, key=lambda optimizer: optimizer.standing, default=None)
        end = math.nan if best is None else finite_mean(best.smooth[-1])
        return end if math.isfinite(end) else None

    def verdict(self) -> Verdict | None:
        """Whether the first optimizer is better than the best baseline; ``None`` without a baseline."""
        first, *_ = self.optimizers
        sides = [optimizer.side(self.target) for optimizer in self.baselines]
        return judge(first.side(self.target), sides, self.horizon)

    @property
    def metrics(self) -> list[str]:
        """Quantities in the first table: training loss and all of the task's metrics on the test split."""
        first = self.optimizers[0].outcome.metrics["test"]
        return ["train loss", *(f"test {name}" for name in first)]

    @property
    def failures(self) -> list[str]:
        """One line per failed run."""
        return [f"{c.name}, seed {episode}: {error}" for c in self.optimizers for episode, error in c.failed.items()]

    def differences(self) -> list[dict[str, Any]]:
        """The first optimizer minus each baseline, paired over episodes, for each quantity.

        ``mean`` and ``interval`` of the difference, ``p`` of the paired test, ``p_holm`` adjusted for the number of
        baselines; ``None`` if undefined. See ``sol_learner.comparing.significance``.
        """
        first, baselines = self.optimizers[0].quantities(self.target), self.baselines
        others = [optimizer.quantities(self.target) for optimizer in baselines]
        rows: list[dict[str, Any]] = []
        for quantity in [*self.metrics, *(name for name in DERIVED if name in first)]:
            pairs = [(first[quantity].tolist(), other[quantity].tolist()) for other in others]
            values = [paired_test(mine, theirs) for mine, theirs in pairs]
            for optimizer, (mine, theirs), p, adjusted in zip(baselines, pairs, values, holm(values)):
                difference = [a - b for a, b in zip(mine, theirs)]
                mean = sum(difference) / len(difference)
                rows.append(
                    {
                        "first": self.optimizers[0].name,
                        "baseline": optimizer.name,
                        "quantity": quantity,
                        "mean": mean if math.isfinite(mean) else None,
                        "interval": bootstrap_interval(difference),
                        "p": p,
                        "p_holm": adjusted,
                    }
                )
        return rows

    def table(self) -> str:
        """A text table of final losses and metrics: mean and standard deviation over episodes."""
        pairs = _named(self)
        return "\n\n".join([*_verdict(self), _results(self, pairs), *_lost(self, pairs)])

    def report(self, statistics: bool = False) -> str:
        """The verdict and all tables as text, 80 columns wide if names are short; ``statistics`` adds tests."""
        pairs = _named(self)
        parts = [*_verdict(self, code=True), _results(self, pairs), _speed(self, pairs)]
        if self.protocol.get("tune"):
            parts.append(_tuning(self.protocol, pairs))
        if statistics and self.baselines and self.episodes > 1:
            parts.append(_tests(self, {optimizer.name: name for name, optimizer in pairs}))
        return "\n\n".join([*parts, *_lost(self, pairs)])

    def record(self, statistics: bool = False) -> dict[str, Any]:
        """Everything, JSON-serializable; non-finite numbers are ``None``. ``statistics`` adds tests and times.

        ``steps_to_target`` of a run that missed the target is ``None``, too.
        """
        verdict = self.verdict()
        if verdict is not None and not statistics:  # times would make the record of a run irreproducible
            verdict = replace(verdict, seconds_ratio=None)
        record: dict[str, Any] = {
            "verdict": None if verdict is None else verdict.record(),
            "task": self.task,
            "seed": self.seed,
            "stream": Stream.EVALUATE.name.lower(),
            "episodes": list(range(self.episodes)),
            "horizon": self.horizon,
            "target": self.target,
            "protocol": dict(self.protocol),
            "references": list(self.references),
            "optimizers": [self._entry(optimizer, statistics) for optimizer in self.optimizers],
            "failures": self.failures,
        }
        if statistics:
            record["differences"] = self.differences()
        return record

    def _entry(self, optimizer: OptimizerResult, statistics: bool) -> dict[str, Any]:
        mean, spread, runs = optimizer.curve
        entry: dict[str, Any] = {
            "name": optimizer.name,
            "rule": None if optimizer.rule is None else str(optimizer.rule),
            "lr": optimizer.lr,
            "settings": dict(optimizer.settings),
            "trainings": optimizer.trainings,
            "tuning": optimizer.tuning,
            "trials": optimizer.trials,
            "metrics": {
                split: {name: _plain(values[0]) for name, values in metrics.items()}
                for split, metrics in optimizer.outcome.metrics.items()
            },
            "batch_loss": _plain(mean),
            "batch_loss_std": _plain(spread),
            "batch_loss_runs": runs,
            "diverged": {str(episode): step for episode, step in optimizer.diverged.items()},
            "failed": {str(episode): error for episode, error in optimizer.failed.items()},
            "state_bytes": optimizer.state_bytes,
        }
        derived = optimizer.quantities(self.target)
        further = [name for name in DERIVED if name in derived]
        timed = [name for name in TARGETS if name in derived and (statistics or name != "seconds to target")]
        entry |= {name.replace(" ", "_"): _plain(derived[name]) for name in [*further, *timed]}
        if statistics:
            measured = [*self.metrics, *further]
            entry["intervals"] = {name: bootstrap_interval(derived[name].tolist()) for name in measured}
            entry["seconds_per_step"] = _plain(optimizer.seconds)
            entry["peak_bytes"] = _plain(optimizer.peak_bytes)
        return entry

    def csv(self) -> str:
        """CSV with one row per run and all of its measurements."""
        return csv_of(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """One row per run and all of its measurements, by column."""
        rows: list[dict[str, Any]] = []
        for optimizer in self.optimizers:
            quantities = optimizer.quantities(self.target)
            for episode in range(self.episodes):
                row: dict[str, Any] = {"task": self.task, "optimizer": optimizer.name, "seed": episode}
                row |= {"base_seed": self.seed, "steps": self.horizon, **optimizer.settings}
                row |= {name.replace(" ", "_"): _cell(values[episode]) for name, values in quantities.items()}
                row |= {"ms_per_step": _cell(1e3 * optimizer.seconds[episode])}
                row |= {"peak_MB": _cell(optimizer.peak_bytes[episode] / 1e6), "state_bytes": optimizer.state_bytes}
                row |= {"diverged_after_step": optimizer.diverged.get(episode), "failed": optimizer.failed.get(episode)}
                rows.append(row)
        return rows


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a column for each key of any row."""
    file = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def wrapped(line: str) -> str:
    """A line as text of 80 columns."""
    glued = line.replace(" %", "\N{NO-BREAK SPACE}%")
    filled = textwrap.fill(glued, 80, subsequent_indent="  ", break_on_hyphens=False)
    return filled.replace("\N{NO-BREAK SPACE}", " ")


def _plain(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _cell(value: Tensor) -> float | None:
    """A number; ``None`` where there is none. A target that was missed is infinite."""
    number = float(value)
    return None if math.isnan(number) else float(f"{number:.8g}")


def _named(comparison: Comparison) -> list[tuple[str, OptimizerResult]]:
    """Results with their names in tables, the lowest training loss first."""
    ranked = comparison.ranked
    return list(zip(shortened([optimizer.name for optimizer in ranked]), ranked))


def _verdict(comparison: Comparison, code: bool = False) -> list[str]:
    """The verdict's line and, unless the first optimizer is better, code for the baseline to use."""
    verdict = comparison.verdict()
    if verdict is None:
        return []
    lines = [wrapped(f"{verdict.first}: {verdict.line}")]
    return lines + (
        [textwrap.indent(verdict.code.rstrip(), "    ")] if code and verdict.code and verdict.advised else []
    )


def _lost(comparison: Comparison, pairs: Sequence[tuple[str, OptimizerResult]]) -> list[str]:
    lines = [
        f"{name}: {len(c.diverged)} of {comparison.episodes} runs diverged"
        f" ({', '.join(f'seed {e} after step {t}' for e, t in c.diverged.items())}); means are over the others"
        for name, c in pairs
        if c.diverged
    ]
    lines += [f"FAILED: {line}" for line in comparison.failures]
    return ["\n".join(lines)] if lines else []


def _results(comparison: Comparison, pairs: Sequence[tuple[str, OptimizerResult]]) -> str:
    columns = [*comparison.metrics[:2], *comparison.metrics[2:3]]
    rows = [["optimizer", "lr", *columns]]
    for name, optimizer in pairs:
        quantities = optimizer.quantities(None)
        tuned = " tuned" if optimizer.trials else ""
        rows.append([name, f"{optimizer.lr:.3g}{tuned}", *(spread(quantities[column]) for column in columns)])
    over = f"mean ± standard deviation over {comparison.episodes} held-out seeds"
    return f"{laid_out(rows)}\n{comparison.task}, {comparison.horizon} steps; {over}"


def _speed(comparison: Comparison, pairs: Sequence[tuple[str, OptimizerResult]]) -> str:
    rows = [["optimizer", "best", "area", "to target", "in s", "ms/step", "state kB", "peak MB"]]
    for name, optimizer in pairs:
        quantities = optimizer.quantities(comparison.target)
        numbers = [f"{finite_mean(quantities[column]):.4f}" for column in ("best loss", "area")]
        steps, seconds = (quantities.get(column) for column in TARGETS)
        numbers += ["-" if steps is None else reached(steps), "-" if seconds is None else median_of(seconds)]
        sizes = [1e3 * finite_mean(optimizer.seconds), (optimizer.state_bytes or 0) / 1e3]
        sizes.append(finite_mean(optimizer.peak_bytes) / 1e6)
        rows.append([name, *numbers, *("-" if math.isnan(size) else f"{size:.3g}" for size in sizes)])
    window = max(1, comparison.horizon // 20)
    note = f"batch losses, means over {window} steps" if window > 1 else "batch losses"
    if comparison.target is not None:
        note += f"; medians to the target {comparison.target:.4g}"
    return f"{laid_out(rows)}\n{note}; peak memory is for the whole process"


def _tuning(protocol: Mapping[str, Any], pairs: Sequence[tuple[str, OptimizerResult]]) -> str:
    criterion = {"objective": "objective", "train": "training loss", "valid": "validation loss"}[protocol["tune_for"]]
    lines = [
        f"tuned: {protocol['tune']}, {protocol['trainings']} trainings each, by the {criterion} after the last step"
    ]
    for name, optimizer in pairs:
        if optimizer.trials and len(optimizer.settings) > 1:
            lines.append(f"  {name}: {', '.join(f'{key} {value}' for key, value in optimizer.settings.items())}")
    return "\n".join(lines)


def _tests(comparison: Comparison, short: Mapping[str, str]) -> str:
    rows = [["difference in", "against", "mean", "95% interval", "p (Holm)"]]
    for row in comparison.differences():
        if row["quantity"] in comparison.metrics[:3]:
            interval = row["interval"]
            shown = "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
            mean = "-" if row["mean"] is None else f"{row['mean']:+.4f}"
            p = "-" if row["p_holm"] is None else f"{row['p_holm']:.2g}"
            rows.append([row["quantity"], short[row["baseline"]], mean, shown, p])
    first, count = short[comparison.optimizers[0].name], len(comparison.baselines)
    return f"{laid_out(rows)}\n{first} minus each; bootstrap; paired t-test, Holm correction for {count}"
