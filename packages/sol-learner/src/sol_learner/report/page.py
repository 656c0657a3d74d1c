"""The page: what the evidence says, laid out by a template that escapes everything that comes from files."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy
from markupsafe import Markup

from sol_learner.config import LearnConfig, as_text
from sol_learner.report.charts import Chart, Mark, Series, front_chart, line_chart
from sol_learner.report.evidence import DOWNLOADS, Comparison, Evidence, LogLine, Result, read_evidence
from sol_symbols import UpdateRule, format_expression, parity, responses, scaling_degree, write_atomically
from sol_symbols.plugins import find_plugins, load_plugin

__all__ = ["report_page", "write_report"]

_RESAMPLES = 2_000
_PHASES = {
    "tune": "tuning the starting rule",
    "meta-train": "meta-training the network",
    "widen": "reading the formula out, and a search over a library of terms",
    "prune": "dropping terms",
    "polish": "polishing constants",
    "front": "shorter formulas",
    "compare": "comparing on held-out seeds",
}


def write_report(source: str | Path, target: str | Path) -> None:
    """Write :func:`report_page` of ``source`` to ``target``.

    Raises:
        SolError: ``source`` is not what reports are made of, or ``target`` cannot be written.
    """
    write_atomically(target, report_page(source))


def report_page(source: str | Path) -> str:
    """A run, or a comparison, as one HTML page that needs no other file and no network.

    Args:
        source: The folder that ``sol learn`` wrote, also one of a run that is not finished, or the JSON that
            ``sol compare --json`` wrote.

    Raises:
        SolError: ``source`` is neither, or a file of it is damaged.
    """
    import jinja2

    evidence = read_evidence(Path(source))
    folder = resources.files("sol_learner.report") / "templates"
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["sig"] = _digits
    script = base64.b64encode(hashlib.sha256(parts["page.js"].encode()).digest()).decode()
    return environment.from_string(parts["page.html"]).render(
        page=_Page(evidence),
        evidence=evidence,
        css=Markup(parts["page.css"]),
        script=Markup(parts["page.js"]),
        script_hash=script,
        version=metadata.version("sol-learner"),
    )


class _Formulas:
    """Formulas as MathML where an exporter for it is installed, as text elsewhere."""

    def __init__(self) -> None:
        point = find_plugins("sol.exporters").get("mathml")
        exporter = load_plugin("sol.exporters", point)() if point else None
        self._exporter = exporter if hasattr(exporter, "formula") and hasattr(exporter, "symbols") else None

    def formula(self, rule: UpdateRule) -> Markup:
        """phi of a rule."""
        if self._exporter:
            return Markup(self._exporter.formula(rule))
        return Markup('<div class="formula"><code>φ = {}</code></div>').format(_rounded(rule))

    def step(self, rule: UpdateRule) -> Markup:
        """What the optimizer does at a step."""
        if self._exporter:
            return Markup(self._exporter.step(rule))
        return Markup('<div class="formula"><code>w ← w − lr · φ</code></div>')

    def symbols(self, rule: UpdateRule) -> Markup:
        """A table of what the formula's symbols mean."""
        if self._exporter:
            return Markup(self._exporter.symbols(rule))
        tables: dict[str, Any] = {**rule.vocabulary.features, **rule.vocabulary.recurrences}
        rows = Markup("").join(
            Markup("<tr><td><code>{}</code></td><td>{}</td><td><code>{}</code></td></tr>").format(
                name, tables[name].description, format_expression(rule.vocabulary.definitions[name])
            )
            for name in rule.live
        )
        head = Markup("<tr><th>name</th><th>meaning</th><th>definition</th></tr>")
        return Markup('<table class="symbols"><thead>{}</thead><tbody>{}</tbody></table>').format(head, rows)


@dataclass(frozen=True)
class _Cell:
    """A mean, its interval, how many runs have no number, and whether it is the lowest loss of its column."""

    mean: float
    low: float
    high: float
    lost: int = 0
    best: bool = False


@dataclass(frozen=True)
class _Verdict:
    """One fact in large type; ``kind`` is good, bad, even or plain."""

    value: str
    what: str
    note: str
    kind: str = "plain"


class _Page:
    """What the template asks for."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._summary = evidence.summary
        self.formulas = _Formulas()

    # -- the head -------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        named = self._summary.get("tasks") or [comparison.task for comparison in self._evidence.comparisons]
        return [str(name) for name in named]

    @property
    def title(self) -> str:
        """The page's title."""
        tasks = " and ".join(self.tasks)
        if self._evidence.kind == "comparison":
            return f"Optimizers compared on {tasks}"
        if self._evidence.kind == "unfinished":
            return f"A run that is not finished: {self._evidence.name}"
        return f"A learned optimizer for {tasks}" if tasks else f"A learned optimizer: {self._evidence.name}"

    @cached_property
    def verdicts(self) -> list[_Verdict]:
        """What a reader wants to know first: losses against the best baseline, memory, time."""
        found = []
        for comparison in self._evidence.comparisons[:1]:
            for split, words in (("train", "training loss at the end"), ("test", "test loss at the end")):
                verdict = _against_best(comparison, (split, "loss"), words)
                found += [verdict] if verdict else []
        rule = self._evidence.rule
        if rule is not None:
            size = rule.complexity
            found.append(_Verdict(str(size.terms), "terms", "additive terms of the formula"))
            note = "numbers kept per parameter; Adam keeps 2"
            found.append(_Verdict(str(size.states), "states", note))
        seconds = self._seconds
        if seconds:
            found.append(_Verdict(_duration(sum(seconds.values())), "to learn", self._machine))
        return found

    @property
    def _machine(self) -> str:
        threads = self._summary.get("threads")
        return f"the whole run, {threads} thread{'' if threads == 1 else 's'}" if threads else "the whole run"

    # -- results --------------------------------------------------------------------------------------------

    @property
    def comparisons(self) -> Iterator[dict[str, Any]]:
        """Each comparison's tables, curves and tuning."""
        for comparison in self._evidence.comparisons:
            yield {
                "about": comparison,
                "first": comparison.results[0].name if comparison.results else "",
                "losses": _table(comparison, [key for key in _columns(comparison) if key[0]], ratios=True),
                "speed": _table(comparison, [key for key in _columns(comparison) if not key[0]]),
                "curves": _curves(comparison),
                "banded": any(result.spread is not None for result in comparison.results),
                "tuning": _tuning(comparison),
                "tuned": [(result.name, len(result.tuning)) for result in comparison.results if result.tuning],
                "remarks": [f"{result.name}, {remark}" for result in comparison.results for remark in result.remarks],
            }

    # -- the rule -------------------------------------------------------------------------------------------

    @cached_property
    def front(self) -> dict[str, Any] | None:
        """The front's chart and its rules."""
        points = self._evidence.front
        if len(points) < 2:
            return None
        rule, items, marks, lowest = self._evidence.rule, [], [], numpy.inf
        for point in points:
            best, lowest = point.loss < lowest, min(lowest, point.loss)
            chosen = point.rule == rule
            length = f"{point.terms} term{'' if point.terms == 1 else 's'}"
            label = f"{length}, objective {point.loss:.4g}: {_rounded(point.rule, 3)}"
            marks.append(Mark(point.terms, point.loss, best, chosen, label))
            items.append({"point": point, "best": best, "chosen": chosen, "states": point.rule.complexity.states})
        description = (
            f"Objective against length of {len(points)} formulas, from {points[0].terms} to {points[-1].terms} terms; "
            f"the lowest objective is {lowest:.3g}."
        )
        chart = front_chart(marks, "additive terms of the formula", "objective on validation seeds", description)
        selected = next((n for n, item in enumerate(items) if item["chosen"]), len(items) - 1)
        return {"chart": chart, "items": items, "selected": selected}

    @property
    def gradient(self) -> float:
        """Size of the gradients that the responses are shown for, one digit of what the run saw."""
        rms = self._summary.get("gradient_rms")
        return float(f"{rms:.1g}") if isinstance(rms, float) and 0 < rms < numpy.inf else 1.0

    @cached_property
    def responses(self) -> list[dict[str, Any]]:
        """phi over g, over m and over t/T."""
        rule = self._evidence.rule
        if rule is None:
            return []
        found = []
        names = ("How it answers a gradient", "How it answers momentum", "How it changes over the run")
        with numpy.errstate(all="ignore"):
            panels = responses(rule, self.gradient)
        for name, panel in zip(names, panels):
            lines = [Series(line.label, line.x, line.phi) for line in panel.lines]
            description = f"The update phi over the {panel.axis}, {panel.title}; lines by {panel.legend}."
            chart = line_chart(lines, panel.axis, "update φ", description, from_zero=panel.from_zero)
            found.append({"name": name, "panel": panel, "chart": chart})
        return found

    @cached_property
    def facts(self) -> list[str]:
        """Sentences on what the formula's form implies."""
        rule = self._evidence.rule
        if rule is None:
            return []
        odd = parity(rule.expression, rule.vocabulary)
        degree = scaling_degree(rule.expression, rule.vocabulary)
        found = []
        if odd == -1:
            found.append("Mirrored gradients give the mirrored update, as with Adam and gradient descent.")
        else:
            found.append("Mirrored gradients do not give the mirrored update, other than with Adam and its relatives.")
        if degree == 0:
            found.append("The size of the gradients does not matter, only their direction and history, as with Adam.")
        elif degree is not None:
            found.append(f"Gradients c times as large make the update c to the power of {degree} times as large.")
        else:
            found.append(
                "Some of its terms grow with the size of the gradients and others do not, so a loss multiplied by a "
                "constant is trained differently."
            )
        if rule.needs_horizon:
            end = f"T = {rule.horizon:g}" if rule.horizon else "T"
            found.append(f"Its schedule ends at {end} steps; give the number of steps that you train for.")
        if any(free.name == "w" for free in rule.expression.free_symbols):
            found.append("It uses the parameter's own value, as weight decay does.")
        return found

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Where number formats overflow."""
        rule = self._evidence.rule
        return rule.ranges().warnings if rule is not None else ()

    @property
    def downloads(self) -> list[dict[str, str]]:
        """Files with their contents as addresses."""
        files = self._evidence.files
        return [
            {
                "name": name,
                "what": what,
                "size": _size(len(files[name])),
                "address": "data:application/octet-stream;base64," + base64.b64encode(files[name]).decode(),
            }
            for name, what in DOWNLOADS.items()
            if name in files
        ]

    # -- how it came about ----------------------------------------------------------------------------------

    @property
    def _seconds(self) -> dict[str, float]:
        return {str(name): float(value) for name, value in self._summary.get("seconds", {}).items()}

    @property
    def timings(self) -> list[dict[str, Any]]:
        """Phases with their seconds and shares."""
        seconds = self._seconds
        total = sum(seconds.values()) or 1.0
        return [
            {"name": _PHASES.get(name, name), "seconds": _duration(value), "share": round(100 * value / total, 1)}
            for name, value in seconds.items()
        ]

    @cached_property
    def progress(self) -> list[dict[str, Any]]:
        """A chart for each phase that was logged."""
        found: list[dict[str, Any]] = []
        for phase, lines in _phases(self._evidence.log):
            names = [name for name in ("meta_loss", "loss", "best") if any(name in line.numbers for line in lines)]
            if len(lines) < 2 or not names or not phase.startswith(("meta-training", "polishing")):
                continue
            trained = phase.startswith("meta-training")
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
            words = f"Loss over the steps of the phase {phase}."
            values = [value for line in series for value in line.y]
            wide = min(values) > 0 and max(values) > 20 * min(values)
            chart = line_chart(series, axis, "loss", words, dots=True, whole=True, ylog=wide)
            found.append({"name": phase, "chart": chart})
        return found

    @property
    def reached(self) -> list[dict[str, Any]]:
        """Of a run that is not finished: the phases that were begun."""
        return [
            {
                "name": phase,
                "steps": lines[-1].step,
                "seconds": _duration(lines[-1].seconds),
                "numbers": lines[-1].numbers,
            }
            for phase, lines in _phases(self._evidence.log)
        ]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every setting with its value, its meaning, and whether it is the default."""
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
        """The command that does it again."""
        changed = [
            f"--{item['name'].replace('_', '-')} {shlex.quote(item['value'])}"
            for item in self.settings
            if item["changed"]
        ]
        return " ".join(["sol learn", *map(shlex.quote, self.tasks), "--out runs/again", *changed])

    @property
    def versions(self) -> list[tuple[str, str]]:
        """What it ran on."""
        found = [(str(name), str(version)) for name, version in self._summary.get("versions", {}).items()]
        return found + [(name, str(self._summary[name])) for name in _MACHINE if name in self._summary]


_TRAINED = {
    "meta_loss": "mean loss on the way, training seeds",
    "loss": "objective at the end, validation seeds",
    "best": "lowest objective so far",
}
_POLISHED = {"meta_loss": "meta-loss", "loss": "median of the candidates", "best": "best candidate"}
_MACHINE = ("machine", "threads", "ranks", "jobs")


def _phases(log: Sequence[LogLine]) -> list[tuple[str, list[LogLine]]]:
    """Lines of one phase after another."""
    found: list[tuple[str, list[LogLine]]] = []
    for line in log:
        if not found or found[-1][0] != line.phase:
            found.append((line.phase, []))
        found[-1][1].append(line)
    return found


# -- numbers ----------------------------------------------------------------------------------------------------


def _resamples(count: int) -> numpy.ndarray:
    """Episodes drawn with replacement, [resamples, count]; the same at every call."""
    return numpy.random.default_rng(0).integers(count, size=(_RESAMPLES, count))


def _interval(statistics: numpy.ndarray) -> tuple[float, float]:
    low, high = numpy.percentile(statistics, [2.5, 97.5])
    return float(low), float(high)


def _columns(comparison: Comparison) -> list[tuple[str, str]]:
    """Training loss first, then test metrics, then the rest; metrics on the validation split are left out."""
    keys = {key: None for result in comparison.results for key in result.metrics if key[0] != "valid"}
    return sorted(keys, key=lambda key: (key != ("train", "loss"), key[0] != "test", key[1] != "loss"))


def _table(comparison: Comparison, keys: Sequence[tuple[str, str]], ratios: bool = False) -> dict[str, Any]:
    """Heads and rows of a table; ``ratios`` adds a column of training losses over that of the first optimizer."""
    columns = [f"{split} {name}".strip() for split, name in keys]
    cells = [_column(comparison, key) for key in keys]
    if ratios and len(comparison.results) > 1:
        columns.append(f"train loss ÷ that of {comparison.results[0].name}")
        cells.append([_paired(comparison, number, 0, ("train", "loss")) for number in range(len(comparison.results))])
    rows = [{"result": result, "cells": row} for result, row in zip(comparison.results, zip(*cells))]
    return {"columns": columns, "rows": rows}


def _column(comparison: Comparison, key: tuple[str, str]) -> list[_Cell | None]:
    """Mean over episodes with the interval of 95 % from a bootstrap over episodes."""
    cells: list[_Cell | None] = []
    for result in comparison.results:
        values = result.metrics.get(key, numpy.zeros(0))
        finite = values[numpy.isfinite(values)]
        if len(finite):
            means = finite[_resamples(len(finite))].mean(1)
            cells.append(_Cell(float(finite.mean()), *_interval(means), lost=len(values) - len(finite)))
        else:
            cells.append(None)
    losses = [cell.mean for cell in cells if cell is not None and not cell.lost]
    if key[1] != "loss" or len(losses) < 2:
        return cells
    return [cell and replace(cell, best=not cell.lost and cell.mean == min(losses)) for cell in cells]


def _paired(comparison: Comparison, one: int, other: int, key: tuple[str, str]) -> _Cell | None:
    """Mean of ``one`` over mean of ``other`` and its interval, episodes drawn in pairs."""
    over, under = (comparison.results[number].metrics.get(key) for number in (one, other))
    if over is None or under is None or len(over) != len(under) or not (under > 0).all():
        return None
    if not (numpy.isfinite(over) & numpy.isfinite(under)).all():
        return None
    drawn = _resamples(len(over))
    ratios = over[drawn].mean(1) / under[drawn].mean(1)
    return _Cell(float(over.mean() / under.mean()), *_interval(ratios))


def _against_best(comparison: Comparison, key: tuple[str, str], words: str) -> _Verdict | None:
    """The first optimizer against the best of the others."""
    means = [
        float(numpy.nan_to_num(result.metrics[key].mean(), nan=numpy.inf)) if key in result.metrics else numpy.inf
        for result in comparison.results
    ]
    if len(means) < 2 or not numpy.isfinite(means[1:]).any():
        return None
    rival = 1 + int(numpy.argmin(means[1:]))
    ratio = _paired(comparison, 0, rival, key)
    if ratio is None:
        return None
    tuned = "tuned " if comparison.results[rival].tuning else ""
    change = f"{100 * abs(ratio.mean - 1):.0f}\N{NO-BREAK SPACE}% {'lower' if ratio.mean < 1 else 'higher'}"
    note = (
        f"{_digits(means[0])} against {_digits(means[rival])} of {tuned}{comparison.results[rival].name}, the best "
        f"other optimizer (ratio {ratio.mean:.2f}, 95\N{NO-BREAK SPACE}% interval {ratio.low:.2f} to {ratio.high:.2f})"
    )
    kind = "good" if ratio.high < 1 else "bad" if ratio.low > 1 else "even"
    return _Verdict(change, words, note, kind)


# -- charts -----------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison) -> Chart | None:
    shown = [result for result in comparison.results if result.curve is not None]
    if not shown:
        return None
    lines = [Series(_label(r), numpy.arange(1, len(r.curve) + 1), r.curve, r.spread) for r in shown]  # type: ignore[arg-type]
    ends = ", ".join(f"{r.name} {_digits(float(r.curve[-1]))}" for r in shown if r.curve is not None and len(r.curve))
    description = f"Training loss over the steps on {comparison.task}, one line an optimizer; at the last step: {ends}."
    return line_chart(lines, "training step", "loss of the step's batch", description, ylog=True)


def _label(result: Result) -> str:
    rate = "" if result.lr is None else f"lr {result.lr:.3g}"
    known = ", ".join(word for word in ("tuned" if result.tuning else "", rate) if word)
    return f"{result.name} ({known})" if known else result.name


def _tuning(comparison: Comparison) -> Chart | None:
    tuned = [result for result in comparison.results if result.tuning]
    lines = [Series(r.name, *(numpy.array(column) for column in zip(*sorted(r.tuning)))) for r in tuned]
    if not lines:
        return None
    description = "Objective over the learning rate, a dot for each that was tried, one line an optimizer."
    return line_chart(lines, "learning rate", "objective on tuning seeds", description, xlog=True, ylog=True, dots=True)


# -- words ------------------------------------------------------------------------------------------------------


def _rounded(rule: UpdateRule, digits: int = 4) -> str:
    """phi as text with constants of so many digits."""
    import sympy

    numbers = {number: sympy.Float(f"{float(number):.{digits}g}") for number in rule.expression.atoms(sympy.Float)}
    return format_expression(rule.expression.xreplace(numbers))


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1_000 else f"{count / 1_000:.0f} kB"
