r"""From the network to a short rule: backward elimination with refit.

The read-out is multiplied out into additive terms, phi = sum_j c_j u_j, and the u_j are recorded on coordinates of real
episodes. With weights omega_i and Gram matrix A_jk = sum_i omega_i u_j(x_i) u_k(x_i), leaving term j out *and refitting
the others* adds

    Delta_j = c_j^2 / (A^-1)_jj

to the squared error. The term with the least Delta_j per node of its formula goes, the others are refitted, and so
on; magnitudes of weights say much less. Every length of rule passed on the way is measured by what counts, the
loss after a whole horizon. Terms that no optimizer should have are left out from the start: those that are not odd in
the gradient, and those that grow faster than it (see :mod:`sol_symbols.symmetry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor

from sol_learner.episodes import run_rule
from sol_learner.meta_training import run_network
from sol_learner.network import SymbolicNetwork
from sol_learner.progress import Clock, Interrupted, Progress
from sol_learner.task import Purpose, Task, generator_for
from sol_symbols import UpdateRule, Vocabulary, expand_terms, feature_evaluator, parity, scaling_degree

__all__ = [
    "Point",
    "Samples",
    "backward_elimination",
    "choose",
    "combine",
    "mean_objective",
    "measure_front",
    "record",
    "split",
]

DIGITS = 4
"""Significant digits of the constants of short rules: more than their choice resolves, and few enough to read."""

_MOST_TERMS = 400  # more of them than this are thinned out by their own size before elimination


@dataclass(frozen=True)
class Samples:
    """Coordinates of real episodes.

    Attributes:
        gradients: [T, N].
        parameters: [T, N].
        values: Hyperparameters and horizon.
        vocabulary: Defines the names.
    """

    gradients: Tensor
    parameters: Tensor
    values: dict[str, float]
    vocabulary: Vocabulary

    def evaluate(self, terms: Sequence[sympy.Expr]) -> Tensor:
        """Each term at each step and coordinate, [len(terms), T * N], float64."""
        features = feature_evaluator(terms, self.vocabulary, torch)
        state, columns = features.init(self.parameters[0]), []
        for t, (gradient, parameter) in enumerate(zip(self.gradients, self.parameters), start=1):
            outputs, state = features.step(gradient, state, parameter, t, self.values)
            columns.append(torch.stack(outputs))
        return torch.cat(columns, 1)

    @property
    def weights(self) -> Tensor:
        """|g|, [T * N]: an error of phi matters where it moves the loss; float64, mean 1."""
        size = self.gradients.abs().reshape(-1)
        return size / size.mean()


@dataclass(frozen=True)
class Point:
    """A rule on the front of length against loss.

    Attributes:
        rule: The rule.
        loss: Mean objective over the validation stream.
    """

    rule: UpdateRule
    loss: float

    @property
    def terms(self) -> int:
        """Number of additive terms."""
        return self.rule.complexity.terms


def record(
    task: Task,
    network: SymbolicNetwork,
    lr: float,
    seed: int,
    episodes: Sequence[int],
    per_episode: int,
    clock: Clock | None = None,
) -> Samples:
    """Run episodes with the network and keep the gradients and parameters of ``per_episode`` coordinates of each."""
    generator = generator_for(seed, Purpose.TRAIN, 1, part=2)
    gradients, parameters, chosen = [], [], None
    for t, optimizees, gradient, _ in run_network(task, network, lr, seed, Purpose.TRAIN, episodes, clock):
        if t > task.horizon:
            break
        if chosen is None:
            size = gradient.shape[-1]
            chosen = torch.randperm(size, generator=generator)[: min(per_episode, size)].to(gradient.device)
        gradients.append(gradient[..., chosen].reshape(-1).double())
        parameters.append(optimizees.theta[..., chosen].reshape(-1).double())
    return Samples(torch.stack(gradients), torch.stack(parameters), network.values(task.horizon), network.vocabulary)


def backward_elimination(rule: UpdateRule, samples: Samples, longest: int = 15) -> list[UpdateRule]:
    """Rules of ``longest`` terms and fewer, down to one, each refitted to the values of ``rule`` on the samples.

    Args:
        rule: What the short rules should do.
        samples: Where they should do it.
        longest: Most terms of a rule that is returned.
    """
    units, coefficients = split(rule)
    table = samples.evaluate(units)
    usable = torch.isfinite(table).all(1)
    table[~usable] = 0
    weight = samples.weights.sqrt()
    target = weight * (torch.tensor(coefficients, dtype=torch.float64, device=table.device) @ table)
    table = table * weight
    norms = table.norm(dim=1)
    size = norms * torch.tensor(coefficients, dtype=torch.float64, device=table.device).abs()
    size[[j for j, unit in enumerate(units) if not _admissible(unit, rule.vocabulary)]] = 0
    kept = [int(j) for j in size.argsort(descending=True)[:_MOST_TERMS] if size[j] > 0]
    table = table[kept] / norms[kept, None]
    units = [units[j] for j in kept]
    nodes = torch.tensor([sum(1 for _ in sympy.preorder_traversal(unit)) for unit in units], dtype=torch.float64)
    gram, right = (table @ table.T).cpu(), (table @ target).cpu()
    live, rules = list(range(len(units))), []
    while live:
        inverse = torch.linalg.inv(gram[live][:, live] + 1e-10 * torch.eye(len(live), dtype=torch.float64))
        fitted = inverse @ right[live]
        if len(live) <= longest:
            constants = (fitted / norms[kept].cpu()[live]).tolist()
            rules.append(combine(rule, [units[j] for j in live], constants))
        influence = fitted**2 / inverse.diagonal() / nodes[live]
        live.pop(int(influence.argmin()))
    return rules


def _admissible(unit: sympy.Expr, vocabulary: Vocabulary) -> bool:
    degree = scaling_degree(unit, vocabulary)
    return parity(unit, vocabulary) == -1 and (degree is None or degree <= 1)


def split(rule: UpdateRule) -> tuple[list[sympy.Expr], list[float]]:
    """Additive terms without their coefficients, like terms together, and the coefficients."""
    together: dict[sympy.Expr, float] = {}
    for term in expand_terms(rule.expression):
        coefficient, unit = term.as_coeff_Mul()
        together[unit] = together.get(unit, 0.0) + float(coefficient)
    return list(together), list(together.values())


def combine(rule: UpdateRule, units: Sequence[sympy.Expr], coefficients: Sequence[float]) -> UpdateRule:
    """The rule sum_j c_j u_j with the values of ``rule``, each c_j rounded to :data:`DIGITS` significant digits."""
    rounded = [sympy.Float(float(f"{coefficient:.{DIGITS}g}")) for coefficient in coefficients]
    expression = sympy.Add(*(c * unit for c, unit in zip(rounded, units, strict=True)))
    return UpdateRule(expression, rule.values, rule.lr, vocabulary=rule.vocabulary)


def mean_objective(task: Task, rule: UpdateRule, seed: int, validation: int, clock: Clock | None = None) -> float:
    """Mean objective of ``rule`` over the first ``validation`` episodes of the validation stream."""
    return float(run_rule(task, rule, seed, Purpose.VALID, range(validation), clock=clock).objective.mean())


def measure_front(
    task: Task, rules: Sequence[UpdateRule], seed: int, validation: int, progress: Progress, clock: Clock
) -> list[Point]:
    """Each rule with its loss on the validation stream; those that the clock leaves no time for are left out."""
    progress.phase("pruning", len(rules))
    points: list[Point] = []
    for rule in rules:
        try:
            points.append(Point(rule, mean_objective(task, rule, seed, validation, clock)))
        except Interrupted:
            progress.note(f"pruning stopped after {len(points)} of {len(rules)} rules")
            break
        progress.step(len(points), terms=points[-1].terms, loss=points[-1].loss)
    return points


def choose(points: Sequence[Point], tolerance: float = 0.05) -> Point:
    """The longest rule whose loss is within ``tolerance`` (relative) of the best.

    Before polishing, lengths differ little in loss; what more terms are good for shows afterwards.
    """
    limit = (1 + tolerance) * min(point.loss for point in points)
    return max((point for point in points if point.loss <= limit), key=lambda point: (point.terms, -point.loss))
