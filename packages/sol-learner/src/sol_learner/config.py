"""All settings of a learning run: one dataclass that maps one to one to a TOML file and to command-line options."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sol_learner.comparing.optimizer_specs import PANEL
from sol_learner.estimators import ESTIMATORS, META_LOSSES
from sol_learner.inner.episodes import WEIGHT
from sol_learner.inner.optimizees import PRECISIONS
from sol_learner.inner.rates import PRIORS
from sol_learner.networks.base import KERNELS
from sol_learner.networks.eql import FEATURES, UNITS
from sol_learner.search.terms import DECAYS, DIRECTIONS
from sol_learner.settings import converted, explanations, names_checked, settings_from, with_current_names
from sol_symbols import ZOO, SolError

__all__ = ["EFFORTS", "PRESETS", "LearnConfig"]

EFFORTS: dict[str, dict[str, Any]] = {
    "quick": {
        **{"tuning_episodes": 2, "validation_episodes": 4, "evaluation_episodes": 5, "check_episodes": 1},
        **{"generations": 8, "library_generations": 12, "front": False},
    },
    "normal": {},
    "thorough": {
        **{"tuning_episodes": 8, "validation_episodes": 16, "evaluation_episodes": 20, "check_episodes": 4},
        **{"generations": 80, "library_generations": 40, "polish_episodes": 4, "front_generations": 12},
    },
}
"""Settings of each effort: how much a run spends."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        **{"start": "adam", "guard": False, "constants": False, "check_episodes": 0},
        **{"episodes": 50, "meta_batch": 10, "library_generations": 0, "generations": 0},
    },
}
"""Settings of each recipe; paper is the published one: a network that is meta-trained from Adam and read out."""

_CHOICES = {
    "start": ("auto", "prior", *ZOO),
    "check": ("variants", "rate"),
    "estimator": tuple(ESTIMATORS),
    "meta_loss": tuple(META_LOSSES),
    "outer_split": ("train", "valid"),
    "kernel": ("auto", *KERNELS),
    "precision": tuple(PRECISIONS),
}
_MAY_BE_ZERO = {
    *("seed", "steps", "episodes", "validate_every", "generations", "library_generations", "front_generations"),
    "descent_steps",
    *("own_terms", "check_episodes", "sparsity", "sparsity_from", "scaling", "clip", "objective", "baseline_trainings"),
}

_AT_LEAST = {"population": 4}  # minimum for CMA-ES


@names_checked
@dataclass(frozen=True)
class LearnConfig:
    """All settings of a run.

    Attributes:
        seed: Base seed; all random streams are derived from it.
        steps: Inner steps per episode (the horizon T) that the rule is learned for; 0 uses the task's horizon.
        start: Zoo rule that learning starts from; its learning rate is tuned first. auto measures Adam, sol-general,
            sol-fits and the priors of the task and takes the best one, and Adam if a network is meta-trained; prior
            does so without Adam.
        objective: Weight of the training loss in the selection objective; the validation loss gets the rest.
        tuning_episodes: Episodes per learning rate when tuning a baseline.
        features: Input features of the network, as expressions in the standard vocabulary.
        units: Operators of each hidden layer; mul*3 repeats one three times, a slash separates layers.
        gates: Whether to put hard-concrete gates on the network's weights.
        sparsity: Weight of the gate penalty (expected fraction of open gates) in the meta-loss.
        sparsity_from: Fraction of the episodes after which the penalty ramps up linearly, to full weight at the end.
        gate_lr: Learning rate of the gates.
        estimator: Meta-gradient estimator: first-order, exact or pes.
        meta_loss: How the losses of a window are combined: mean, last or log.
        outer_split: Split whose batches the meta-loss uses: train or valid.
        episodes: Episodes of meta-training; 0 keeps the initial network.
        meta_batch: Optimizees trained in parallel per episode, B.
        unroll: Truncation length U in inner steps; several values split the episodes into equal stages; if empty, the
            task's default, or 20.
        horizons: Inner steps per meta-training episode; several values split the episodes into equal stages; if empty,
            T.
        outer_lr: Learning rate of the outer optimizer (Adam).
        clip: Maximum norm of the meta-gradient, for gradient clipping; 0 disables clipping.
        coordinates: Coordinates sampled per first-order meta-gradient, K.
        particles: Antithetic pairs of perturbed networks for pes, N.
        pes_sigma: Standard deviation of the perturbations for pes.
        scaling: Half-width of the log-uniform random parameter scaling in meta-training; 0 disables it.
        precision: Precision of the optimizees' forward pass: float32, or bf16 with autocast.
        kernel: How the inner loop evaluates the network: eager, compiled, or auto (chosen by the amount of work).
        validation_episodes: Validation episodes for selecting networks and rules.
        validate_every: Meta-training episodes between validations; 0 disables validation and keeps the last network.
        record_episodes: Episodes recorded to fit and scale terms.
        record_coordinates: Coordinates recorded per episode.
        directions: Directions in the term library, as expressions in the standard vocabulary.
        decays: Decays in the term library; it contains every direction with every decay.
        scale_free: Whether to exclude terms that depend on the gradient scale, for rules that transfer to other tasks.
        own_terms: Number of leading terms of the network's formula that are added to the library.
        library_generations: CMA-ES generations over all library terms.
        max_terms: Maximum number of additive terms of the rule, without weight decay.
        prune_episodes: Episodes per candidate rule in pruning.
        constants: Whether the search also changes constants, such as beta1 and the warm-up.
        descent_steps: Steps of gradient descent on the remaining terms, over the whole horizon, before CMA-ES.
        generations: CMA-ES generations over the remaining terms.
        population: CMA-ES candidates per generation.
        polish_episodes: Episodes per CMA-ES candidate; every generation uses new ones.
        sigma: Initial CMA-ES step size, in units of the root mean square of phi.
        guard: Whether a rule must train reference networks, too, if it starts from a prior and episodes is 0;
            without, it is learned for the task alone, and may diverge on others.
        check: What a rule has to hold on, by the validation stream: variants of the task (1.4 times and twice the rate,
            other steps, inputs, batches), or rate: 1.4 times the rate alone, where trainings are few.
        check_episodes: Episodes of each; 0 skips the check.
        front: Whether to also prune the rule to every smaller number of terms, for the front of length vs. loss.
        front_generations: CMA-ES generations in that pruning, run once at three quarters of the terms; 0 skips them.
        evaluation_episodes: Held-out episodes in the final comparison.
        baselines: Zoo rules to compare the learned rule with; each is tuned with its schedule and weight decay. The
            start rule at its constant rate is shown with them, for reference.
        baseline_trainings: Trainings that tuning spends on each baseline; 0 shares as many as the learner spent among
            them.

    Raises:
        SolError: A value has the wrong type or is out of range.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {
        "validation": "validation_episodes",
        "evaluation": "evaluation_episodes",
        "terms": "max_terms",
    }

    seed: int = 0
    steps: int = 0
    start: str = "auto"
    objective: float = WEIGHT
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
    episodes: int = 0
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
    constants: bool = True
    descent_steps: int = 0
    generations: int = 12
    population: int = 16
    polish_episodes: int = 2
    sigma: float = 0.1
    guard: bool = True
    check: str = "variants"
    check_episodes: int = 2
    front: bool = True
    front_generations: int = 0
    evaluation_episodes: int = 10
    baselines: tuple[str, ...] = PANEL
    baseline_trainings: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = converted(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SolError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        unknown = [name for name in self.baselines if name not in ZOO]
        if unknown:
            raise SolError(f"baselines must be zoo rules ({', '.join(ZOO)}), got {unknown[0]!r}")
        for name, value in self.numbers():
            low = 0 if name in _MAY_BE_ZERO else _AT_LEAST.get(name, 1) if isinstance(value, int) else None
            if not (value > 0 if low is None else value >= low):
                bound = "greater than 0" if low is None else f"at least {low}"
                raise SolError(f"{name} must be {bound}, got {value!r}")
            if not math.isfinite(value):
                raise SolError(f"{name} must be finite, got {value!r}")
        if self.objective > 1:
            raise SolError(f"objective must be at most 1, got {self.objective!r}")
        if self.sparsity_from >= 1:
            raise SolError(f"sparsity_from must be less than 1, got {self.sparsity_from!r}")
        for name in ("directions", "decays"):
            if not getattr(self, name):
                raise SolError(f"{name} must not be empty")

    @property
    def priors(self) -> tuple[str, ...]:
        """The priors that are measured as starts, where no network is meta-trained."""
        return PRIORS if self.start in ("auto", "prior") else tuple(name for name in PRIORS if name == self.start)

    def numbers(self) -> list[tuple[str, float]]:
        """All numeric values with their field names, including those in tuples."""
        values = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]
        flat = [(name, item) for name, value in values for item in (value if isinstance(value, tuple) else (value,))]
        return [(name, item) for name, item in flat if isinstance(item, int | float) and not isinstance(item, bool)]

    @classmethod
    def explanations(cls) -> dict[str, str]:
        """A one-line description of each setting, by name."""
        return explanations(cls)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], base: LearnConfig | None = None) -> LearnConfig:
        """Build a configuration from names and plain values: lists for tuples, or text for lists (``"10,20"``).

        ``effort`` (quick, normal or thorough) and ``preset`` (default or paper) stand for settings that are not given;
        where they differ, the preset's count. Whatever else is not given is that of ``base``, or its default.

        Raises:
            SolError: A setting is unknown or its value has the wrong type.
        """
        given, presets = dict(settings), dict[str, Any]()
        for name, known in (("effort", EFFORTS), ("preset", PRESETS)):
            chosen = given.pop(name, next(key for key, empty in known.items() if not empty))
            if chosen not in known:
                raise SolError(f"{name} must be one of {', '.join(known)}, got {chosen!r}")
            presets |= known[chosen]
        known = {} if base is None else dataclasses.asdict(base)
        return settings_from(cls, {**known, **presets, **with_current_names(cls, given)})

    @classmethod
    def from_toml(cls, path: str | Path, **overrides: Any) -> LearnConfig:
        """Read a configuration from a TOML file; ``overrides`` take precedence.

        Raises:
            SolError: The file cannot be read, or :meth:`from_mapping` rejects its contents.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SolError(f"cannot read the settings file {path}: {error}") from None
        try:
            return cls.from_mapping({**settings, **overrides})
        except SolError as error:
            raise SolError(f"{path}: {error}") from None
