"""The sub-commands that this package adds to ``sol``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console

from sol_learner.checkpoints import Checkpoints
from sol_learner.comparing import TUNING, TUNING_SPLITS, compare
from sol_learner.config import LearnConfig
from sol_learner.optimizers import EXTRA
from sol_learner.pipeline import Learner, LearnResult
from sol_learner.progress import Clock, Interrupted, MetricsFile, Several, TensorBoard, open_progress
from sol_learner.ranks import Ranks, joined_ranks
from sol_learner.run_folder import CHECKPOINTS, prepare_folder, write_run
from sol_learner.tasks import find_tasks, install_line, load_task, missing, parse_device
from sol_learner.workers import Workers
from sol_symbols import SolError, write_atomically

__all__ = ["Compare", "Learn", "Tasks"]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
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
    """Learn an optimizer for a task, as a formula and as a PyTorch file.

    Started by torchrun, every process trains optimizees of its own and meta-gradients are averaged.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands; every setting of the configuration is an option of its name."""
        parser.add_argument(
            "tasks", metavar="TASK", nargs="+", help="name of a task, or of several; sol tasks lists them"
        )
        parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for the results")
        parser.add_argument("--budget", metavar="TIME", help="stop meta-training and polishing in time: 90s, 5min, 1h")
        parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted in the folder")
        parser.add_argument("--overwrite", action="store_true", help="replace a run that the folder holds")
        _add_data_options(parser)
        parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="processes for polishing (default 1)")
        parser.add_argument("--backend", default="loky", metavar="B", help="of joblib, for these: loky, ray, dask, ...")
        parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard events to DIR/tensorboard")
        parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of the settings below")
        settings = parser.add_argument_group("settings")
        explanations = LearnConfig.explanations()
        for field in dataclasses.fields(LearnConfig):
            settings.add_argument(
                f"--{field.name.replace('_', '-')}",
                dest=f"setting {field.name}",
                metavar="X",
                help=f"{explanations[field.name]} (default {_shown(field.default)})".replace("%", "%%"),
            )

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""
        given = {name.split()[1]: v for name, v in vars(arguments).items() if name.startswith("setting ")}
        given = {name: value for name, value in given.items() if value is not None}
        config = (
            LearnConfig.from_toml(arguments.config, **given) if arguments.config else LearnConfig.from_mapping(given)
        )
        device = parse_device(arguments.device)
        with joined_ranks(device) as ranks:
            if device.type == "cuda" and ranks.size > 1:
                device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            return self._run(arguments, config, device, ranks)

    def _run(self, arguments: argparse.Namespace, config: LearnConfig, device: torch.device, ranks: Ranks) -> int:
        if arguments.budget and ranks.size > 1:
            raise SolError("several processes cannot share a --budget of time; limit --episodes and --generations")
        clock = Clock(arguments.budget)
        out: Path = arguments.out
        if ranks.rank == 0:
            prepare_folder(out, arguments.overwrite, arguments.resume)
        tasks = [load_task(name, arguments.data, device) for name in arguments.tasks]
        identity = {"tasks": arguments.tasks, "data": str(arguments.data), "device": device.type, "ranks": ranks.size}
        try:
            with open_progress() as shown, clock.catching_interrupts():
                reporters = [shown, MetricsFile(out / "metrics.jsonl")] if ranks.rank == 0 else []
                if arguments.tensorboard and ranks.rank == 0:
                    reporters.append(TensorBoard(out / "tensorboard"))
                progress = Several(*reporters)
                memory = Checkpoints(
                    out / CHECKPOINTS,
                    {**identity, "jobs": arguments.jobs, **dataclasses.asdict(config)},
                    resume=arguments.resume,
                    report=progress.note,
                    ranks=ranks,
                )
                clock.credit(memory.elapsed)
                learner = Learner(
                    tasks,
                    config,
                    memory=memory,
                    progress=progress,
                    clock=clock,
                    ranks=ranks,
                    workers=Workers(arguments.jobs, arguments.backend),
                )
                result = learner.run()
        except Interrupted:
            raise KeyboardInterrupt from None
        if ranks.rank == 0:
            self._finish(result, out, clock, memory)
        return 130 if clock.cancelled else 0

    def _finish(self, result: LearnResult, out: Path, clock: Clock, memory: Checkpoints) -> None:
        files = write_run(result, out)
        memory.clear()
        size = result.rule.complexity
        print(f"\n  θ ← θ - lr · φ,   φ = {result.rule}\n")
        print(f"{size.terms} terms, {size.states} states per parameter, {clock.elapsed:.0f} s\n")
        for comparison in result.comparisons:
            print(f"{comparison.table()}\n")
        print(f"in {out}/: {', '.join(files)}")
        if "optimizer.py" not in files:
            print("for a PyTorch file: pip install sol-export, then sol export RUN --to torch")


def _shown(value: object) -> str:
    """A setting's value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(_shown(item) for item in value) if value else "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


class Compare:
    """Compare optimizers on a task; those without a learning rate of their own are tuned first.

    OPT is a rule (run folder, rule file, zoo name, formula), torch:NAME, pytorch_optimizer:NAME or FILE.py:CLASS.
    The first one is compared with all others.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        parser.add_argument("task", metavar="TASK", help="name of a task; sol tasks lists them")
        parser.add_argument("optimizers", metavar="OPT", nargs="+", help="optimizers, the one in question first")
        parser.add_argument("--seeds", type=_count, default=10, metavar="N", help="held-out seeds (default 10)")
        parser.add_argument("--seed", type=_seed, default=0, help="base seed of all random streams (default 0)")
        parser.add_argument("--steps", type=_count, metavar="N", help="inner steps (default: the task's horizon)")
        parser.add_argument(
            "--tune",
            choices=TUNING,
            default="lr",
            help="the learning rate; full: also momenta, averaging,\nweight decay and schedule (default lr)",
        )
        parser.add_argument(
            "--trials", type=_count, default=20, metavar="N", help="settings tried of each (default 20)"
        )
        parser.add_argument(
            "--tune-for",
            choices=TUNING_SPLITS,
            default="train",
            help="split whose loss after the last step is minimised\n(default train)",
        )
        parser.add_argument(
            "--tuning-seeds", type=_count, default=3, metavar="N", help="seeds of their own for that (default 3)"
        )
        parser.add_argument(
            "--target", type=float, metavar="LOSS", help="count the steps to it (default: where the second OPT ends)"
        )
        parser.add_argument("--store", type=Path, metavar="FILE", help="SQLite file of finished runs, to go on with")
        parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="processes (default 1)")
        parser.add_argument("--backend", default="loky", metavar="B", help="of joblib, for these: loky, ray, dask, ...")
        parser.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of each run (default 1)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
        parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each run there")
        _add_data_options(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status: 1 where runs failed."""
        clock = Clock()
        workers = Workers(arguments.jobs, arguments.backend)
        try:
            with open_progress() as progress, clock.catching_interrupts():
                comparison = compare(
                    arguments.task,
                    arguments.optimizers,
                    episodes=arguments.seeds,
                    seed=arguments.seed,
                    tune=arguments.tune,
                    trials=arguments.trials,
                    tune_for=arguments.tune_for,
                    tuning_episodes=arguments.tuning_seeds,
                    steps=arguments.steps,
                    target=arguments.target,
                    threads=arguments.threads,
                    store=arguments.store,
                    workers=workers,
                    data=arguments.data,
                    device=str(parse_device(arguments.device)),
                    progress=progress,
                    clock=clock,
                )
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            workers.close()
        statistics = importlib.util.find_spec("scipy") is not None
        if arguments.json is not None:
            write_atomically(arguments.json, json.dumps(comparison.record(statistics), indent=1) + "\n")
        if arguments.csv is not None:
            write_atomically(arguments.csv, comparison.csv())
        print(comparison.report(statistics))
        if not statistics:
            print(f"\nfor tests and intervals: {install_line([EXTRA])}")
        lost = [*comparison.failures, *comparison.protocol.get("tuning_failures", [])]
        if lost:
            print(
                f"sol: {len(lost)} runs failed; the same command with the same --store tries them again",
                file=sys.stderr,
            )
        return 1 if lost else 0


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
        console = Console(highlight=False, soft_wrap=True)
        for name, point in tasks.items():
            summary, ready = _summary(point)
            console.print(f"{name:<{width}}  {summary}", style=None if ready else "dim", markup=False)
        return 0


def _summary(point: metadata.EntryPoint) -> tuple[str, bool]:
    """One line on a task, and whether it can be made here."""
    try:
        absent = missing(point)
        summary = (point.load().__doc__ or "").strip().partition("\n")[0]
    except Exception as error:  # a task that cannot be loaded must not hide the others
        return str(error), False
    return (f"{summary} Needs: {install_line(absent)}", False) if absent else (summary, True)
