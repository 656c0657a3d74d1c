"""A table or figure of the paper as a study at one of two sizes: ``paper`` for a GPU, ``cpu`` for two processor cores.

A study keeps what it learns below ``runs/studies`` and what it compares, run by run, in a store: rerunning the same
command computes nothing twice. The JSON next to the script says which size was run and with what settings.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from common import HERE, machine, memory

from sol_learner import (
    Checkpoints,
    Comparison,
    LearnConfig,
    Learner,
    Recipe,
    Task,
    Workers,
    compare,
    open_progress,
    resolve_optimizer,
)
from sol_symbols import UpdateRule

NO_COMPARISON: dict[str, Any] = {"front": False, "evaluation_episodes": 1, "baselines": ()}
"""Settings of learning: the comparison is the study's own."""
NO_RUN: dict[str, Any] = {**NO_COMPARISON, "start": "adam", "constants": False, "front_generations": 8}
"""The same; coefficients are learned from Adam, as in the paper."""


@dataclass(frozen=True)
class Budget:
    """What every baseline gets, and how all are evaluated.

    Attributes:
        seeds: Held-out episodes that everything is evaluated on.
        trials: Settings tried for each optimizer that has no learning rate: rates, or all that a full tuning changes.
        tuning_seeds: Episodes of another stream that each of them is tried on.
    """

    seeds: int
    trials: int
    tuning_seeds: int


@dataclass
class Study:
    """One table or figure.

    Attributes:
        name: Name of the script and of the JSON.
        shows: What of the paper it is, ``"Table 2"``.
        title: What it is about.
        size: ``"paper"`` or ``"cpu"``.
        settings: Everything that this size means, JSON-able.
        budget: See :class:`Budget`.
        notes: Where it differs from the paper, a sentence each.
        given: The command line: ``data``, ``device``, ``jobs`` and options of the study's own.
        identity: What else makes its numbers what they are; what another one has kept is refused.
    """

    name: str
    shows: str
    title: str
    size: str
    settings: Mapping[str, Any]
    budget: Budget
    notes: Sequence[str]
    given: argparse.Namespace
    identity: Mapping[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.set_num_threads(1 if self.given.device == "cpu" else torch.get_num_threads())
        self.begun = time.monotonic(), time.process_time()
        self.kept = memory(f"{self.name}-{self.size}", settings=self.settings, **self.identity)

    @property
    def folder(self) -> Path:
        """Where the study keeps what it has computed."""
        assert self.kept.folder is not None
        self.kept.folder.mkdir(parents=True, exist_ok=True)
        return self.kept.folder

    def part(self, name: str, **identity: Any) -> Study:
        """One data set of several, with a separate JSON."""
        return replace(self, name=f"{self.name}-{name}", identity=identity, record={})

    def task(self, make: Callable[..., Task], *arguments: Any, **options: Any) -> Recipe:
        """The recipe of a task, with the data and the device of the command line."""
        options = {**options, "data": self.given.data, "device": self.given.device}
        return Recipe(make, arguments, tuple(sorted(options.items())))

    def learn(self, recipes: Sequence[Recipe], config: LearnConfig, key: str = "learned") -> UpdateRule:
        """The rule that the whole pipeline learns for these tasks; its summary is in the record."""
        folder = self.folder / key
        folder.mkdir(parents=True, exist_ok=True)

        def run() -> dict[str, Any]:
            own = Checkpoints(folder, {"config": asdict(config), "settings": self.settings}, resume=True)
            with open_progress() as progress:
                tasks = [recipe.load() for recipe in recipes]
                return Learner(tasks, config, checkpoints=own, progress=progress).run().summary

        summary = dict(self.kept.once(key, run))
        summary.pop("comparison")  # on one seed, not used
        self.record.setdefault("learning", {})[key] = summary
        rule = UpdateRule.parse(summary["rule"])
        print(f"{key}: {rule}", flush=True)
        return rule

    def compare(self, recipe: Recipe, optimizers: Mapping[str, Any], tune: str = "lr", **options: Any) -> Comparison:
        """Tune what is not tuned, evaluate, and add the comparison to the record."""
        workers = Workers(self.given.jobs, self.given.backend)
        specs = {n: resolve_optimizer(o) if isinstance(o, str) else o for n, o in optimizers.items()}
        with open_progress() as progress:
            comparison = compare(
                recipe,
                specs,
                episodes=self.budget.seeds,
                tune=tune,
                trainings=self.budget.trials * max(1, self.budget.tuning_seeds),
                tuning_episodes=self.budget.tuning_seeds,
                store=self.folder / "runs.sqlite",
                workers=workers,
                progress=progress,
                **options,
            )
        workers.close()
        print(comparison.report(statistics=True), flush=True)
        self.record.setdefault("comparisons", []).append(comparison.record(statistics=True))
        return comparison

    @property
    def earlier(self) -> Mapping[str, Any]:
        """The JSON next to the scripts if it is of the same settings, else nothing."""
        path = HERE / f"{self.name}-{self.size}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"study": {}}
        about, settings = record["study"], json.loads(json.dumps(self.settings))
        same = about.get("settings") == settings and about.get("budget") == asdict(self.budget)
        return record if same else {}

    def save(self) -> None:
        """Write the JSON next to the scripts."""
        about: dict[str, Any] = {"name": self.name, "shows": self.shows, "title": self.title, "size": self.size}
        about |= {"settings": self.settings, "budget": asdict(self.budget), "notes": list(self.notes)}
        seconds = [round(now - then, 1) for now, then in zip((time.monotonic(), time.process_time()), self.begun)]
        spent = {"wall": seconds[0], "processor, without other processes": seconds[1], "jobs": self.given.jobs}
        record = {"study": about, **self.record, "seconds of this command": spent, "machine": machine()}
        path = HERE / f"{self.name}-{self.size}.json"
        path.write_text(compact(record), encoding="utf-8")
        print(f"wrote {path}", flush=True)


def begin(
    name: str,
    shows: str,
    title: str,
    sizes: Mapping[str, tuple[Mapping[str, Any], Budget]],
    notes: Mapping[str, Sequence[str]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Study:
    """The study that the command line asks for.

    Args:
        name, shows, title: See :class:`Study`.
        sizes: Settings and budget by size.
        notes: By size, where it differs from the paper.
        options: Further options of the study's command line, as ``argparse`` describes them.
    """
    caller = inspect.getmodule(inspect.stack()[1][0])
    parser = argparse.ArgumentParser(
        description=caller.__doc__ if caller else None, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=[*sizes], required=True, help="paper: for a GPU; cpu: for two cores")
    parser.add_argument("--data", type=Path, default=os.environ.get("SOL_DATA"), help="folder with data sets")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the runs of comparisons")
    parser.add_argument("--backend", default="loky", help="of joblib, for these: loky, ray, dask")
    for option, how in (options or {}).items():
        parser.add_argument(option, **how)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give --data, or set SOL_DATA")
    settings, budget = sizes[given.size]
    given.data = Path(given.data)
    return Study(name, shows, title, given.size, settings, budget, notes[given.size], given)


def compact(record: Mapping[str, Any]) -> str:
    """JSON with what has no parts on one line: a list of numbers, the settings of a trial."""
    text = json.dumps(record, indent=1)
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\n\s*", " ", found[0]), text) + "\n"
