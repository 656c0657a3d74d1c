"""Learn ``sol-general`` and others: one rule for many kinds of training, by CMA-ES on a mixture of small ones.

    python studies/prior.py --seed SEED --json studies/prior/general-first-seedSEED.json
    python studies/prior.py --generations 110 --per-generation 4 --seed 6 --from 85 \\
        --start studies/prior/general-first-seed1.json --json studies/prior/general-second-seed6.json
    python studies/prior.py --show studies/prior/general-second-seed6.json --from 60

with the seeds 0, 1 and 2 first. With ``--rule sol-elementwise``, the rule without matrix products:
``elementwise-first.json``, then from its mean 115 on 135 generations of 3 trainings, seed 5; its means from 25 on.

``sol-fits`` goes on from ``sol-general``, on fits of functions (``sol_tasks.small_fits``):

    python studies/prior.py --family fits --generations 100 --per-generation 6 --seed SEED --from 60 \\
        --start studies/prior/general-second-seed6.json --json studies/prior/fits-seedSEED.json

with seed 3. As much again from its mean, with seed 4 (``fits-second-seed4.json``), was worse on 32 new draws.

Every generation draws new trainings (``sol_tasks.small_trainings``), trains 16 candidates on each, ranks them by the
sum of their logarithmic losses, each less the median of its training and cut to [-1, 3]: the mean of half the logarithm
of the training and of the validation loss. The search has 12 coefficients, in coordinates that are white for typical
correlations of the terms, and 9 constants. The rule is the mean of the search's means from ``--from`` on.
Some JSON is older than the code: ``sol-elementwise`` was searched without ``init_scale``, the safe start for small
weights, and on half as many long trainings; the first stages of ``sol-general`` and seed 5 of the second, which began
at seed 0 of the first, ran with ``tensor_rate`` in place of ``tensor_pace``. All but ``general-third-seed8.json``,
which goes on from the second stage, were searched when the family's digits were sorted: most of its trainings on
digits lacked classes that validation had.
The JSON keeps the means; a run that is started again continues after the last one, with its covariance anew.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cmaes
import numpy
import torch

from sol_learner import TaskMixture
from sol_learner.inner import run_rule
from sol_learner.task import Stream, Substream, generator_for
from sol_symbols import STANDARD, UpdateRule, write_atomically
from sol_tasks.small_fits import small_fits
from sol_tasks.small_trainings import small_trainings


@dataclass(frozen=True)
class Form:
    """A rule whose numbers are learned: sum_ij a_ij direction_i decay_j, times the adaptive rate and more."""

    directions: tuple[str, ...]
    correlations: tuple[float, ...]  # of the last direction with the others
    rate: str
    start: dict[int, float]  # coefficients by place; the others are 0


FORMS = {
    "sol-general": Form(("ad", "rs", "la_n", "la_o"), (0.6, 0.3, 0.6), "tensor_pace", {1: 0.25, 10: 0.5}),
    "sol-elementwise": Form(("ad", "rs", "la_n", "g_n"), (0.4, 0.75, 0.5), "tensor_rate", {1: 0.5, 7: 0.5}),
}
DECAYS = ("1", "ld", "pd")
CONSTANTS = {  # start and step of the coordinate: the logarithm, log(1 - x), or x
    "size": (math.log(0.03), 0.3, "log"),
    "fan_in_power": (0.25, 0.1, "linear"),
    "vector_gain": (-0.5, 0.25, "linear"),
    "warmup": (math.log(3.0), 0.4, "log"),
    "decay_power": (math.log(2.0), 0.2, "log"),
    "beta1": (math.log(0.1), 0.25, "complement"),
    "beta2": (math.log(0.03), 0.35, "complement"),
    "rate_gain": (math.log(0.1), 0.3, "log"),
    "rate_target": (-0.03, 0.02, "linear"),
}
NAMES = [*(f"a{i}" for i in range(12)), *CONSTANTS]
POPULATION = 16
FAMILIES: dict[str, tuple[Callable[[], TaskMixture], float]] = {
    "trainings": (small_trainings, 1e-4),
    "fits": (small_fits, 1e-6),
}
"""Makes the family, and the loss below which all losses count as this."""


def formula(form: Form, constant: Callable[[int], str]) -> str:
    """The rule's text, with ``constant(i)`` for coefficient i."""
    sums = [
        f"{direction}*({' + '.join(f'{constant(3 * i + j)}*{decay}' for j, decay in enumerate(DECAYS))})"
        for i, direction in enumerate(form.directions)
    ]
    return f"wu*tensor_scale*{form.rate}*({' + '.join(sums)})"


def open_rule(form: Form) -> UpdateRule:
    """The rule with all numbers open."""
    values = {name: 0.5 for name in NAMES if name not in STANDARD.hyperparameters}
    where = ", ".join(f"{name} = {value}" for name, value in values.items())
    return UpdateRule.parse(f"size*{formula(form, lambda i: f'a{i}')} where lr = 1, T = 100, {where}")


def values_at(points: Sequence[numpy.ndarray]) -> dict[str, torch.Tensor]:
    """The rule's values, each [C], at points of the search."""
    table, values = torch.as_tensor(numpy.stack(points), dtype=torch.float64), {}
    for column, name in enumerate(NAMES):
        kind = CONSTANTS[name][2] if name in CONSTANTS else "linear"
        x = table[:, column]
        values[name] = x.exp() if kind == "log" else 1 - x.exp().clamp(max=0.95) if kind == "complement" else x
    return values


def rule_at(form: Form, point: numpy.ndarray) -> UpdateRule:
    """The rule at a point, its numbers to three digits."""
    values = {name: float(f"{float(x):.3g}") for name, x in values_at([point]).items()}
    exact = {name: float(x) for name, x in values_at([point]).items()}
    values |= {name: round(1 - float(f"{1 - exact[name]:.3g}"), 6) for name in ("beta1", "beta2")}
    lr = values.pop("size")
    where = ", ".join(f"{name} = {value}" for name, value in values.items() if name in CONSTANTS)
    text = formula(form, lambda i: f"({values[f'a{i}']})")
    return UpdateRule.parse(f"{text} where lr = {lr}, {where}")


def covariance(form: Form) -> numpy.ndarray:
    """Covariance of the first generation: a tenth of phi for the coefficients."""
    directions = numpy.array([[1, 0.45, 0.75, 0], [0.45, 1, 0.35, 0], [0.75, 0.35, 1, 0], [0, 0, 0, 1]])
    directions[3, :3] = directions[:3, 3] = form.correlations
    decays = numpy.array([[1, 1 / 2, 1 / 3], [1 / 2, 1 / 3, 1 / 4], [1 / 3, 1 / 4, 1 / 5]])
    gram = numpy.kron(directions, decays)
    sizes = numpy.sqrt(numpy.diag(gram))
    values, vectors = numpy.linalg.eigh(gram / numpy.outer(sizes, sizes) + 0.02 * numpy.eye(12))
    root = (vectors / numpy.sqrt(values)) @ vectors.T / sizes[:, None]
    found = numpy.diag([0.0] * 12 + [step**2 for _, step, _ in CONSTANTS.values()])
    found[:12, :12] = 0.01 * root @ root.T
    return found


def losses(
    family: TaskMixture, rule: UpdateRule, episode: int, points: Sequence[numpy.ndarray], least: float
) -> numpy.ndarray:
    """Logarithmic loss of each point on an episode's training."""
    task = family.draw(generator_for(7, Stream.TRAIN, episode, Substream.RECORDING))
    outcome = run_rule(task, rule, 7, Stream.TRAIN, [episode], values=values_at(points), horizon=task.horizon)
    logs = [outcome.metrics[split]["loss"][:, 0].clamp(min=least).log() for split in ("train", "valid")]
    return (0.5 * (logs[0] + logs[1])).nan_to_num(nan=20.0, posinf=20.0).clamp(max=20).numpy()


def main() -> None:
    """Run a stage, or show its rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rule", default="sol-general", choices=FORMS)
    parser.add_argument("--family", default="trainings", choices=FAMILIES)
    parser.add_argument("--generations", type=int, default=150)
    parser.add_argument("--per-generation", type=int, default=2, help="trainings that a generation draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="JSON of an earlier stage")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first mean that is averaged")
    parser.add_argument("--show", type=Path, help="print the rule of a JSON")
    parser.add_argument("--json", type=Path, default=Path("prior.json"))
    arguments = parser.parse_args()
    form = FORMS[arguments.rule]
    if arguments.show:
        means = numpy.array(json.loads(arguments.show.read_text())["means"])
        print(rule_at(form, means[arguments.first :].mean(0)))
        return
    torch.set_num_threads(1)
    center, spread = numpy.zeros(len(NAMES)), covariance(form)
    center[[*form.start]] = [*form.start.values()]
    center[12:] = [start for start, _, _ in CONSTANTS.values()]
    if arguments.start:
        before = numpy.abs(center[:12]).mean()
        center = numpy.array(json.loads(arguments.start.read_text())["means"])[arguments.first :].mean(0)
        spread = 0.5 * spread
        spread[:12, :12] *= min(numpy.abs(center[:12]).mean() / before, 3.0) ** 2
    means = json.loads(arguments.json.read_text())["means"] if arguments.json.exists() else []
    center = numpy.array(means[-1]) if means else center
    search = cmaes.CMA(center, 1.0, cov=spread, population_size=POPULATION, seed=arguments.seed + 1)
    make, least = FAMILIES[arguments.family]
    family, rule, start = make(), open_rule(form), time.monotonic()
    for generation in range(len(means), arguments.generations):
        points, score = [search.ask() for _ in range(POPULATION)], numpy.zeros(POPULATION)
        first = arguments.seed * 100_000 + generation * arguments.per_generation
        for episode in range(first, first + arguments.per_generation):
            found = losses(family, rule, episode, points, least)
            score += numpy.clip(found - numpy.median(found), -1, 3)
        search.tell(list(zip(points, score.tolist())))
        means.append(search.mean.tolist())
        if generation % 5 == 4:
            trainings = len(means) * POPULATION * arguments.per_generation
            write_atomically(
                arguments.json, json.dumps({"seed": arguments.seed, "trainings": trainings, "means": means}) + "\n"
            )
            print(
                f"{generation + 1} generations, {time.monotonic() - start:.0f} s  {rule_at(form, search.mean)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
