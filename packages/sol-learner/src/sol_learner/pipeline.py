"""The whole way from a task to a rule: tune Adam, meta-train, read out, prune, polish, compare."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy
import sympy
import torch

from sol_learner.comparison import Comparison, compare
from sol_learner.episodes import tune_learning_rate
from sol_learner.meta_training import MetaTraining, meta_train
from sol_learner.network import FEATURES, UNITS, SymbolicNetwork
from sol_learner.polishing import Polished, polish
from sol_learner.progress import Clock, Interrupted, Progress, Silent
from sol_learner.pruning import Point, Samples, backward_elimination, choose, measure_front, record
from sol_learner.task import Purpose, Task, generator_for
from sol_symbols import ZOO, SolError, UpdateRule

__all__ = ["LearnConfig", "LearnResult", "learn", "readout_error"]


@dataclass(frozen=True)
class LearnConfig:
    """Every number of a run.

    Attributes:
        seed: Base seed; all random streams follow from it.
        start: Zoo rule that the network equals before training, tuned first.
        features: Input features of the network, expressions of the standard vocabulary.
        units: Operators of its hidden layer.
        tuning_episodes: Episodes that each learning rate of a baseline is measured on.
        episodes: Episodes of meta-training.
        meta_batch: Optimizees trained side by side in each, B.
        unroll: Inner steps per window, U.
        outer_lr: Learning rate of the outer Adam.
        coordinates: Coordinates sampled for the meta-gradient, K.
        validation: Episodes on which the best network and the length of the rule are chosen.
        validate_every: Episodes of meta-training between validations.
        record_episodes: Episodes recorded for pruning.
        record_coordinates: Coordinates recorded of each.
        front: Most terms of a rule on the front.
        terms: Most terms of the rule that is polished.
        generations: Generations of CMA-ES in polishing.
        population: Candidates per generation.
        polish_episodes: Episodes that each candidate is measured on, new ones in every generation.
        sigma: Initial step of the search, in units of the root mean square of phi.
        evaluation: Held-out episodes of the final comparison.
        baselines: Zoo rules, each tuned, that the learned rule is compared with.
    """

    seed: int = 0
    start: str = "adam"
    features: tuple[str, ...] = FEATURES
    units: tuple[str, ...] = UNITS
    tuning_episodes: int = 4
    episodes: int = 12
    meta_batch: int = 8
    unroll: int = 20
    outer_lr: float = 3e-3
    coordinates: int = 2048
    validation: int = 8
    validate_every: int = 2
    record_episodes: int = 4
    record_coordinates: int = 150
    front: int = 15
    terms: int = 8
    generations: int = 40
    population: int = 12
    polish_episodes: int = 2
    sigma: float = 0.2
    evaluation: int = 10
    baselines: tuple[str, ...] = ("adam", "momentum")


@dataclass
class LearnResult:
    """What a run reached. Parts that an interrupted run did not come to are ``None``.

    Attributes:
        rule: The learned rule, with its learning rate and horizon.
        readout: The network's formula, nothing dropped.
        readout_error: Largest difference of network and formula on recorded states, relative to the largest phi.
        front: Rules of several lengths with their losses.
        comparison: Learned rule and tuned baselines on held-out seeds.
        summary: Configuration, versions, timings and all numbers; JSON-able.
    """

    rule: UpdateRule
    readout: UpdateRule
    readout_error: float
    front: list[Point]
    comparison: Comparison | None
    summary: dict[str, Any] = field(default_factory=dict)


def learn(
    task: Task,
    config: LearnConfig | None = None,
    *,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> LearnResult:
    """Learn an update rule for ``task``.

    Args:
        task: Anything that satisfies :class:`~sol_learner.Task`.
        config: Settings; the defaults are meant for small tasks on a CPU.
        progress: Where to report; nowhere by default.
        clock: Limits the time. A cancelled or expired clock ends the present phase, and what was reached is returned.

    Raises:
        SolError: The task cannot be learned on: no learning rate trains it.
        Interrupted: The clock was cancelled before anything was reached.
    """
    config, progress, clock = config or LearnConfig(), progress or Silent(), clock or Clock()
    if config.start not in ZOO:
        raise SolError(f"no zoo rule {config.start!r} to start from; known: {', '.join(ZOO)}")
    start, timings = ZOO[config.start], dict[str, float]()

    with _timed(timings, "tune"):
        progress.phase(f"tuning {config.start}", 1)
        lr, tuning = tune_learning_rate(task, start, config.seed, config.tuning_episodes, clock=clock)
        progress.step(1, lr=lr, loss=min(loss for _, loss in tuning))

    with _timed(timings, "meta_train"):
        clock.allow(0.45)
        generator = generator_for(config.seed, Purpose.TRAIN, 0, part=3)
        network = SymbolicNetwork(start, config.features, (config.units,), generator=generator).to(_device(task))
        training = meta_train(
            task,
            network,
            lr,
            seed=config.seed,
            episodes=config.episodes,
            meta_batch=config.meta_batch,
            unroll=config.unroll,
            outer_lr=config.outer_lr,
            coordinates=config.coordinates,
            validation=config.validation,
            every=config.validate_every,
            progress=progress,
            clock=clock,
        )

    with _timed(timings, "prune"):
        clock.allow(0.6)
        readout = network.rule(lr, task.horizon)
        used = config.episodes * config.meta_batch  # episodes of the training stream that are spent
        samples = record(
            task, network, lr, config.seed, range(used, used + config.record_episodes), config.record_coordinates
        )
        used += config.record_episodes
        error = readout_error(network, readout, samples)
        rules = backward_elimination(readout, samples, config.front)
        front = measure_front(task, rules, config.seed, config.validation, progress, clock)
        short = [point for point in front if point.terms <= config.terms]
        chosen = choose(short).rule if short else min(rules, key=lambda rule: abs(len(rule.terms) - config.terms))

    with _timed(timings, "polish"):
        clock.allow(0.9)
        polished = polish(
            task,
            chosen,
            samples,
            seed=config.seed,
            first_episode=used,
            generations=config.generations,
            population=config.population,
            episodes=config.polish_episodes,
            sigma=config.sigma,
            validation=config.validation,
            progress=progress,
            clock=clock,
        )
    provenance = {"learned on": task.name, "seed": config.seed, "sol": metadata.version("sol-learner")}
    rule = replace(polished.rule, name=f"{task.name}-optimizer", provenance=provenance)

    comparison = None
    with _timed(timings, "compare"):
        clock.allow(float("inf"))
        rules_by_name = {"learned": rule, **{name: ZOO[name] for name in config.baselines}}
        try:
            comparison = compare(
                task,
                rules_by_name,
                seed=config.seed,
                episodes=config.evaluation,
                progress=progress,
                clock=clock,
                tuned={config.start: (lr, tuning)},
            )
        except Interrupted:
            progress.note("the comparison with the baselines was skipped")
    result = LearnResult(rule, readout, error, front, comparison)
    result.summary = _summary(task, config, result, training, polished, lr, tuning, timings, clock)
    return result


@contextmanager
def _timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    timings[phase] = round(time.monotonic() - start, 3)


def _device(task: Task) -> torch.device:
    return next(task.build(torch.Generator().manual_seed(0)).parameters()).device


@torch.no_grad()
def readout_error(network: SymbolicNetwork, rule: UpdateRule, samples: Samples) -> float:
    """Largest |network - rule| over the samples, relative to the largest |network|; both in float64."""
    parameters = {name: value.double() for name, value in network.named_parameters()}
    phi = torch.func.functional_call(network, parameters, (samples.evaluate(network.features),))
    (formula,) = samples.evaluate([rule.expression])
    return float((phi - formula).abs().max() / phi.abs().max())


def _summary(
    task: Task,
    config: LearnConfig,
    result: LearnResult,
    training: MetaTraining,
    polished: Polished,
    lr: float,
    tuning: list[tuple[float, float]],
    timings: dict[str, float],
    clock: Clock,
) -> dict[str, Any]:
    modules = {"torch": torch.__version__, "sympy": sympy.__version__, "numpy": numpy.__version__}
    size = result.rule.complexity
    return {
        "task": task.name,
        "horizon": task.horizon,
        "config": asdict(config),
        "rule": str(result.rule),
        "digest": result.rule.digest,
        "complexity": asdict(size),
        "interrupted": clock.cancelled,
        "budget": clock.budget,
        "tuning": {"rule": config.start, "lr": lr, "measured": tuning},
        "meta_training": {
            "loss": training.loss,
            "history": training.history,
            "windows": training.windows,
            "dropped": training.dropped,
        },
        "readout": {"terms": result.readout.complexity.terms, "error": result.readout_error},
        "front": [{"terms": p.terms, "loss": p.loss, "rule": str(p.rule)} for p in result.front],
        "polish": {"generations": polished.generations, "loss": polished.loss, "history": polished.history},
        "comparison": result.comparison.record() if result.comparison else None,
        "seconds": timings,
        "versions": {"sol": metadata.version("sol-learner"), "python": platform.python_version(), **modules},
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
