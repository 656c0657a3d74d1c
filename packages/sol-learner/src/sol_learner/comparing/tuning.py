"""Tuning of baselines with Optuna: the same budget for each, on episodes that are not used for evaluation.

Each optimizer has a separate study. With all other hyperparameters at their defaults, the learning rate is searched
from coarse to fine: six decades, then a half, a quarter and an eighth of a decade on both sides of the best so far.
After these twelve trials, Optuna's TPE searches everything that is tuned. All studies advance in rounds of one trial
each. The runs of a round are independent, so they can be distributed over processes, and the result does not depend on
their order of completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sol_learner.comparing.optimizer_specs import EXTRA, Dimension, Settings
from sol_learner.runtime.progress import Progress
from sol_learner.task_registry import install_line
from sol_symbols import SolError

__all__ = ["FIRST_RATES", "REFINEMENTS", "tune_side_by_side"]

FIRST_RATES = (1e-2, 1e-3, 1e-1, 1e-4, 1.0, 10.0)
"""Learning rates of the first trials."""

REFINEMENTS = (0.5, 0.25, 0.125)
"""Distances in decades from the best learning rate for the trials that follow, two per distance."""


def tune_side_by_side(
    spaces: Mapping[str, Sequence[Dimension]],
    measure: Callable[[Mapping[str, Settings]], Mapping[str, float]],
    trials: int,
    seed: int,
    progress: Progress,
) -> dict[str, list[dict[str, Any]]]:
    """Search each space for the settings with the lowest objective.

    Args:
        spaces: Search space by optimizer.
        measure: Maps one setting per optimizer to objectives; infinite if a run diverged.
        trials: Trials per optimizer.
        seed: Seed of the sampler.
        progress: Advances by one step per round.

    Returns:
        For each optimizer, ``{"settings": ..., "objective": ...}`` of every trial, in order; the objective is ``None``
        if it is not finite.

    Raises:
        SolError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SolError(
            f"tuning needs Optuna: {install_line([EXTRA])} (or use --tune none and specify learning rates)"
        ) from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        studies = {name: _study(optuna, space, seed) for name, space in spaces.items()}
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in spaces}
        refined = {len(FIRST_RATES) + 2 * i: decades for i, decades in enumerate(REFINEMENTS)}
        for done in range(1, trials + 1):
            if done - 1 in refined:
                for study in studies.values():
                    _refine(study, refined[done - 1])
            asked = {name: study.ask() for name, study in studies.items()}
            settings = {name: _suggest(trial, spaces[name]) for name, trial in asked.items()}
            objectives = measure(settings)
            for name, trial in asked.items():
                value = objectives[name]
                studies[name].tell(trial, value if math.isfinite(value) else _WORST)
                tables[name].append({"settings": settings[name], "objective": value if math.isfinite(value) else None})
            progress.step(done)
        return tables
    finally:
        optuna.logging.set_verbosity(before)


_WORST = 1e300  # TPE only uses the ranking of objectives


def _study(optuna: Any, space: Sequence[Dimension], seed: int) -> Any:
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=len(FIRST_RATES) + 2 * len(REFINEMENTS), multivariate=len(space) > 1
    )
    study = optuna.create_study(sampler=sampler)
    for rate in FIRST_RATES:
        study.enqueue_trial({d.name: rate if d.default is None else _inner(d, d.default) for d in space})
    return study


def _refine(study: Any, decades: float) -> None:
    """Enqueue the best settings with the learning rate ``decades`` higher and lower."""
    best = study.best_trial.params
    for factor in (10**decades, 10**-decades):
        study.enqueue_trial({**best, "lr": best["lr"] * factor})


def _inner(dimension: Dimension, value: float | str) -> float | str:
    """A value in Optuna's parametrization."""
    return 1 - value if dimension.complement and not isinstance(value, str) else value


def _suggest(trial: Any, space: Sequence[Dimension]) -> dict[str, float | str]:
    """Settings of a trial; numbers have three digits, so the printed values are exact."""
    settings: dict[str, float | str] = {}
    for d in space:
        if d.choices:
            settings[d.name] = trial.suggest_categorical(d.name, d.choices)
        else:
            value = float(f"{trial.suggest_float(d.name, d.low, d.high, log=True):.3g}")
            settings[d.name] = round(1 - value, 12) if d.complement else value
    return settings
