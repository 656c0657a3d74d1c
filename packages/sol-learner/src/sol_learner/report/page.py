"""The report page: the evidence rendered by a template that escapes everything read from files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy
from markupsafe import Markup

from sol_learner.comparing.suite import OUTCOMES
from sol_learner.report.charts import STYLES, Mark, Series, front_chart, line_chart
from sol_learner.report.evidence import ComparisonRecord, Evidence, read_evidence
from sol_learner.report.formulas import Formulas, rounded
from sol_learner.report.origin import Origin, duration
from sol_learner.report.results import (
    Card,
    accuracy_card,
    behind,
    column,
    curve_chart,
    difference_table,
    digits,
    kind_of,
    profile_chart,
    result_columns,
    result_table,
    tuning_chart,
    verdict_card,
)
from sol_learner.settings import as_text
from sol_learner.task_registry import describe, find_tasks
from sol_symbols import UpdateRule, parity, responses, scaling_degree, value_ranges, write_atomically

__all__ = ["is_report", "report_page", "write_report"]

_CROWD = 4  # above this many curves, the bands of all but the first are shown on demand


def write_report(source: str | Path, target: str | Path) -> None:
    """Write :func:`report_page` of ``source`` to ``target``.

    Raises:
        SolError: ``source`` is not a valid report source, or ``target`` cannot be written.
    """
    write_atomically(target, report_page(source))


def is_report(path: str | Path) -> bool:
    """Whether a file is a page that :func:`write_report` wrote."""
    with Path(path).open("rb") as file:
        return b'<meta name="generator" content="sol report">' in file.read(1_000)


def report_page(source: str | Path) -> str:
    """Render a run, a comparison or a study as one self-contained HTML page.

    Args:
        source: A folder written by ``sol learn``, including that of an unfinished run, or a JSON file written by
            ``sol compare --json`` or a study.

    Raises:
        SolError: ``source`` is neither, or one of its files is corrupted.
    """
    import jinja2

    evidence = read_evidence(Path(source))
    folder = resources.files("sol_learner.report") / "templates"
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["sig"] = digits
    script = base64.b64encode(hashlib.sha256(parts["page.js"].encode()).digest()).decode()
    return environment.from_string(parts["page.html"]).render(
        page=_Page(evidence),
        evidence=evidence,
        css=Markup(parts["page.css"]),
        script=Markup(parts["page.js"]),
        script_hash=script,
        version=metadata.version("sol-learner"),
    )


class _Page:
    """The values used by the template."""

    styles = STYLES

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._summary = evidence.summary
        self.formulas = Formulas()
        self.origin = Origin(self._summary, evidence.log, self.tasks)

    # -- the head -------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        named = self._summary.get("tasks") or [comparison.task for comparison in self._evidence.comparisons]
        return [str(name) for name in named]

    @cached_property
    def described(self) -> list[tuple[str, str]]:
        """Names and descriptions of those tasks that are installed here."""
        known = find_tasks()
        descriptions = [(name, *describe(known[name])) for name in dict.fromkeys(self.tasks) if name in known]
        return [(name, words) for name, words, ready in descriptions if ready and words]

    @property
    def title(self) -> str:
        """The page's title."""
        tasks = " and ".join(dict.fromkeys(self.tasks))
        study = self._evidence.study
        if "shows" in study:
            return f"{study['shows']}: {study.get('title') or self._evidence.name}"
        if self._evidence.kind in ("comparison", "study"):
            return f"Optimizers compared on {tasks}"
        if self._evidence.kind == "unfinished":
            return f"Unfinished run: {self._evidence.name}"
        return f"A learned optimizer for {tasks}" if tasks else f"A learned optimizer: {self._evidence.name}"

    @property
    def how(self) -> str:
        """How the rule was found, by what the run did."""
        start = str(_nested(self._summary, "tuning", "rule") or "its start")
        if _nested(self._summary, "meta_training", "windows"):
            words = (
                "a small network of symbolic operators replaced it, was itself trained to train models, and was then "
            )
            return f"{words}converted to the formula below"
        if self._summary.get("gave_start"):
            return f"the formula below is {start} with its rate tuned; no better one was found"
        if _nested(self._summary, "polish", "generations"):
            return f"a search improved the constants of {start} on whole trainings, which gave the formula below"
        return f"the formula below comes from {start}; no search has improved its constants" if self._summary else ""

    @cached_property
    def valid(self) -> list[dict[str, Any]]:
        """Variants of the tasks, with the objective of the start and of the rule, and their ratio."""
        rows = []
        for what, row in self._summary.get("valid", {}).items():
            before, after = (float(row.get(name, numpy.nan)) for name in ("start", "learned"))
            known = numpy.isfinite(before) and numpy.isfinite(after) and before > 0
            ratio = after / before if known else None
            words = "diverged" if not numpy.isfinite(after) else "" if ratio is None or ratio <= 1 else "worse"
            name = what.partition(": ")[2] if len(self.tasks) == 1 else what
            shown = {
                key: value if numpy.isfinite(value) else None
                for key, value in zip(("start", "learned"), (before, after))
            }
            rows.append({"name": name, **shown, "ratio": ratio, "words": words})
        return rows

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """The verdict lines, first of all the one of all tasks; where a baseline is better, the code for it."""
        found = []
        suite = self._evidence.suite
        if suite is not None:
            kind = kind_of(suite.outcome)
            found.append({"place": "", "first": suite.first, "line": suite.line, "kind": kind, "code": ""})
        for comparison in self._evidence.comparisons:
            verdict = comparison.verdict
            if verdict is not None:
                code = verdict.code if verdict.advised else ""
                place = f"{self.label(comparison)}: " if len(self._evidence.comparisons) > 1 else ""
                words = {"place": place, "first": verdict.first, "line": verdict.line, "code": code}
                found.append({**words, "kind": kind_of(verdict.outcome), "baseline": verdict.baseline})
        return found

    def label(self, comparison: ComparisonRecord) -> str:
        """The task, with the number of steps if it is compared at several."""
        alone = self.tasks.count(comparison.task) < 2
        return comparison.task if alone else f"{comparison.task}, {comparison.horizon} steps"

    @cached_property
    def suite(self) -> dict[str, Any] | None:
        """The table of problems and the performance profile of several comparisons."""
        suite = self._evidence.suite
        if suite is None:
            return None
        return {"record": suite, "words": OUTCOMES, "chart": profile_chart(suite)}

    @cached_property
    def cards(self) -> list[Card]:
        """The headline numbers: losses against the best baseline, memory, time."""
        found = []
        several, study = len(self._evidence.comparisons) > 1, self._evidence.kind == "study"
        for comparison in self._evidence.comparisons if study else self._evidence.comparisons[:1]:
            place = f" on {self.label(comparison)}" if several else ""
            cards = [verdict_card(comparison, "train", f"final training loss{place}")]
            if study and not several:
                cards.append(accuracy_card(comparison, "final test accuracy"))
            elif not several:
                cards.append(verdict_card(comparison, "test", "final test loss"))
            found += [card for card in cards if card is not None]
        rule = self._evidence.rule
        if rule is not None:
            size = rule.complexity
            found.append(Card(str(size.terms), "terms", "additive terms in the formula"))
            found.append(Card(str(size.states), "states", f"{rule.memory}; Adam stores 2 per parameter"))
        seconds = self.origin.seconds
        if seconds:
            found.append(Card(duration(sum(seconds.values())), "to learn", self._machine))
        return found

    @property
    def _machine(self) -> str:
        jobs, threads = (self._summary.get(name) for name in ("jobs", "threads"))
        if isinstance(jobs, int) and jobs > 1:
            return f"entire run, {jobs} processes"
        return f"entire run, {threads} thread{'' if threads == 1 else 's'}" if threads else "entire run"

    # -- results --------------------------------------------------------------------------------------------

    @property
    def comparisons(self) -> Iterator[dict[str, Any]]:
        """Each comparison's tables, curves and tuning."""
        for comparison in self._evidence.comparisons:
            yield {
                "about": comparison,
                "label": self.label(comparison),
                "first": comparison.first,
                "losses": result_table(comparison, [key for key in result_columns(comparison) if key[0]], ratios=True),
                "speed": result_table(comparison, [key for key in result_columns(comparison) if not key[0]]),
                "differences": difference_table(comparison),
                "curves": curve_chart(comparison),
                "behind": behind(comparison),
                "banded": any(result.spread is not None for result in comparison.results),
                "crowded": len(comparison.results) > _CROWD,
                "tuning": tuning_chart(comparison),
                "tuned": _tuned(comparison),
                "remarks": [f"{result.name}, {remark}" for result in comparison.results for remark in result.remarks],
            }

    @cached_property
    def overview(self) -> dict[str, Any] | None:
        """For a study of several tasks: training losses, one row per optimizer, the best on average first."""
        comparisons = self._evidence.comparisons
        if self._evidence.kind != "study" or len(comparisons) < 2:
            return None
        columns = [
            {result.name: cell for result, cell in zip(c.results, column(c, ("train", "loss")))} for c in comparisons
        ]
        places = [[result.name for result in comparison.results] for comparison in comparisons]
        names = dict.fromkeys(name for place in places for name in place)

        def mean_place(name: str) -> float:
            found = [place.index(name) for place in places if name in place]
            return sum(found) / len(found)

        rows = [
            {"name": name, "cells": [column.get(name) for column in columns]} for name in sorted(names, key=mean_place)
        ]
        return {"columns": [self.label(c) for c in comparisons], "rows": rows}

    @property
    def explained(self) -> list[tuple[str, UpdateRule]]:
        """Rules of a study that introduce symbols that no earlier rule has."""
        known: set[str] = set()
        found: list[tuple[str, UpdateRule]] = []
        for name, rule in self._evidence.rules.items():
            if not found or {*rule.live} - known:
                found.append((name, rule))
                known |= {*rule.live}
        return found

    @property
    def notes(self) -> list[str]:
        """The study's notes on how it differs from what it reproduces."""
        return [str(note) for note in self._evidence.study.get("notes", [])]

    @property
    def plan(self) -> list[tuple[str, str]]:
        """Settings of a study; nested ones have dotted names."""
        study = self._evidence.study
        return [*_flat("", study.get("budget", {})), *_flat("", study.get("settings", {}))]

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
            label = f"{length}, objective {point.loss:.4g}: {rounded(point.rule, 3)}"
            marks.append(Mark(point.terms, point.loss, best, chosen, label))
            items.append({"point": point, "best": best, "chosen": chosen, "states": point.rule.complexity.states})
        description = (
            f"Objective vs. length for {len(points)} formulas, from {points[0].terms} to {points[-1].terms} terms; "
            f"the lowest objective is {lowest:.3g}."
        )
        chart = front_chart(marks, "additive terms in the formula", "objective on validation seeds", description)
        selected = next((n for n, item in enumerate(items) if item["chosen"]), len(items) - 1)
        return {"chart": chart, "items": items, "selected": selected}

    @property
    def gradient(self) -> float:
        """Gradient size for the response plots: the root mean square in the run, to one digit."""
        rms = self._summary.get("gradient_rms")
        return float(f"{rms:.1g}") if isinstance(rms, float) and 0 < rms < numpy.inf else 1.0

    @cached_property
    def responses(self) -> list[dict[str, Any]]:
        """phi against g, m and t/T."""
        rule = self._evidence.rule
        if rule is None:
            return []
        found = []
        names = ("Response to the gradient", "Response to momentum", "Change over training")
        with numpy.errstate(all="ignore"):
            panels = responses(rule, self.gradient)
        for name, panel in zip(names, panels):
            lines = [Series(line.label, line.x, line.phi) for line in panel.lines]
            description = f"The update phi vs. {panel.axis}, {panel.title}; one line per {panel.legend}."
            chart = line_chart(lines, panel.axis, "update φ", description, from_zero=panel.from_zero)
            found.append({"name": name, "panel": panel, "chart": chart})
        return found

    @cached_property
    def facts(self) -> list[str]:
        """Sentences on properties that follow from the formula's form."""
        rule = self._evidence.rule
        if rule is None:
            return []
        odd = parity(rule.expression, rule.vocabulary)
        degree = scaling_degree(rule.expression, rule.vocabulary)
        found = []
        if odd == -1:
            found.append("Negating all gradients negates the update, as with Adam and gradient descent.")
        else:
            found.append("Negating all gradients does not negate the update, unlike with Adam and its variants.")
        if degree == 0:
            found.append("The update does not depend on the scale of the gradients, as with Adam.")
        elif degree is not None:
            found.append(f"Scaling all gradients by c scales the update by c to the power of {degree}.")
        else:
            found.append(
                "Some terms depend on the scale of the gradients and others do not, so multiplying the loss by a "
                "constant changes training."
            )
        if rule.needs_horizon:
            end = f"T = {rule.horizon:g}" if rule.horizon else "T"
            found.append(f"Its schedule ends at {end} steps; set this to the number of steps you train for.")
        if any(free.name == "w" for free in rule.expression.free_symbols):
            found.append("It uses the parameter's value, as weight decay does.")
        return found

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Where floating-point formats overflow or underflow."""
        rule = self._evidence.rule
        return value_ranges(rule).warnings if rule is not None else ()

    @property
    def downloads(self) -> list[dict[str, str]]:
        """Files with their contents as data URLs."""
        files = self._evidence.files
        return [
            {
                "name": name,
                "what": what,
                "size": _size(len(files[name])),
                "address": "data:application/octet-stream;base64," + base64.b64encode(files[name]).decode(),
            }
            for name, what in self._evidence.described.items()
            if name in files
        ]


def _tuned(comparison: ComparisonRecord) -> list[tuple[int, list[str]]]:
    """Names of the tuned optimizers, grouped by the number of learning rates tried."""
    counts: dict[int, list[str]] = {}
    for result in comparison.results:
        if result.tuning:
            counts.setdefault(len(result.tuning), []).append(result.name)
    return [*counts.items()]


# -- words ------------------------------------------------------------------------------------------------------


def _flat(prefix: str, table: Any) -> list[tuple[str, str]]:
    """Flatten nested tables to (dotted name, value as text)."""
    if not isinstance(table, Mapping):
        return [(prefix, as_text(table))]
    return [row for name, value in table.items() for row in _flat(f"{prefix}.{name}" if prefix else str(name), value)]


def _nested(table: Mapping[str, Any], *names: str) -> Any:
    """A value in tables within a table; ``None`` if it is not there."""
    value: Any = table
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1_000 else f"{count / 1_000:.0f} kB"
