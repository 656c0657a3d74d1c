"""Every number of a learning run: one dataclass, which a TOML file and the command's options map onto one to one."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sol_learner.estimators import ESTIMATORS, META_LOSSES
from sol_learner.inner.optimizees import PRECISIONS
from sol_learner.networks.base import KERNELS
from sol_learner.networks.eql import FEATURES, UNITS
from sol_learner.search.terms import DECAYS, DIRECTIONS
from sol_learner.settings import converted, explanations, settings_from
from sol_symbols import ZOO, SolError

__all__ = ["LearnConfig"]

_CHOICES = {
    "start": tuple(ZOO),
    "estimator": tuple(ESTIMATORS),
    "meta_loss": tuple(META_LOSSES),
    "outer_split": ("train", "valid"),
    "kernel": ("auto", *KERNELS),
    "precision": tuple(PRECISIONS),
}
_MAY_BE_ZERO = {
    *("seed", "steps", "episodes", "validate_every", "generations", "library_generations", "front_generations"),
    *("own_terms", "sparsity", "sparsity_from", "scaling", "clip", "objective"),
}

_AT_LEAST = {"population": 4}  # what CMA-ES needs


@dataclass(frozen=True)
class LearnConfig:
    """Every number of a run.

    Attributes:
        seed: Base seed; all random streams follow from it.
        steps: Inner steps of an episode, the T that the rule is learned for; 0 for the task's own.
        start: Zoo rule that the network equals before training, tuned first.
        objective: Weight of the training loss in what every choice is made by; the rest is the validation loss's.
        tuning_episodes: Episodes that each learning rate of a baseline is measured on.
        features: Input features of the network, expressions of the standard vocabulary.
        units: Operators of each hidden layer, mul*3 for three of a kind; layers are separated by a slash.
        gates: Whether the network's weights have hard-concrete gates.
        sparsity: Weight in the meta-loss of the expected share of open gates.
        sparsity_from: Share of the episodes after which it begins to rise, linearly, to its full weight at the end.
        gate_lr: Learning rate of the gates.
        estimator: How meta-gradients are estimated: first-order, exact or pes.
        meta_loss: What a window is judged by: mean, last or log of the losses after its steps.
        outer_split: Split whose batches these losses are taken on: train or valid.
        episodes: Episodes of meta-training; 0 leaves the network as it starts.
        meta_batch: Optimizees trained side by side in each, B.
        unroll: Inner steps per window, U, in equal shares of the episodes; none for the task's own, or 20.
        horizons: Inner steps per episode of meta-training, in equal shares of the episodes; none for T throughout.
        outer_lr: Learning rate of the outer Adam.
        clip: Largest norm of a meta-gradient, larger ones are scaled down to it; 0 for no limit.
        coordinates: Coordinates sampled for the first-order meta-gradient, K.
        particles: Pairs of networks of the evolution strategy pes, N.
        pes_sigma: Standard deviation of their perturbations.
        scaling: Half-width of the log-uniform random scaling of parameters in meta-training; 0 for none.
        precision: Forward pass of the optimizees: float32, or bf16 by automatic casting.
        kernel: How the network is evaluated in the inner loop: eager, compiled, or auto by the amount of work.
        validation_episodes: Episodes on which networks and rules are chosen.
        validate_every: Episodes of meta-training between validations; 0 for never, which keeps the last network.
        record_episodes: Episodes recorded for fitting and scaling terms.
        record_coordinates: Coordinates recorded of each.
        directions: The library's directions, expressions of the standard vocabulary.
        decays: The library's decays; every direction is there with every decay.
        scale_free: Whether terms that answer to the size of gradients are left out: for rules to be used elsewhere.
        own_terms: Leading terms of the network's own formula that are added to the library.
        library_generations: Generations of CMA-ES over all of these terms.
        max_terms: Maximum number of additive terms of the rule.
        prune_episodes: Episodes that each shorter rule is tried on.
        generations: Generations of CMA-ES over the terms that are left; 0 for none.
        population: CandidateEvaluator per generation.
        polish_episodes: Episodes that each candidate is measured on, new ones in every generation.
        sigma: Initial step of these searches, in units of the root mean square of phi.
        front: Whether the rule is also pruned to every smaller number of terms, for the front of length against loss.
        front_generations: Generations of CMA-ES on that way, once, at three quarters of the terms; 0 for none.
        evaluation_episodes: Held-out episodes of the final comparison.
        baselines: Zoo rules, each tuned, that the learned rule is compared with.

    Raises:
        SolError: A value is of the wrong kind or out of range; the message says which.
    """

    seed: int = 0
    steps: int = 0
    start: str = "adam"
    objective: float = 0.4
    tuning_episodes: int = 4
    features: tuple[str, ...] = FEATURES
    units: tuple[tuple[str, ...], ...] = (UNITS,)
    gates: bool = False
    sparsity: float = 0.01
    sparsity_from: float = 0.5
    gate_lr: float = 0.1
    estimator: str = "first-order"
    meta_loss: str = "mean"
    outer_split: str = "train"
    episodes: int = 12
    meta_batch: int = 8
    unroll: tuple[int, ...] = ()
    horizons: tuple[int, ...] = ()
    outer_lr: float = 3e-3
    clip: float = 0.0
    coordinates: int = 2048
    particles: int = 8
    pes_sigma: float = 0.01
    scaling: float = 0.0
    precision: str = "float32"
    kernel: str = "auto"
    validation_episodes: int = 8
    validate_every: int = 2
    record_episodes: int = 4
    record_coordinates: int = 150
    directions: tuple[str, ...] = DIRECTIONS
    decays: tuple[str, ...] = DECAYS
    scale_free: bool = False
    own_terms: int = 2
    library_generations: int = 20
    max_terms: int = 12
    prune_episodes: int = 4
    generations: int = 16
    population: int = 16
    polish_episodes: int = 2
    sigma: float = 0.1
    front: bool = True
    front_generations: int = 8
    evaluation_episodes: int = 10
    baselines: tuple[str, ...] = ("adam", "momentum")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = converted(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SolError(f"{name} = {getattr(self, name)!r}; choose one of: {', '.join(choices)}")
        unknown = [name for name in self.baselines if name not in ZOO]
        if unknown:
            raise SolError(f"baselines: no zoo rule {unknown[0]!r}; known: {', '.join(ZOO)}")
        for name, value in self.numbers():
            low = 0 if name in _MAY_BE_ZERO else _AT_LEAST.get(name, 1) if isinstance(value, int) else None
            if not (value > 0 if low is None else value >= low):
                bound = "more than 0" if low is None else f"{low} or more"
                raise SolError(f"{name} = {value!r}; it must be {bound}")
            if not math.isfinite(value):
                raise SolError(f"{name} = {value!r}; it must be finite")
        if not (self.objective <= 1 and self.sparsity_from < 1):
            raise SolError("objective is a weight from 0 to 1, sparsity_from a share below 1")
        for name in ("directions", "decays"):
            if not getattr(self, name):
                raise SolError(f"{name} is empty")

    def numbers(self) -> list[tuple[str, float]]:
        """Every number by its field's name, those within tuples too."""
        values = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        flat = [(name, item) for name, value in values for item in (value if isinstance(value, tuple) else (value,))]
        return [(name, item) for name, item in flat if isinstance(item, int | float) and not isinstance(item, bool)]

    @classmethod
    def explanations(cls) -> dict[str, str]:
        """What each setting means, one line each, by name."""
        return explanations(cls)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> LearnConfig:
        """A configuration from names and plain values: lists for tuples, text for lists (``"10,20"``).

        Raises:
            SolError: There is no such setting, or its value is of the wrong kind.
        """
        return settings_from(cls, settings)

    @classmethod
    def from_toml(cls, path: str | Path, **overrides: Any) -> LearnConfig:
        """A configuration from a TOML file of settings, ``overrides`` winning.

        Raises:
            SolError: The file cannot be read, or :meth:`from_mapping` refuses what it says.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SolError(f"cannot read the settings {path}: {error}") from None
        try:
            return cls.from_mapping({**settings, **overrides})
        except SolError as error:
            raise SolError(f"{path}: {error}") from None
