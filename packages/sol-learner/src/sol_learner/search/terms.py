r"""Rules as sums of terms, phi = sum_j c_j u_j, and the library of terms that every search starts from.

A network of a few units learns some of the terms that a good optimizer needs but not others: a multiple of the
momentum itself (not divided by the gradient's size) needs a coefficient of a hundred, which outer steps of 0.003 never
reach. Its readout is therefore extended by a library of directions and decays from hand-designed optimizers. All
coefficients are fitted to the readout's values on recorded states with weights omega,

    min over c of  sum_i omega_i (phi(x_i) - sum_j c_j u_j(x_i))^2.

Terms that no optimizer should have are excluded: those that are not odd in the gradient, and those that grow faster
than it (see :mod:`sol_symbols.symmetry`). A scale-free rule has only terms that do not depend on the gradient scale,
like Adam's direction; other terms fit the task that they were learned on and can explode on related tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import sympy
import torch
from torch import Tensor

from sol_learner.search.samples import Samples
from sol_symbols import SolError, UpdateRule, Vocabulary, expand_terms, parity, scaling_degree, symbol

__all__ = [
    *("DECAYS", "DIRECTIONS", "Fit", "combine", "fit_library", "leading_terms", "losses_together", "opened", "split"),
    "together",
]

DIRECTIONS = ("m_hat", "ad", "rs", "sign(g)", "sign(m)", "w")
"""Momentum, Adam, RMSprop, signs of gradient and momentum, weight decay."""

DECAYS = ("1", "ld", "cd")
"""Constant, linear and cosine decay over the horizon."""

DIGITS = 4
"""Significant digits of the constants of short rules: more than the selection can resolve, but still readable."""

_RIDGE = 1e-3
"""Ridge of the fits, relative to a term's size. Decays create nearly collinear terms; without a ridge they get huge
coefficients of opposite signs, and the rule explodes slightly off the recorded states."""

_MOST_TERMS = 400  # above this many, only the largest terms enter the elimination


def split(rule: UpdateRule) -> tuple[list[sympy.Expr], list[float]]:
    """Additive terms without coefficients, like terms merged, and the coefficients."""
    together: dict[sympy.Expr, float] = {}
    for term in expand_terms(rule.expression):
        coefficient, unit = term.as_coeff_Mul()
        together[unit] = together.get(unit, 0.0) + float(coefficient)
    return list(together), list(together.values())


def combine(
    rule: UpdateRule,
    units: Sequence[sympy.Expr],
    coefficients: Sequence[float],
    constants: Mapping[str, float] | None = None,
) -> UpdateRule:
    """The rule sum_j c_j u_j with the values of ``rule`` or ``constants``; numbers have :data:`DIGITS` digits.

    The coefficient of w*wd, or of its product with a decay, becomes a part of wd.
    """
    values = {**rule.values, **{name: rounded(value) for name, value in (constants or {}).items()}}
    numbers = [rounded(coefficient) for coefficient in coefficients]
    wd, places = values.get("wd"), [place for place, unit in enumerate(units) if unit.has(symbol("wd"))]
    if wd and len(places) == 1 and _is_weight_decay(units[places[0]]) and numbers[places[0]] > 0:
        values["wd"], numbers[places[0]] = rounded(wd * numbers[places[0]]), 1.0
    expression = weighted_sum([*map(sympy.Float, numbers)], units)
    return UpdateRule(expression, values, rule.lr, vocabulary=rule.vocabulary, evaluation=rule.evaluation)


def opened(
    rule: UpdateRule, units: Sequence[sympy.Expr], values: Mapping[str, float | None] | None = None
) -> tuple[UpdateRule, list[str]]:
    """The rule sum_j c_j u_j with open coefficients, and their names; its other values and its rate are those of
    ``rule``, or ``values``."""
    names = [f"c{index}" for index in range(1, len(units) + 1)]
    expression = weighted_sum([symbol(name) for name in names], units)
    known = {**(rule.values if values is None else values), **dict.fromkeys(names, 1.0)}
    return UpdateRule(expression, known, rule.lr, vocabulary=rule.vocabulary, evaluation=rule.evaluation), names


def together(rules: Sequence[UpdateRule]) -> tuple[UpdateRule, dict[str, Tensor]]:
    """One rule that is each of C ``rules`` of one vocabulary for its values, [C] each; the rate is among them, as lr.

    A term that a rule does not have gets the coefficient 0.
    """
    parts = [dict(zip(*split(rule))) for rule in rules]
    units = list(dict.fromkeys(unit for part in parts for unit in part))
    constants = {name: value for rule in rules for name, value in rule.values.items()}
    rule, names = opened(rules[0], units, constants)
    columns = {name: [part.get(unit, 0.0) for part in parts] for name, unit in zip(names, units)}
    differing = {name: [rule.values.get(name, value) for rule in rules] for name, value in constants.items()}
    columns |= {name: column for name, column in differing.items() if name != "T" and len({*column}) > 1}
    columns |= {"lr": [rule.lr for rule in rules]}
    return rule, {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}


def losses_together(
    rules: Sequence[UpdateRule], losses: Callable[[UpdateRule, dict[str, Tensor]], Tensor]
) -> list[float]:
    """What ``losses`` gives, [C], for the rules side by side; see :func:`together`.

    Where it is not finite, a rule is measured again, alone: a term that overflows is not a number in the rules that do
    not have it.
    """
    found: list[float] = losses(*together(rules)).tolist()
    if len(rules) == 1:
        return found
    return [loss if math.isfinite(loss) else float(losses(*together([rule]))) for rule, loss in zip(rules, found)]


def rounded(value: float) -> float:
    """``value`` with :data:`DIGITS` significant digits; near 1, of its distance from 1."""
    if 0.9 < value < 1:
        return round(1 - float(f"{1 - value:.{DIGITS - 1}g}"), 12)
    return float(f"{value:.{DIGITS}g}")


def weighted_sum(coefficients: Sequence[sympy.Expr], units: Sequence[sympy.Expr]) -> sympy.Expr:
    """sum_j c_j u_j, with the factors in front that all terms but weight decay share."""
    pairs = [*zip(coefficients, units, strict=True)]
    decays = [c * unit for c, unit in pairs if _is_weight_decay(unit)]
    pairs = [(c, unit) for c, unit in pairs if c * unit not in decays]
    factors = [sympy.Mul.make_args(unit) for _, unit in pairs]
    shared = [factor for factor in (factors[0] if len(factors) > 1 else ()) if all(factor in f for f in factors)]
    common = sympy.Mul(*shared)
    groups: dict[sympy.Expr, sympy.Expr] = {}
    for (c, _), parts in zip(pairs, factors):
        rest = [part for part in parts if part not in shared]
        # Terms of one direction together: ad*(2*ld - pd).
        direction = sympy.Mul(*(part for part in rest if not shared or not _is_decay(part)))
        groups[direction] = groups.get(direction, 0) + c * sympy.Mul(*rest) / direction
    return sympy.Add(common * sympy.Add(*(direction * decay for direction, decay in groups.items())), *decays)


def _is_decay(factor: sympy.Expr) -> bool:
    return {free.name for free in factor.free_symbols} <= {"ld", "cd", "pd", "t", "T", "wu"}


def _is_weight_decay(unit: sympy.Expr) -> bool:
    """Whether a term is w, w*wd, or w*wd times decays."""
    w, wd = symbol("w"), symbol("wd")
    return unit in (w, w * wd) or (unit.has(w) and unit.has(wd) and _is_decay(unit / (w * wd)))


class Fit:
    """Least-squares fits of subsets of terms to one target on recorded states.

    Args:
        samples: Recorded states, with their weights.
        units: The terms u_j; terms that are not finite on the samples are never used.
        target: The target function, as units and coefficients.

    Attributes:
        usable: Indices of the terms that are finite and not zero everywhere.
    """

    def __init__(
        self, samples: Samples, units: Sequence[sympy.Expr], target: tuple[Sequence[sympy.Expr], Sequence[float]]
    ) -> None:
        weight = samples.weights.sqrt()
        table = samples.evaluate(units) * weight
        norms = table.norm(dim=1)
        self.usable = [j for j in range(len(units)) if torch.isfinite(norms[j]) and norms[j] > 0]
        self.norms = norms.cpu()
        table = table[self.usable] / norms[self.usable, None]
        values = samples.evaluate(target[0]) * weight
        finite = torch.isfinite(values).all(1)
        wanted = torch.tensor(target[1], dtype=torch.float64, device=values.device)[finite] @ values[finite]
        self._place = {j: row for row, j in enumerate(self.usable)}
        self._gram, self._right = (table @ table.T).cpu(), (table @ wanted).cpu()
        self.size = float(wanted.norm())

    def coefficients(self, kept: Sequence[int]) -> list[float]:
        """Coefficients c_j of the fit with the terms ``kept``, indices of usable terms."""
        return (self._solve(kept)[0] / self.norms[list(kept)]).tolist()

    def influence(self, kept: Sequence[int]) -> Tensor:
        """c_j^2 / (A^-1)_jj: the increase in squared error when term j is removed and the others are refitted."""
        fitted, inverse = self._solve(kept)
        return fitted**2 / inverse.diagonal()

    def _solve(self, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [self._place[j] for j in kept]
        inverse = torch.linalg.inv(self._gram[rows][:, rows] + _RIDGE * torch.eye(len(rows), dtype=torch.float64))
        return inverse @ self._right[rows], inverse

    def whitening(self, kept: Sequence[int]) -> Tensor:
        """M with M^T A M = 1 for the terms ``kept``, times the root mean square of the target, [k, k].

        A step of length s in z, c = c_0 + M z, changes phi by s times its size.
        """
        rows = [self._place[j] for j in kept]
        values, vectors = torch.linalg.eigh(
            self._gram[rows][:, rows] + 10 * _RIDGE * torch.eye(len(rows), dtype=torch.float64)
        )
        root = (vectors / values.sqrt()) @ vectors.T
        return self.size * root / self.norms[list(kept), None]


def leading_terms(rule: UpdateRule, samples: Samples, count: int, scale_free: bool = False) -> list[sympy.Expr]:
    """The ``count`` admissible terms of a long rule that remain after backward elimination with refitting.

    Each step removes the term whose removal adds least to the squared error per node of its formula.
    """
    units, coefficients = split(rule)
    fit = Fit(samples, units, (units, coefficients))
    admissible = [j for j in fit.usable if is_admissible(units[j], rule.vocabulary, scale_free)]
    size = fit.norms * torch.tensor(coefficients, dtype=torch.float64).abs()
    live = sorted(admissible, key=lambda j: float(size[j]), reverse=True)[:_MOST_TERMS]
    nodes = torch.tensor([sum(1 for _ in sympy.preorder_traversal(unit)) for unit in units], dtype=torch.float64)
    while len(live) > count:
        live.pop(int((fit.influence(live) / nodes[live]).argmin()))
    return [units[j] for j in live]


def is_admissible(unit: sympy.Expr, vocabulary: Vocabulary, scale_free: bool) -> bool:
    """Whether a term may enter the library: it is odd with a scaling degree of at most 1 (0 if ``scale_free``)."""
    degree = scaling_degree(unit, vocabulary)
    fits = _is_scale_free(unit, vocabulary) if scale_free else degree is None or degree <= 1
    return fits and parity(unit, vocabulary) == -1


def _is_scale_free(unit: sympy.Expr, vocabulary: Vocabulary) -> bool:
    """Whether phi is unchanged when all gradients are multiplied by a number, for a fixed parameter value."""
    return scaling_degree(unit.subs(symbol("w"), 1), vocabulary) == 0


def fit_library(
    readout: UpdateRule,
    samples: Samples,
    directions: Sequence[str],
    decays: Sequence[str],
    own: int,
    scale_free: bool = False,
) -> UpdateRule:
    """A rule over the library and the leading terms of the readout, fitted to the readout on the samples.

    Args:
        readout: The network's formula.
        samples: Recorded states of the network.
        directions, decays: The library consists of all their products.
        own: Number of leading terms of the readout to add.
        scale_free: Whether to exclude terms that depend on the gradient scale from both.

    Raises:
        SolError: No term is left.
    """
    vocabulary = readout.vocabulary
    products = [vocabulary.parse(f"({decay})*({direction})") for direction in directions for decay in decays]
    if scale_free:
        products = [term for term in products if _is_scale_free(term, vocabulary)]
    leading = leading_terms(readout, samples, own, scale_free)
    units = list(dict.fromkeys(split_unit(term) for term in [*products, *leading]))
    if not units:
        raise SolError("directions contain no scale-free term; add one or set scale_free to false")
    fit = Fit(samples, units, split(readout))
    return combine(readout, [units[j] for j in fit.usable], fit.coefficients(fit.usable))


def split_unit(term: sympy.Expr) -> sympy.Expr:
    """A term without its coefficient."""
    return term.as_coeff_Mul()[1]
