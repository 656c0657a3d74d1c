"""The sub-commands that this package adds to ``sol``."""

from __future__ import annotations

import argparse
import json
import os
import re
from importlib import metadata
from pathlib import Path

from sol_learner.comparison import compare
from sol_learner.pipeline import LearnConfig, learn
from sol_learner.progress import Clock, Interrupted, open_progress
from sol_learner.run_folder import prepare_folder, write_run
from sol_learner.tasks import find_tasks, load_task, parse_device
from sol_symbols import SolError, resolve_rule, write_atomically

__all__ = ["Compare", "Learn", "Tasks", "parse_duration"]


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``5min``, ``1.5h``.

    Raises:
        SolError: The text is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(s|m|min|h|)", text.strip())
    if not match or not float(match[1]):
        raise SolError(f"{text!r} is not a time; write 90s, 5min or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _add_task_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="name of a task; sol tasks lists them")
    parser.add_argument("--seed", type=_seed, default=0, help="base seed of all random streams (default 0)")
    data = os.environ.get("SOL_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=Path(data) if data else None,
        help="folder with data sets (default: SOL_DATA; without it, the task's own data)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")


class Learn:
    """Learn an optimizer for a task, as a formula and as a PyTorch file."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        _add_task_options(parser)
        parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for the results")
        parser.add_argument("--budget", metavar="TIME", help="stop meta-training and polishing in time: 90s, 5min, 1h")
        parser.add_argument("--overwrite", action="store_true", help="replace a run that the folder holds")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        clock = Clock(parse_duration(arguments.budget) if arguments.budget else None)
        prepare_folder(arguments.out, arguments.overwrite)
        task = load_task(arguments.task, arguments.data, parse_device(arguments.device))
        try:
            with open_progress() as progress, clock.catching_interrupts():
                result = learn(task, LearnConfig(seed=arguments.seed), progress=progress, clock=clock)
        except Interrupted:
            raise KeyboardInterrupt from None
        files = write_run(result, arguments.out)
        size = result.rule.complexity
        print(f"\n  θ ← θ - lr · φ,   φ = {result.rule}\n")
        print(f"{size.terms} terms, {size.states} states per parameter, {clock.elapsed:.0f} s\n")
        if result.comparison is not None:
            print(result.comparison.table())
            print()
        print(f"in {arguments.out}/: {', '.join(files)}")
        if "optimizer.py" not in files:
            print("for a PyTorch file: pip install sol-export, then sol export RUN --to torch")
        return 130 if clock.cancelled else 0


class Compare:
    """Compare optimizers on a task; those without a learning rate of their own are tuned first."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        _add_task_options(parser)
        parser.add_argument("optimizers", metavar="OPT", nargs="+", help="rules: run folder, file, zoo name, formula")
        parser.add_argument("--seeds", type=_count, default=10, metavar="N", help="held-out seeds (default 10)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        rules = {text: resolve_rule(text) for text in arguments.optimizers}
        if len(rules) < len(arguments.optimizers):
            raise SolError("an optimizer is given twice")
        task = load_task(arguments.task, arguments.data, parse_device(arguments.device))
        clock = Clock()
        try:
            with open_progress() as progress, clock.catching_interrupts():
                comparison = compare(
                    task, rules, seed=arguments.seed, episodes=arguments.seeds, progress=progress, clock=clock
                )
        except Interrupted:
            raise KeyboardInterrupt from None
        if arguments.json is not None:
            write_atomically(arguments.json, json.dumps(comparison.record(), indent=1) + "\n")
        print(comparison.table())
        return 0


class Tasks:
    """List the tasks that are installed."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """No options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        tasks = find_tasks()
        if not tasks:
            raise SolError("no tasks are installed; pip install sol-tasks")
        width = max(len(name) for name in tasks)
        for name, point in tasks.items():
            print(f"{name:<{width}}  {_first_line(point)}")
        return 0


def _first_line(point: metadata.EntryPoint) -> str:
    try:
        return (point.load().__doc__ or "").strip().partition("\n")[0]
    except Exception as error:  # a task that cannot be loaded must not hide the others
        return f"cannot be loaded: {error}"
