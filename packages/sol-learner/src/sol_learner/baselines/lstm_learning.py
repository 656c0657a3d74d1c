"""Meta-training of an LSTM on a task: L2LGD2 as a baseline for learned rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from types import MappingProxyType
from typing import Any

from sol_learner.config import LearnConfig
from sol_learner.estimators import ESTIMATORS
from sol_learner.inner.task_set import TaskSet
from sol_learner.meta_training import MetaTraining, meta_train, network_generator
from sol_learner.networks.lstm import LSTMNetwork
from sol_learner.networks.trained_lstm import TrainedLSTM
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock
from sol_learner.runtime.progress import NullProgress, Progress
from sol_learner.task import Task, device_of
from sol_symbols import SolError

__all__ = ["LSTM_LR", "LSTM_SETTINGS", "learn_lstm", "lstm_config"]

LSTM_LR = 0.1
"""Learning rate of the LSTM, the constant factor on its output."""

LSTM_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "seed": 0,
        "objective": LearnConfig.objective,
        "estimator": "first-order",
        "meta_loss": "mean",
        "outer_split": "train",
        "episodes": 200,
        "meta_batch": 2,
        "unroll": (5, 10, 20),
        "horizons": (),
        "outer_lr": 3e-3,
        "clip": 1.0,
        "scaling": 0.0,
        "precision": "float32",
        "validation_episodes": 4,
        "validate_every": 10,
    }
    | {name: getattr(LearnConfig, name) for cls in ESTIMATORS.values() for name in cls.settings.values()}
)
"""The settings of :class:`~sol_learner.LearnConfig` that apply to an LSTM, with their defaults for it."""


def lstm_config(settings: Mapping[str, Any]) -> LearnConfig:
    """Build the configuration of an LSTM's meta-training from names and plain values.

    Raises:
        SolError: A setting does not apply to an LSTM, or its value is invalid.
    """
    names = {name: name.replace("-", "_") for name in settings}
    unknown = [name for name, plain in names.items() if plain not in LSTM_SETTINGS]
    if unknown:
        raise SolError(f"{unknown[0]!r} is not a setting of an LSTM; available: {', '.join(LSTM_SETTINGS)}")
    return LearnConfig.from_mapping({**LSTM_SETTINGS, **{names[name]: value for name, value in settings.items()}})


def learn_lstm(
    task: Task,
    config: LearnConfig | None = None,
    *,
    lr: float = LSTM_LR,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> tuple[TrainedLSTM, MetaTraining[LSTMNetwork]]:
    """Meta-train the LSTM of Andrychowicz et al. on a task, with the same loop as EQL networks.

    Args:
        task: The task.
        config: Settings of meta-training; see :data:`LSTM_SETTINGS`.
        lr: Factor on the LSTM's output.
        checkpoints: Checkpoints to write and to resume from.
        progress: Progress reporter.
        clock: Can end meta-training early; the best network so far is returned.

    Raises:
        SolError: ``lr`` is not a positive number, or every window diverged.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise SolError(f"lr must be positive and finite, got {lr!r}")
    config = config or lstm_config({})
    network = LSTMNetwork(generator=network_generator(config.seed)).to(device_of(task))
    training = meta_train(
        TaskSet((task,), (1.0,), config.objective),
        network,
        lr,
        config,
        progress=progress or NullProgress(),
        clock=clock or Clock(),
        checkpoints=checkpoints,
    )
    if training.dropped and not training.windows:
        raise SolError(training.advice)
    provenance = {
        "tasks": [task.name],
        "seed": config.seed,
        "objective": config.objective,
        "spent": config.episodes * config.meta_batch,
        "loss": training.loss if math.isfinite(training.loss) else None,
        "config": {name: asdict(config)[name] for name in LSTM_SETTINGS},
        "sol": metadata.version("sol-learner"),
    }
    return TrainedLSTM(network.requires_grad_(False), lr, provenance), training
