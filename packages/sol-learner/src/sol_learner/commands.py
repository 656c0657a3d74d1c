"""The ``sol`` subcommands that this package provides."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sol_learner.settings import LARGEST_SEED, MOST
from sol_symbols import SolError, write_atomically
from sol_symbols.errors import printable, quoted
from sol_symbols.files import check_target, file_name, is_regular, lock_folder

if TYPE_CHECKING:  # imported lazily elsewhere: sol --help and sol tasks must not load PyTorch
    import torch

    from sol_learner.config import LearnConfig
    from sol_learner.pipeline import Learner, LearnResult
    from sol_learner.runtime.checkpoints import Checkpoints
    from sol_learner.runtime.clock import Clock
    from sol_learner.runtime.ranks import Ranks

__all__ = ["Check", "Compare", "Distil", "Learn", "LearnLSTM", "Report", "Tasks", "Tune"]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= _whole(text) <= MOST:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to {MOST:,}, got {quoted(text)}")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def _seed(text: str) -> int:
    if not text.isdecimal() or _whole(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to {LARGEST_SEED}, got {quoted(text)}")
    return int(text)


def _whole(text: str) -> int:
    """The number that decimal digits are; Python refuses to read more than a few thousand of them."""
    return int(text) if len(text) < 30 else 10**30


def _processes(text: str) -> int:
    """A number of processes or threads that one machine or a small cluster can run."""
    most = 16 * max(os.cpu_count() or 1, 16)
    if not text.isdecimal() or not 1 <= _whole(text) <= most:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to {most}, got {quoted(text)}")
    return int(text)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {quoted(text)}")
    return value


def _positive(text: str) -> float:
    if not 0 < (value := _finite(text)) <= MOST:
        raise argparse.ArgumentTypeError(f"must be greater than 0 and at most {MOST:,}, got {quoted(text)}")
    return value


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    data = os.environ.get("SOL_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=Path(data) if data else None,
        help="dataset folder (default: $SOL_DATA; if unset, the task's own data)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if available)")


class Learn:
    """Learn an optimizer for a task, as a formula and as a PyTorch file.

    Under torchrun, each process trains its own optimizees and meta-gradients are averaged.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands; every field of :class:`LearnConfig` becomes an option."""
        from sol_learner.config import EFFORTS, PRESETS, LearnConfig

        parser.add_argument("tasks", metavar="TASK", nargs="+", help="tasks: names of sol tasks, or FILE.py:CLASS")
        parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: runs/TASK)")
        parser.add_argument(
            "--budget", metavar="TIME", help="time for the whole run, which is planned for it: 90s, 5min, 1h"
        )
        parser.add_argument("--effort", choices=EFFORTS, help="preset of the settings below (default normal)")
        parser.add_argument("--preset", choices=PRESETS, help="paper: the published recipe, a network meta-trained")
        parser.add_argument("--dry-run", action="store_true", help="print the plan of the run, and do nothing")
        parser.add_argument("--resume", action="store_true", help="resume the interrupted run in the output folder")
        parser.add_argument("--overwrite", action="store_true", help="replace an existing run in the output folder")
        _add_data_options(parser)
        parser.add_argument(
            "--jobs",
            type=_processes,
            metavar="N",
            help="worker processes for polishing (default: one per core on the CPU, else 1)",
        )
        parser.add_argument("--backend", default="loky", metavar="B", help="joblib backend: loky, ray, dask, ...")
        parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard events to DIR/tensorboard")
        parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with the settings below")
        settings = parser.add_argument_group("settings")
        defaults = {field.name: field.default for field in dataclasses.fields(LearnConfig)}
        _add_settings(settings, LearnConfig, defaults)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        import torch

        from sol_learner.config import LearnConfig
        from sol_learner.runtime.ranks import joined_ranks
        from sol_learner.task_registry import parse_device

        given = _given_settings(arguments)
        given |= {name: value for name in ("effort", "preset") if (value := getattr(arguments, name))}
        config = (
            LearnConfig.from_toml(arguments.config, **given) if arguments.config else LearnConfig.from_mapping(given)
        )
        device = parse_device(arguments.device)
        with joined_ranks(device) as ranks:
            if device.type == "cuda" and ranks.size > 1:
                device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            return self._run(arguments, config, device, ranks)

    def _run(self, arguments: argparse.Namespace, config: LearnConfig, device: torch.device, ranks: Ranks) -> int:
        from sol_learner.run_folder import prepare_folder
        from sol_learner.runtime.checkpoints import CHECKPOINTS, checkpoints_in
        from sol_learner.runtime.clock import Clock
        from sol_learner.task_registry import short_name

        if arguments.budget and ranks.size > 1:
            raise SolError("--budget is not supported with several processes; set --episodes and --generations instead")
        clock = Clock(arguments.budget, ranks)
        out: Path = arguments.out or Path("runs", file_name("-".join(map(short_name, arguments.tasks))))
        if arguments.dry_run:
            from sol_learner.runtime.workers import shared_threads

            learner, jobs = self._learner(arguments, config, device, ranks, clock)
            with shared_threads(jobs):
                print("\n".join(learner.plan().lines()))
            return 0
        ranks.shared(lambda: prepare_folder(out, arguments.overwrite, arguments.resume))
        if arguments.resume and not checkpoints_in(out / CHECKPOINTS) and ranks.rank == 0:
            print(f"nothing to resume in {out}: starting anew", file=sys.stderr)
        with ExitStack() as held:
            ranks.shared(lambda: held.enter_context(lock_folder(out)))
            return self._learn(arguments, config, device, ranks, clock, out)

    def _learn(
        self,
        arguments: argparse.Namespace,
        config: LearnConfig,
        device: torch.device,
        ranks: Ranks,
        clock: Clock,
        out: Path,
    ) -> int:
        from sol_learner.run_folder import METRICS
        from sol_learner.runtime.checkpoints import CHECKPOINTS, Checkpoints, checkpoints_in
        from sol_learner.runtime.clock import Interrupted
        from sol_learner.runtime.progress import MetricsFile, MultiProgress, TensorBoard, open_progress
        from sol_learner.runtime.workers import shared_threads
        from sol_learner.user_code import file_digest, parts_of

        # Validate the tasks and settings before writing anything.
        learner, jobs = self._learner(arguments, config, device, ranks, clock)
        identity = {"tasks": arguments.tasks, "data": str(arguments.data), "device": device.type, "ranks": ranks.size}
        files = [parts[0] for parts in map(parts_of, arguments.tasks) if parts is not None]
        identity |= {"files": [file_digest(path) for path in files]} if files else {}
        try:
            with open_progress() as shown, clock.catching_interrupts(), shared_threads(jobs):
                reporters = [shown, MetricsFile(out / METRICS)] if ranks.rank == 0 else []
                if arguments.tensorboard and ranks.rank == 0:
                    reporters.append(TensorBoard(out / "tensorboard"))
                learner.progress = progress = MultiProgress(*reporters)
                learner.checkpoints = checkpoints = Checkpoints(
                    out / CHECKPOINTS,
                    {**identity, "jobs": jobs, **dataclasses.asdict(config)},
                    resume=arguments.resume,
                    report=progress.note,
                    ranks=ranks,
                )
                clock.credit(checkpoints.elapsed)
                result = learner.run()
        except Interrupted:
            if checkpoints_in(out / CHECKPOINTS):
                print(f"no rule yet; go on with --resume --out {out}", file=sys.stderr)
            raise KeyboardInterrupt from None
        if ranks.rank == 0:
            result.summary["command"] = _command(arguments)
            self._finish(result, out, clock, checkpoints)
        return 130 if clock.cancelled else 0

    def _learner(
        self, arguments: argparse.Namespace, config: LearnConfig, device: torch.device, ranks: Ranks, clock: Clock
    ) -> tuple[Learner, int]:
        """The learner, and its processes."""
        from sol_learner.pipeline import Learner, suitable_jobs
        from sol_learner.runtime.workers import Workers
        from sol_learner.task_registry import load_task

        tasks = [load_task(name, arguments.data, device) for name in arguments.tasks]
        jobs = arguments.jobs or (suitable_jobs(tasks, config) if ranks.size == 1 else 1)
        return Learner(tasks, config, clock=clock, ranks=ranks, workers=Workers(jobs, arguments.backend)), jobs

    def _finish(self, result: LearnResult, out: Path, clock: Clock, checkpoints: Checkpoints) -> None:
        from sol_learner.run_folder import REPORT, write_run

        files = write_run(result, out)
        checkpoints.clear()
        size = result.rule.complexity
        print(f"\n  θ ← θ - lr · φ,   φ = {result.rule}\n")
        print(f"{size.terms} terms, {result.rule.memory}, {clock.elapsed:.0f} s\n")
        for comparison in result.comparisons:
            print(printable(f"{comparison.table()}\n"))
        print(f"wrote to {out}/: {', '.join(files)}")
        print(f"full report: open {out / REPORT} in a browser")
        if "optimizer.py" not in files:
            print(f"to get a PyTorch file: pip install sol-export, then run sol export {out} --to torch")


def _command(arguments: argparse.Namespace) -> str:
    """The command that repeats a run."""
    names = ("data", "device", "budget", "jobs", "backend", "config", "effort", "preset")
    options = {name: getattr(arguments, name) for name in names}
    options = {
        name: value for name, value in options.items() if value is not None and (name, value) != ("backend", "loky")
    }
    options |= {name.replace("_", "-"): text for name, text in _given_settings(arguments).items()}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["sol", "learn", *arguments.tasks, "--out", "runs/again", *words])


def _add_settings(parser: argparse._ArgumentGroup, cls: type, defaults: Mapping[str, Any]) -> None:
    """Add an option for each setting in ``defaults``; its help text comes from the docstring of ``cls``."""
    from sol_learner.settings import as_text, explanations

    meanings = explanations(cls)
    for name, default in defaults.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting {name}",
            metavar="X",
            help=f"{meanings[name]} (default {as_text(default) or 'none'})".replace("%", "%%"),
        )


def _given_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings passed on the command line, as strings."""
    texts = {name.split()[1]: text for name, text in vars(arguments).items() if name.startswith("setting ")}
    return {name: text for name, text in texts.items() if text is not None}


class LearnLSTM:
    """Meta-train an LSTM (L2LGD2) on a task, as a baseline for learned rules."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        from sol_learner.baselines.lstm_learning import LSTM_LR, LSTM_SETTINGS
        from sol_learner.config import LearnConfig

        parser.add_argument("task", metavar="TASK", help="name of sol tasks, or FILE.py:CLASS")
        parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
        parser.add_argument(
            "--lr", type=_positive, default=LSTM_LR, metavar="X", help=f"learning rate (default {LSTM_LR})"
        )
        parser.add_argument("--budget", metavar="TIME", help="time budget for meta-training: 90s, 5min, 1h")
        parser.add_argument("--resume", action="store_true", help="resume the interrupted run in the output folder")
        parser.add_argument("--overwrite", action="store_true", help="replace an existing run in the output folder")
        _add_data_options(parser)
        _add_settings(parser.add_argument_group("settings"), LearnConfig, LSTM_SETTINGS)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from sol_learner.baselines.lstm_learning import learn_lstm, lstm_config
        from sol_learner.run_folder import METRICS, prepare_folder
        from sol_learner.runtime.checkpoints import CHECKPOINTS, Checkpoints
        from sol_learner.runtime.clock import Clock
        from sol_learner.runtime.progress import MetricsFile, MultiProgress, open_progress
        from sol_learner.task_registry import load_task, parse_device

        config, clock, out = lstm_config(_given_settings(arguments)), Clock(arguments.budget), arguments.out
        device = parse_device(arguments.device)
        prepare_folder(out, arguments.overwrite, arguments.resume)
        task = load_task(arguments.task, arguments.data, device)
        identity = {"lstm": task.name, "data": str(arguments.data), "device": device.type, "lr": arguments.lr}
        with lock_folder(out), open_progress() as shown, clock.catching_interrupts():
            progress = MultiProgress(shown, MetricsFile(out / METRICS))
            checkpoints = Checkpoints(
                out / CHECKPOINTS,
                {**identity, **dataclasses.asdict(config)},
                resume=arguments.resume,
                report=progress.note,
            )
            clock.credit(checkpoints.elapsed)
            clock.allow(1.0)
            trained, training = learn_lstm(
                task, config, lr=arguments.lr, checkpoints=checkpoints, progress=progress, clock=clock
            )
        summary = {
            "task": task.name,
            "lr": trained.lr,
            "config": dataclasses.asdict(config),
            "interrupted": clock.cancelled,
            "seconds": round(clock.elapsed, 3),
            "loss": training.loss,
            "history": training.history,
            "windows": training.windows,
            "dropped": training.dropped,
        }
        write_atomically(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        files = [*trained.save(out), "summary.json"]
        checkpoints.clear()
        count = sum(parameter.numel() for parameter in trained.network.parameters())
        states = 2 * trained.network.units * trained.network.layers
        print(f"LSTM with {count:,} weights, {states} states per parameter; {clock.elapsed:.0f} s")
        print(f"objective on {config.validation_episodes} validation seeds: {training.loss:.4f}\n")
        print(f"wrote to {out}/: {', '.join(files)}\nto get a formula: sol distil {out} --out DIR")
        return 130 if clock.cancelled else 0


class Distil:
    """Distil a meta-trained LSTM into a rule (Symbolic L2O)."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        from sol_learner.baselines.distillation import DistilSettings

        parser.add_argument("lstm", metavar="RUN", type=Path, help="folder written by sol learn-lstm")
        parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
        parser.add_argument("--overwrite", action="store_true", help="replace an existing run in the output folder")
        _add_data_options(parser)
        defaults = {field.name: field.default for field in dataclasses.fields(DistilSettings)}
        _add_settings(parser.add_argument_group("settings"), DistilSettings, defaults)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from sol_learner.baselines.distillation import DistilSettings, distil
        from sol_learner.inner.task_set import TaskSet
        from sol_learner.networks.trained_lstm import TrainedLSTM
        from sol_learner.run_folder import prepare_folder, write_distilled
        from sol_learner.runtime.clock import Clock, Interrupted
        from sol_learner.runtime.progress import open_progress
        from sol_learner.settings import settings_from
        from sol_learner.task_registry import load_task, parse_device

        settings, clock = settings_from(DistilSettings, _given_settings(arguments)), Clock()
        trained = TrainedLSTM.load(arguments.lstm)
        _check_origin(trained.provenance, arguments.lstm)
        prepare_folder(arguments.out, arguments.overwrite)
        device = parse_device(arguments.device)
        tasks = tuple(load_task(name, arguments.data, device) for name in trained.provenance["tasks"])
        task_set = TaskSet(tasks, (1.0,) * len(tasks), float(trained.provenance["objective"]))
        trained.network.to(device)
        try:
            with lock_folder(arguments.out), open_progress() as progress, clock.catching_interrupts():
                found = distil(trained, task_set, settings, progress, clock)
        except Interrupted:
            raise KeyboardInterrupt from None
        files = write_distilled(found, trained, settings, arguments.out)
        print(f"\n  θ ← θ - lr · φ,   φ = {found[0].rule}\n")
        for formula in found:
            sizes = formula.rule.complexity
            print(f"{sizes.terms:3} terms  R² {formula.held_out:6.3f}  objective {formula.loss:.4f}")
        if trained.provenance["loss"] is not None:
            print(f"  the LSTM itself     objective {trained.provenance['loss']:.4f}")
        print(f"\nwrote to {arguments.out}/: {', '.join(files)}")
        return 130 if clock.cancelled else 0


FURTHER = 6
"""How many rates beyond five :class:`Tune` may try."""


class Tune:
    """Choose a rule and its learning rate for a task, by one training each.

    Without RULE, these are sol-general, sol-fits and those that the task names, each at five learning rates. With
    RULE, a zoo name, a run folder, a rule file or a formula with a learning rate, they are five multiples of its rate.

    Where the best rate is at an end, or nothing trains, up to six further ones follow: a network that was trained
    before needs far smaller rates than a fresh one. Then it tries weight decay, and more of it while that is better.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        parser.add_argument("task", metavar="TASK", help="name of sol tasks, or FILE.py:CLASS")
        parser.add_argument("rule", metavar="RULE", nargs="?", help="default: sol-general, sol-fits and the task's own")
        parser.add_argument("--steps", type=_count, metavar="N", help="inner steps (default: the task's horizon)")
        parser.add_argument("--seeds", type=_count, default=1, metavar="N", help="trainings per rate (default 1)")
        parser.add_argument("--seed", type=_seed, default=0, help="base seed of all random streams (default 0)")
        parser.add_argument("--out", type=Path, metavar="FILE", help="write the rule with its rate and horizon as JSON")
        _add_data_options(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from sol_learner.inner import choose_rule, nearby, shipped_rules
        from sol_learner.task import require_task, with_horizon
        from sol_learner.task_registry import load_task, parse_device
        from sol_symbols import UpdateRule, resolve_rule

        given = arguments.rule
        if arguments.out is not None:
            check_target(arguments.out)
        task = load_task(arguments.task, arguments.data, parse_device(arguments.device))
        rules = shipped_rules(task) if given is None else nearby(resolve_rule(given))
        require_task(task)
        task = with_horizon(task, arguments.steps) if arguments.steps else task

        def report(rule: UpdateRule, loss: float) -> None:
            name, wd = "" if given else f"{rule.name:<13}", ""
            if rule.values.get("wd"):
                wd = f"weight_decay {rule.values['wd']:<10g} "
            print(f"{name}lr {rule.lr:<10g} {wd}objective {loss:.4g}", flush=True)

        seeds = arguments.seed, arguments.seeds
        measured = choose_rule(task, rules, *seeds, further=FURTHER, decays=True, report=report)
        best = measured[0][0]
        horizon = f", horizon={task.horizon}" if best.needs_horizon else ""
        wd = f", weight_decay={best.values['wd']:g}" if best.values.get("wd") else ""
        print(f'load_optimizer("{given or best.name}")(model.parameters(), lr={best.lr:g}{wd}{horizon})')
        if arguments.out is not None:
            best.with_horizon(task.horizon).save(arguments.out)
            print(f"wrote {arguments.out}; sol export {arguments.out} --to torch writes an optimizer")
        return 0


def _check_origin(origin: Mapping[str, Any], lstm: Path) -> None:
    """Check what :class:`Distil` needs of a trained LSTM's provenance."""
    tasks, numbers = origin.get("tasks"), [origin.get(name) for name in ("seed", "spent")]
    whole = isinstance(tasks, list) and tasks and all(isinstance(task, str) for task in tasks)
    objective, loss = origin.get("objective"), origin.get("loss")
    if not (
        whole
        and all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers)
        and (isinstance(objective, int | float) and 0 <= objective <= 1)
        and (loss is None or isinstance(loss, float))
    ):
        raise SolError(f"{lstm} does not say what its LSTM was trained on; it was not written by sol learn-lstm")


class Compare:
    """Compare optimizers on one or more tasks; those without a fixed learning rate are tuned first.

    OPT is a rule (run folder, rule file, zoo name, formula), torch:NAME, pytorch_optimizer:NAME or FILE.py:CLASS,
    which runs the code of FILE.py. Run folders, rule files, stores and data are read without running anything.
    tune:OPT tunes an optimizer although it has a learning rate. The first one is compared with all the others; given
    alone, with the panel: AdamW, NAdamW, Nesterov momentum and Lion, each tuned with its schedule.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        from sol_learner.comparing.config import CRITERIA, TUNING

        parser.add_argument(
            "tasks",
            metavar="TASK",
            type=_names,
            help="tasks, separated by commas:\nnames of sol tasks, or FILE.py:CLASS",
        )
        parser.add_argument("optimizers", metavar="OPT", nargs="+", help="optimizers, the one of interest first")
        parser.add_argument("--seeds", type=_count, default=10, metavar="N", help="held-out seeds (default 10)")
        parser.add_argument("--seed", type=_seed, default=0, help="base seed of all random streams (default 0)")
        parser.add_argument(
            "--steps",
            type=_counts,
            default=(),
            metavar="N,...",
            help="inner steps; with several numbers,\ncompares at each (default: the task's horizon)",
        )
        parser.add_argument(
            "--tune",
            choices=TUNING,
            default="full",
            help="full: rate, momenta, averaging, eps, weight decay\nand schedule; lr: a constant rate (default full)",
        )
        parser.add_argument(
            "--trainings", type=_count, metavar="N", help="trainings to tune each optimizer (default 240)"
        )
        parser.add_argument(
            "--budget-of", type=Path, metavar="RUN", help="as many trainings as the run spent, for each optimizer"
        )
        parser.add_argument(
            "--tune-for",
            choices=CRITERIA,
            default="objective",
            help="tune for the final loss on a split, or for the\nlearner's objective, a mean (default objective)",
        )
        parser.add_argument(
            "--tuning-seeds",
            type=_count,
            default=1,
            metavar="N",
            help="separate seeds per setting in tuning (default 1);\nthe best settings get more",
        )
        parser.add_argument(
            "--target",
            type=_finite,
            metavar="LOSS",
            help="count steps to this loss\n(default: final loss of the best baseline)",
        )
        parser.add_argument("--store", type=Path, metavar="FILE", help="SQLite file that caches finished runs")
        parser.add_argument("--jobs", type=_processes, default=1, metavar="N", help="worker processes (default 1)")
        parser.add_argument("--backend", default="loky", metavar="B", help="joblib backend: loky, ray, dask, ...")
        parser.add_argument("--threads", type=_processes, default=1, metavar="N", help="threads per run (default 1)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
        parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per run as CSV")
        _add_data_options(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status: 1 if any run failed."""
        from sol_learner.comparing.config import CompareConfig
        from sol_learner.comparing.protocol import against_panel
        from sol_learner.comparing.suite import compare_tasks
        from sol_learner.runtime.clock import Clock, Interrupted
        from sol_learner.runtime.progress import open_progress
        from sol_learner.runtime.workers import Workers
        from sol_learner.task_registry import parse_device

        config = CompareConfig(
            episodes=arguments.seeds,
            seed=arguments.seed,
            tune=arguments.tune,
            trainings=_trainings(arguments),
            tune_for=arguments.tune_for,
            tuning_episodes=arguments.tuning_seeds,
            target=arguments.target,
            threads=arguments.threads,
        )
        for target in (arguments.json, arguments.csv):
            if target is not None:
                check_target(target)
        clock, names = Clock(), arguments.optimizers
        optimizers, references = against_panel(names[0]) if len(names) == 1 else (names, ())
        workers = Workers(arguments.jobs, arguments.backend)
        try:
            with open_progress() as progress, clock.catching_interrupts():
                suite = compare_tasks(
                    arguments.tasks,
                    optimizers,
                    config,
                    steps=arguments.steps,
                    references=references,
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
        comparison = suite if len(suite.comparisons) > 1 else suite.comparisons[0]
        if arguments.json is not None:
            write_atomically(arguments.json, json.dumps(comparison.record(statistics=True), indent=1) + "\n")
        if arguments.csv is not None:
            write_atomically(arguments.csv, comparison.csv())
        print(printable(comparison.report(statistics=True)))
        lost = [*comparison.failures, *(f for c in suite.comparisons for f in c.protocol.get("tuning_failures", []))]
        if lost:
            print(
                f"sol: {len(lost)} runs failed; to retry them, repeat the command with the same --store",
                file=sys.stderr,
            )
        return 1 if lost else 0


def _trainings(arguments: argparse.Namespace) -> int:
    """Trainings for each optimizer that is tuned."""
    from sol_learner.comparing.config import CompareConfig
    from sol_learner.run_folder import trainings_of

    if arguments.budget_of is None:
        return arguments.trainings or CompareConfig.trainings
    if arguments.trainings is not None:
        raise SolError("--trainings and --budget-of are mutually exclusive")
    return trainings_of(arguments.budget_of)


class Check:
    """Check that a task keeps the promises that learning relies on."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        parser.add_argument("task", metavar="TASK", help="name of sol tasks, or FILE.py:CLASS")
        _add_data_options(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status: 1 if a promise is broken."""
        from sol_learner.inner.side_by_side import obstacle
        from sol_learner.task import Stream, build_optimizee, task_for, trainable
        from sol_learner.task_registry import load_task, parse_device
        from sol_learner.testing import check_task

        task = load_task(arguments.task, arguments.data, parse_device(arguments.device))
        try:
            check_task(task)
        except AssertionError as error:
            raise SolError(f"{arguments.task}: {error}") from None
        model = build_optimizee(task_for(task, Stream.TRAIN), 0, Stream.TRAIN, 0)
        count = sum(parameter.numel() for parameter in trainable(model))
        print(f"{task.name}: a task; {count:,} parameters to train, T = {task.horizon} steps")
        declared = not getattr(task, "vectorizable", True)
        fault = None if declared else obstacle(task)
        why = "vectorizable = False" if declared else fault.reason if fault is not None else None
        print("models are trained side by side" if why is None else f"models are trained one after another: {why}")
        return 0


class Report:
    """Write a self-contained HTML report of a run, a comparison or a study."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare options and operands."""
        from sol_learner.run_folder import REPORT

        parser.add_argument(
            "source", type=Path, metavar="RUN", help="run folder, or JSON file from sol compare\n--json or from a study"
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            help=f"output file (default: RUN/{REPORT}, or next to the JSON file)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from sol_learner.report.page import is_report, write_report
        from sol_learner.run_folder import REPORT

        source: Path = arguments.source
        target = arguments.output or (source / REPORT if source.is_dir() else source.with_suffix(".html"))
        if source.exists() and target.exists() and target.samefile(source):
            raise SolError(f"the report of {source} would replace it; choose another file: -o FILE")
        if arguments.output is None and not source.is_dir() and is_regular(target) and not is_report(target):
            raise SolError(f"{target} exists and is no report; to replace it, pass -o {target}")
        check_target(target)
        write_report(source, target)
        print(f"wrote {target}")
        return 0


class Tasks:
    """List the installed tasks."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """No options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return the exit status."""
        from rich.console import Console

        from sol_learner.task_registry import describe, find_tasks

        tasks = find_tasks()
        if not tasks:
            raise SolError("no tasks are installed; run pip install sol-tasks")
        width = max(len(name) for name in tasks)
        console = Console(highlight=False, soft_wrap=True)
        for name, point in tasks.items():
            summary, ready = describe(point)
            console.print(f"{name:<{width}}  {summary}", style=None if ready else "dim", markup=False)
        return 0
