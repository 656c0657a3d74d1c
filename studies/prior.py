"""Learn ``sol-general`` and others: one rule for many kinds of training, by CMA-ES on a mixture of small ones.

    python studies/prior.py --seed SEED --json studies/prior/general-first-seedSEED.json
    python studies/prior.py --generations 110 --per-generation 4 --seed 6 --from 85 \\
        --start studies/prior/general-first-seed1.json --json studies/prior/general-second-seed6.json
    python studies/prior.py --show studies/prior/general-second-seed6.json --from 60

with the seeds 0, 1 and 2 first. With ``--rule sol-elementwise``, the rule without matrix products:
``elementwise-first.json``, then from its mean 115 on 135 generations of 3 trainings, seed 5; its means from 25 on.

``sol-fits`` goes on from ``sol-general``, on fits of functions (``sol_tasks.small_fits``):

    python studies/prior.py --families fits --generations 100 --per-generation 6 --seed SEED --from 60 \\
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
One rule for both families, not shipped yet, with ``calm`` and on shuffled digits (``--rule calm --families trainings
trainings fits``): 120 generations of 3 from ``general-second-seed6.json``, seed 11, from 60; as much again from its
mean from 40, seed 12; 100 generations of 6 from its mean from 20, seed 14. The rule is the mean from 30 on.

The JSON keeps the means; a run that is started again continues after the last one, with its covariance anew.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    rate: str
    start: dict[tuple[str, str], float]  # coefficients by direction and decay; the others are 0

    @property
    def terms(self) -> list[tuple[str, str]]:
        """Direction and decay of each coefficient."""
        return [(direction, decay) for direction in self.directions for decay in DECAYS]

    @property
    def names(self) -> list[str]:
        """Of the search's coordinates: coefficients, then constants."""
        return [*(f"a{i}" for i in range(len(self.terms))), *CONSTANTS]


_START = {("ad", "ld"): 0.25, ("la_o", "ld"): 0.5}
FORMS = {
    "sol-general": Form(("ad", "rs", "la_n", "la_o"), "tensor_pace", _START),
    "sol-elementwise": Form(("ad", "rs", "la_n", "g_n"), "tensor_rate", {("ad", "ld"): 0.5, ("la_n", "ld"): 0.5}),
    "calm": Form(("ad", "rs", "la_n", "la_o"), "calm*tensor_pace", _START),
}
CORRELATIONS = {
    **{("ad", "rs"): 0.45, ("ad", "la_n"): 0.75, ("rs", "la_n"): 0.35},
    **{("ad", "la_o"): 0.6, ("rs", "la_o"): 0.3, ("la_n", "la_o"): 0.6},
    **{("ad", "g_n"): 0.4, ("rs", "g_n"): 0.75, ("la_n", "g_n"): 0.5},
}
"""Typical ones of two directions."""

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
POPULATION = 16
FAMILIES: dict[str, tuple[Callable[[], TaskMixture], float]] = {
    "trainings": (small_trainings, 1e-4),
    "fits": (small_fits, 1e-6),
}
"""Makes the family, and the loss below which all losses count as this."""


def formula(form: Form, constant: Callable[[int], str]) -> str:
    """The rule's text, with ``constant(i)`` for coefficient i."""
    sums = [
        f"{direction}*({' + '.join(f'{constant(len(DECAYS) * i + j)}*{decay}' for j, decay in enumerate(DECAYS))})"
        for i, direction in enumerate(form.directions)
    ]
    return f"wu*tensor_scale*{form.rate}*({' + '.join(sums)})"


def open_rule(form: Form) -> UpdateRule:
    """The rule with all numbers open."""
    values = {name: 0.5 for name in form.names if name not in STANDARD.hyperparameters}
    where = ", ".join(f"{name} = {value}" for name, value in values.items())
    return UpdateRule.parse(f"size*{formula(form, lambda i: f'a{i}')} where lr = 1, T = 100, {where}")


def values_at(form: Form, points: Sequence[numpy.ndarray]) -> dict[str, torch.Tensor]:
    """The rule's values, each [C], at points of the search."""
    table, values = torch.as_tensor(numpy.stack(points), dtype=torch.float64), {}
    for column, name in enumerate(form.names):
        kind = CONSTANTS[name][2] if name in CONSTANTS else "linear"
        x = table[:, column]
        values[name] = x.exp() if kind == "log" else 1 - x.exp().clamp(max=0.95) if kind == "complement" else x
    return values


def rule_at(form: Form, point: numpy.ndarray) -> UpdateRule:
    """The rule at a point, its numbers to three digits."""
    exact = {name: float(x) for name, x in values_at(form, [point]).items()}
    values = {name: float(f"{x:.3g}") for name, x in exact.items()}
    values |= {name: round(1 - float(f"{1 - x:.3g}"), 6) for name, x in exact.items() if name.startswith("beta")}
    lr = values.pop("size")
    where = ", ".join(f"{name} = {value}" for name, value in values.items() if name in CONSTANTS)
    text = formula(form, lambda i: f"({values[f'a{i}']})")
    return UpdateRule.parse(f"{text} where lr = {lr}, {where}")


def covariance(form: Form) -> numpy.ndarray:
    """Covariance of the first generation: a tenth of phi for the coefficients."""
    pairs = {**CORRELATIONS, **{(j, i): c for (i, j), c in CORRELATIONS.items()}}
    directions = numpy.array([[pairs[i, j] if i != j else 1 for j in form.directions] for i in form.directions])
    decays = numpy.array([[1, 1 / 2, 1 / 3], [1 / 2, 1 / 3, 1 / 4], [1 / 3, 1 / 4, 1 / 5]])
    gram = numpy.kron(directions, decays)
    sizes = numpy.sqrt(numpy.diag(gram))
    values, vectors = numpy.linalg.eigh(gram / numpy.outer(sizes, sizes) + 0.02 * numpy.eye(len(gram)))
    root = (vectors / numpy.sqrt(values)) @ vectors.T / sizes[:, None]
    found = numpy.diag([0.0] * len(gram) + [step**2 for _, step, _ in CONSTANTS.values()])
    found[: len(gram), : len(gram)] = 0.01 * root @ root.T
    return found


def first_point(form: Form, start: Path | None, first: int) -> numpy.ndarray:
    """Where the search begins: the mean of an earlier stage's means from ``first`` on, of the same form or another."""
    known: dict[Any, float] = {name: value for name, (value, _, _) in CONSTANTS.items()}
    if start:
        before = json.loads(start.read_text())
        other = FORMS[before.get("form", "sol-general")]
        known |= zip([*other.terms, *CONSTANTS], numpy.array(before["means"])[first:].mean(0))
    else:
        known |= form.start
    return numpy.array([known.get(key, 0.0) for key in (*form.terms, *CONSTANTS)])


def losses(
    family: TaskMixture,
    form: Form,
    rule: UpdateRule,
    episode: int,
    points: Sequence[numpy.ndarray],
    least: float,
) -> numpy.ndarray:
    """Logarithmic loss of each point on an episode's training."""
    task = family.draw(generator_for(7, Stream.TRAIN, episode, Substream.RECORDING))
    outcome = run_rule(task, rule, 7, Stream.TRAIN, [episode], values=values_at(form, points), horizon=task.horizon)
    logs = [outcome.metrics[split]["loss"][:, 0].clamp(min=least).log() for split in ("train", "valid")]
    return (0.5 * (logs[0] + logs[1])).nan_to_num(nan=20.0, posinf=20.0).clamp(max=20).numpy()


def main() -> None:
    """Run a stage, or show its rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rule", default="sol-general", choices=FORMS)
    parser.add_argument("--families", default=["trainings"], nargs="+", choices=FAMILIES, help="taken in turn")
    parser.add_argument("--generations", type=int, default=150)
    parser.add_argument("--per-generation", type=int, default=2, help="trainings that a generation draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="JSON of an earlier stage")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first mean that is averaged")
    parser.add_argument("--show", type=Path, help="print the rule of a JSON")
    parser.add_argument("--json", type=Path, default=Path("prior.json"))
    arguments = parser.parse_args()
    if arguments.show:
        found = json.loads(arguments.show.read_text())
        form = FORMS[found.get("form", arguments.rule)]
        print(rule_at(form, numpy.array(found["means"])[arguments.first :].mean(0)))
        return
    torch.set_num_threads(1)
    form = FORMS[arguments.rule]
    center, spread, terms = first_point(form, arguments.start, arguments.first), covariance(form), len(form.terms)
    if arguments.start:
        spread = 0.5 * spread
        sizes = [numpy.abs(x[:terms]).sum() for x in (center, first_point(form, None, 0))]
        spread[:terms, :terms] *= min(sizes[0] / sizes[1], 3.0) ** 2
    means = json.loads(arguments.json.read_text())["means"] if arguments.json.exists() else []
    center = numpy.array(means[-1]) if means else center
    search = cmaes.CMA(center, 1.0, cov=spread, population_size=POPULATION, seed=arguments.seed + 1)
    families = [(FAMILIES[name][0](), FAMILIES[name][1]) for name in arguments.families]
    rule, start = open_rule(form), time.monotonic()
    for generation in range(len(means), arguments.generations):
        points, score = [search.ask() for _ in range(POPULATION)], numpy.zeros(POPULATION)
        first = arguments.seed * 100_000 + generation * arguments.per_generation
        for episode in range(first, first + arguments.per_generation):
            family, least = families[episode % len(families)]
            found = losses(family, form, rule, episode, points, least)
            score += numpy.clip(found - numpy.median(found), -1, 3)
        search.tell(list(zip(points, score.tolist())))
        means.append(search.mean.tolist())
        if generation % 5 == 4:
            trainings = len(means) * POPULATION * arguments.per_generation
            record = {"form": arguments.rule, "seed": arguments.seed, "trainings": trainings, "means": means}
            write_atomically(arguments.json, json.dumps(record) + "\n")
            print(
                f"{generation + 1} generations, {time.monotonic() - start:.0f} s  {rule_at(form, search.mean)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
