r"""Symbolic L2O: distill a trained LSTM into a rule by symbolic regression.

The LSTM trains optimizees. Along their trajectories, its updates phi and the vocabulary's features x are recorded, and
genetic programming (with the package gplearn) searches for formulas f_1, f_2, ... of x, one after the other. Each f_k
is the one most parallel to the residual of phi after the terms before it,

    f_k = argmax |<r_{k-1}, f>| / (|r_{k-1}| |f|) - parsimony * nodes,    r_k = phi - sum_{j <= k} c_j f_j,

and after each term all coefficients c are refitted by least squares. (A search for the whole sum at once stops at its
first term, because a second term only helps with the right coefficient.) The number of terms is selected by the loss
that the rule reaches as an optimizer after the whole horizon, on the validation stream. Source: Zheng, Chen, Chen,
Wang, "Symbolic learning to optimize: towards interpretability and scalability", ICLR 2022; their engine is PySR.

    R^2 = 1 - sum r_k^2 / sum (phi - mean phi)^2

measures how well a rule imitates the LSTM, on the recorded episodes and on others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import sympy
import torch
from torch import Tensor

from sol_learner.inner.task_set import TaskSet
from sol_learner.networks.lstm import LSTMNetwork
from sol_learner.networks.trained_lstm import TrainedLSTM
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import NullProgress, Phase, Progress
from sol_learner.search.candidates import CandidateEvaluator
from sol_learner.search.samples import Samples, record
from sol_learner.search.terms import DIGITS, combine, split_unit
from sol_learner.settings import names_checked
from sol_symbols import OPERATORS, STANDARD, RuleError, SolError, UpdateRule, round_constants
from sol_symbols.evaluation import array_function

__all__ = ["INPUTS", "DistilSettings", "Distilled", "distil", "lstm_updates", "regress"]

INPUTS = (
    "g",
    "m_hat",
    "m_fast_hat",
    "m_long_hat",
    "ad",
    "rs",
    "sign(g)",
    "sign(m)",
    "ag",
    "w",
    "ld",
    "cd",
)
"""Default input features of the formulas."""

_RIDGE = 1e-6  # of the least squares, relative to a term's size


@names_checked
@dataclass(frozen=True)
class DistilSettings:
    """All settings of a distillation.

    Attributes:
        seed: Seed of the search; episodes are drawn with the seed of the LSTM's run.
        inputs: Features, as expressions in the standard vocabulary.
        functions: Operators in formulas; from the operator table, those that are finite everywhere.
        episodes: Episodes recorded for fitting, and as many again for evaluating the fit.
        coordinates: Coordinates recorded per episode.
        max_terms: Maximum number of terms of a rule; each term has its own search.
        population: Formulas per generation.
        generations: Generations per search.
        parsimony: Penalty per node of a formula, in units of the cosine similarity.
        validation_episodes: Validation episodes for selecting the rule.

    Raises:
        SolError: A number is out of range, or a function is not in the operator table.
    """

    seed: int = 0
    inputs: tuple[str, ...] = INPUTS
    functions: tuple[str, ...] = ("add", "sub", "mul", "abs", "tanh")
    episodes: int = 2
    coordinates: int = 50
    max_terms: int = 6
    population: int = 500
    generations: int = 15
    parsimony: float = 3e-3
    validation_episodes: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low = 0 if name in ("seed", "parsimony") else 1
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= low):
                raise SolError(f"{name} must be at least {low} and finite, got {value!r}")
        unknown = [name for name in self.functions if name not in OPERATORS]
        if unknown:
            raise SolError(f"{unknown[0]!r} is not an operator; available: {', '.join(OPERATORS)}")
        if not (self.inputs and self.functions):
            raise SolError("inputs and functions must not be empty")


@dataclass(frozen=True)
class Distilled:
    """A formula that imitates a network.

    Attributes:
        rule: The formula, with the network's learning rate.
        fitted: R^2 on the episodes used for fitting.
        held_out: R^2 on other episodes.
        loss: Mean objective over the validation stream; ``None`` before it was measured.
    """

    rule: UpdateRule
    fitted: float
    held_out: float
    loss: float | None = None

    def record(self) -> dict[str, Any]:
        """Everything, JSON-serializable."""
        sizes = self.rule.complexity
        return {
            "rule": str(self.rule),
            "terms": sizes.terms,
            "nodes": sizes.nodes,
            "states": sizes.states,
            "r2 fitted": self.fitted,
            "r2 held out": self.held_out,
            "loss": self.loss,
        }


@torch.no_grad()
def lstm_updates(network: LSTMNetwork, samples: Samples) -> Tensor:
    """The LSTM's phi at each step and coordinate of the samples, [sum of T * N], float64."""
    runner = network.runner()
    dtype = network.offset.dtype
    updates = []
    for part in samples.parts:
        gradients = list(part.gradients.to(dtype))
        updates.append(runner.replay(gradients, runner.begin(gradients[0], len(gradients))))
    return torch.cat([phi.reshape(-1) for phi in updates]).double()


def regress(
    fitting: tuple[Samples, Tensor],
    judging: tuple[Samples, Tensor],
    values: Mapping[str, float | None],
    lr: float,
    settings: DistilSettings | None = None,
    progress: Progress | None = None,
) -> list[Distilled]:
    """Formulas that imitate updates phi, shortest first.

    Args:
        fitting: Recorded coordinates and phi there, [sum of T * N].
        judging: The same from other episodes, used only for R^2.
        values: Hyperparameters and horizon of the rules.
        lr: Learning rate of the rules.
        settings: Settings of the search.
        progress: Progress reporter.

    Raises:
        SolError: gplearn is not installed, an input is not finite on the samples, or phi is 0 or not finite there.
    """
    settings, progress = settings or DistilSettings(), progress or NullProgress()
    samples, phi = fitting
    inputs = [samples.vocabulary.parse(text) for text in settings.inputs]
    table = samples.evaluate(inputs)
    size = float(phi.square().mean().sqrt())
    if not (math.isfinite(size) and size > 0):
        raise SolError("the recorded updates must be finite and not all 0")
    scales = table.square().mean(1).sqrt()
    for text, scale in zip(settings.inputs, scales.tolist()):
        if not math.isfinite(scale):
            raise SolError(f"the input {text} is not finite on the recorded episodes; remove it from inputs")
    live = [j for j, scale in enumerate(scales.tolist()) if scale > 0]
    scaled = (table[live] / scales[live, None]).T.cpu().numpy()
    names = [inputs[j] * sympy.Float(f"{1 / float(scales[j]):.4g}") for j in live]
    search = _search(settings)
    start = UpdateRule(sympy.Float(0), values, lr, vocabulary=samples.vocabulary)
    result: list[Distilled] = []
    units: list[sympy.Expr] = []
    left = phi
    progress.phase(Phase.DISTIL, "symbolic regression", settings.max_terms)
    for count in range(1, settings.max_terms + 1):
        program = search(scaled, (left / left.square().mean().sqrt()).cpu().numpy(), settings.seed + count)
        unit = split_unit(_expression(iter(program), names))
        if unit in units or not unit.free_symbols:
            break  # no new term was found
        units.append(unit)
        try:
            rule = round_constants(combine(start, units, _coefficients(samples.evaluate(units), phi)), DIGITS)
            scores = [_r2(rule, *part) for part in (fitting, judging)]
        except RuleError:  # the expression exceeds the limits of a rule, for example its depth
            break
        if not all(map(math.isfinite, scores)):
            break
        result.append(Distilled(rule, *scores))
        progress.step(count, r2=scores[1])
        left = phi - samples.evaluate([rule.expression])[0]
        if scores[0] > 1 - 1e-9:
            break
    return result


Search = Callable[[numpy.ndarray, numpy.ndarray, int], list[Any]]


def _search(settings: DistilSettings) -> Search:
    """Genetic programming: a function that maps inputs [N, F], a target [N] and a seed to the best program in prefix
    form."""
    try:
        from gplearn.fitness import make_fitness
        from gplearn.functions import make_function
        from gplearn.genetic import SymbolicRegressor
    except ImportError:
        raise SolError("symbolic regression needs gplearn: pip install 'sol-learner[distil]'") from None

    def cosine(wanted: numpy.ndarray, values: numpy.ndarray, weights: numpy.ndarray) -> float:
        with numpy.errstate(all="ignore"):
            value = abs(numpy.dot(wanted, values)) / (numpy.linalg.norm(wanted) * numpy.linalg.norm(values))
        return float(value) if math.isfinite(value) else 0.0

    def operator(name: str) -> Any:
        function = array_function(OPERATORS[name], numpy)
        return make_function(function=function, name=name, arity=OPERATORS[name].arity, wrap=False)

    fitness = make_fitness(function=cosine, greater_is_better=True, wrap=False)
    functions = [operator(name) for name in settings.functions]

    def run(table: numpy.ndarray, wanted: numpy.ndarray, seed: int) -> list[Any]:
        regressor = SymbolicRegressor(
            population_size=settings.population,
            generations=settings.generations,
            tournament_size=10,
            stopping_criteria=1 - 1e-9,
            function_set=functions,
            metric=fitness,
            parsimony_coefficient=settings.parsimony,
            random_state=seed % 2**32,
        )
        with numpy.errstate(all="ignore"):
            regressor.fit(table, wanted)
        known = [program for generation in regressor._programs for program in generation if program is not None]
        best = max(known, key=lambda program: program.raw_fitness_ - settings.parsimony * program.length_)
        return best.program

    return run


def _expression(program: Iterator[Any], names: Sequence[sympy.Expr]) -> sympy.Expr:
    """Convert a program in prefix form (functions, input indices, constants) to an expression."""
    node = next(program)
    if isinstance(node, int | numpy.integer):
        return names[int(node)]
    if isinstance(node, float | numpy.floating):
        return sympy.Float(f"{float(node):.4g}")
    return OPERATORS[node.name](*(_expression(program, names) for _ in range(node.arity)))


def _coefficients(table: Tensor, phi: Tensor) -> list[float]:
    """c that minimizes |phi - c . table|^2, with a small ridge; ``table`` is [k, N]."""
    norms = table.norm(dim=1)
    table = table / norms[:, None]
    gram = table @ table.T + _RIDGE * torch.eye(len(table)).to(table)
    return (torch.linalg.solve(gram, table @ phi) / norms).tolist()


def _r2(rule: UpdateRule, samples: Samples, phi: Tensor) -> float:
    left = phi - samples.evaluate([rule.expression])[0]
    return float(1 - left.square().sum() / (phi - phi.mean()).square().sum())


def distil(
    trained: TrainedLSTM,
    task_set: TaskSet,
    settings: DistilSettings | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> list[Distilled]:
    """Distill an LSTM: from its trajectories to evaluated rules.

    Args:
        trained: The LSTM. Episodes use its seed and start at the first training episode that meta-training did not use.
        task_set: The tasks that it was trained on.
        settings: Settings of the search.
        progress: Progress reporter.
        clock: Source of interrupts.

    Returns:
        Rules of several lengths with their losses on the validation stream, lowest loss first.

    Raises:
        SolError: As for :func:`regress`, or no formula has a finite loss.
        Interrupted: The clock expired or was cancelled before any formula was evaluated.
    """
    settings, progress, clock = settings or DistilSettings(), progress or NullProgress(), clock or Clock()
    seed, vocabulary = int(trained.provenance["seed"]), STANDARD
    evaluator = CandidateEvaluator(
        task_set, seed, int(trained.provenance["spent"]), settings.validation_episodes, clock
    )
    values: dict[str, float] = {n: h.default for n, h in vocabulary.hyperparameters.items() if h.default is not None}
    recorded: list[tuple[Samples, Tensor]] = []
    for _ in range(2):
        episodes = evaluator.fresh(settings.episodes)
        runner = trained.network.runner()
        samples = record(
            task_set, runner, trained.lr, values, vocabulary, seed, episodes, settings.coordinates, clock=clock
        )
        recorded.append((samples, lstm_updates(trained.network, samples)))
    found = regress(recorded[0], recorded[1], {**values, "T": task_set.horizon}, trained.lr, settings, progress)
    progress.phase(Phase.DISTIL, "measuring formulas", len(found))
    measured: list[Distilled] = []
    try:
        for formula in found:
            measured.append(replace(formula, loss=evaluator.validated([formula.rule])[0]))
            progress.step(len(measured), r2=formula.held_out, loss=measured[-1].loss or math.inf)
    except Interrupted:
        if not measured:
            raise
        progress.note(f"stopped after evaluating {len(measured)} of {len(found)} formulas")
    finite = [formula for formula in measured if formula.loss is not None and math.isfinite(formula.loss)]
    if not finite:
        raise SolError(
            f"none of the {len(found)} formulas can train {task_set.name}; try more generations or other inputs"
        )
    return sorted(finite, key=lambda formula: formula.loss or 0.0)
