"""How a run was produced: its phases, progress, settings, versions and hardware."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

from sol_learner.config import LearnConfig
from sol_learner.report.charts import Series, line_chart
from sol_learner.report.evidence import LogLine
from sol_learner.runtime.progress import Phase
from sol_learner.settings import as_text

__all__ = ["Origin", "duration"]

_PHASES = {
    Phase.TUNE: "tuning the starting rule",
    Phase.META_TRAIN: "meta-training the network",
    Phase.LIBRARY: "reading out the formula and searching a library of terms",
    Phase.PRUNE: "pruning terms",
    Phase.POLISH: "polishing constants",
    Phase.CHECK: "checking the rule on variants of the task",
    Phase.FRONT: "finding shorter formulas",
    Phase.COMPARE: "comparing on held-out seeds",
}
_SEARCHES = (Phase.LIBRARY, Phase.POLISH, Phase.FRONT)
_TRAINED = {
    "meta_loss": "mean loss per episode, training seeds",
    "loss": "final objective, validation seeds",
    "best": "lowest objective so far",
}
_POLISHED = {"meta_loss": "meta-loss", "loss": "median candidate", "best": "best candidate"}
_MACHINE = ("machine", "threads", "ranks", "jobs")


class Origin:
    """How a run on ``tasks`` was produced, from its summary and log."""

    def __init__(self, summary: Mapping[str, Any], log: Sequence[LogLine], tasks: Sequence[str]) -> None:
        self._summary, self._log, self._tasks = summary, log, tasks

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of each phase in seconds."""
        return {str(name): float(value) for name, value in self._summary.get("seconds", {}).items()}

    @property
    def timings(self) -> list[dict[str, Any]]:
        """Phases with their durations and shares of the total."""
        seconds = self.seconds
        total = sum(seconds.values()) or 1.0
        names = {phase.value: words for phase, words in _PHASES.items()}
        return [
            {"name": names.get(name, name), "seconds": duration(value), "share": round(100 * value / total, 1)}
            for name, value in seconds.items()
            if value >= 0.01  # others did not take place
        ]

    @cached_property
    def progress(self) -> list[dict[str, Any]]:
        """A chart for each logged phase."""
        found: list[dict[str, Any]] = []
        for title, lines in _parts(self._log):
            phase = lines[0].phase
            names = [name for name in ("meta_loss", "loss", "best") if any(name in line.numbers for line in lines)]
            trained, searched = phase == Phase.META_TRAIN, phase in _SEARCHES and "best" in names
            if len(lines) < 2 or not names or not (trained or searched):
                continue
            labels = _TRAINED if trained else _POLISHED
            series = [
                Series(
                    labels[name],
                    [line.step for line in lines if name in line.numbers],
                    [line.numbers[name] for line in lines if name in line.numbers],
                )
                for name in names
            ]
            axis = "episode" if trained else "generation"
            words = f"Loss by step: {title}."
            values = [value for line in series for value in line.y]
            wide = min(values) > 0 and max(values) > 20 * min(values)
            chart = line_chart(series, axis, "loss", words, dots=True, whole=True, ylog=wide)
            found.append({"name": title, "chart": chart})
        return found

    @property
    def reached(self) -> list[dict[str, Any]]:
        """For an unfinished run: the phases that have started."""
        return [
            {
                "name": title,
                "steps": lines[-1].step,
                "seconds": duration(lines[-1].seconds),
                "numbers": lines[-1].numbers,
            }
            for title, lines in _parts(self._log)
        ]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every setting with its value, its description and whether it differs from the default."""
        config = self._summary.get("config", {})
        explained = LearnConfig.explanations()
        defaults = {item.name: item.default for item in fields(LearnConfig)}
        return [
            {
                "name": str(name),
                "value": as_text(value),
                "meaning": explained.get(name, ""),
                "changed": name in defaults and as_text(value) != as_text(defaults[name]),
            }
            for name, value in config.items()
        ]

    @property
    def command(self) -> str:
        """The command or the code that reproduces the run; of a run that kept neither, by its settings."""
        if "command" in self._summary:
            return str(self._summary["command"])
        budget = self._summary.get("budget")
        changed = [
            f"--{item['name'].replace('_', '-')} {shlex.quote(item['value'])}"
            for item in self.settings
            if item["changed"]
        ]
        limit = [f"--budget {budget:g}s"] if isinstance(budget, int | float) else []
        return " ".join(["sol learn", *map(shlex.quote, self._tasks), "--out runs/again", *limit, *changed])

    @property
    def versions(self) -> list[tuple[str, str]]:
        """Software versions and machine."""
        found = [(str(name), str(version)) for name, version in self._summary.get("versions", {}).items()]
        return found + [(name, str(self._summary[name])) for name in _MACHINE if name in self._summary]


def _parts(log: Sequence[LogLine]) -> list[tuple[str, list[LogLine]]]:
    """Log lines grouped by title, in log order."""
    found: list[tuple[str, list[LogLine]]] = []
    for line in log:
        if not found or (found[-1][1][0].phase, found[-1][0]) != (line.phase, line.title):
            found.append((line.title, []))
        found[-1][1].append(line)
    return found


def duration(seconds: float) -> str:
    """A duration in human-readable form."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
