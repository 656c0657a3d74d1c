"""Meta-training: truncated back-propagation over episodes of B optimizees, the best network kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sol_learner.episodes import OBJECTIVE
from sol_learner.meta_gradient import FirstOrder
from sol_learner.network import SymbolicNetwork
from sol_learner.optimizees import Optimizees
from sol_learner.progress import Clock, Interrupted, Progress
from sol_learner.task import Purpose, Task, generator_for
from sol_symbols import Evaluator, feature_evaluator

__all__ = ["MetaTraining", "NetworkOptimizer", "meta_train"]

_CHUNK = 1 << 16  # coordinates evaluated at once: temporaries then stay within the processor's cache


class NetworkOptimizer:
    """Runs a network as the optimizer of optimizees: features, phi, states.

    Args:
        network: phi.
        horizon: T of the decays.
    """

    def __init__(self, network: SymbolicNetwork, horizon: int) -> None:
        self.network, self.values = network, network.values(horizon)
        self.features: Evaluator = feature_evaluator(network.features, network.vocabulary, torch)

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        """States before the first step."""
        return self.features.init(theta)

    @torch.no_grad()
    def step(
        self, gradient: Tensor, state: dict[str, Tensor], theta: Tensor, t: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """phi and the new state, computed in chunks of coordinates; all tensors of one shape."""
        flat = [gradient.reshape(-1), theta.reshape(-1), *(value.reshape(-1) for value in state.values())]
        phi = torch.empty_like(flat[0])
        new = {name: torch.empty_like(flat[0]) for name in state}
        for start in range(0, len(phi), _CHUNK):
            g, w, *old = (value[start : start + _CHUNK] for value in flat)
            outputs, after = self.features.step(g, dict(zip(state, old)), w, t, self.values)
            phi[start : start + _CHUNK] = self.network(torch.stack(outputs))
            for name, value in after.items():
                new[name][start : start + _CHUNK] = value
        return phi.view_as(theta), {name: value.view_as(theta) for name, value in new.items()}


@dataclass
class MetaTraining:
    """The result of meta-training.

    Attributes:
        network: The network, at its best by the objective over the validation stream.
        loss: That objective.
        history: One record per measured episode: ``episode``, ``loss`` (validation) and ``meta_loss``.
        windows: Windows that gave a meta-gradient.
        dropped: Windows that were left out because a gradient or an update was not finite.
    """

    network: SymbolicNetwork
    loss: float
    history: list[dict[str, float]] = field(default_factory=list)
    windows: int = 0
    dropped: int = 0


def run_network(
    task: Task,
    network: SymbolicNetwork,
    lr: float,
    seed: int,
    purpose: Purpose,
    episodes: Sequence[int],
    clock: Clock | None = None,
) -> Iterator[tuple[int, Optimizees, Tensor, dict[str, Tensor]]]:
    """Train optimizees with a network; yields (t, optimizees, gradient, state before) ahead of each move."""
    optimizees = Optimizees(task, seed, purpose, episodes)
    optimizer = NetworkOptimizer(network, task.horizon)
    state = optimizer.init(optimizees.theta)
    for t in range(1, task.horizon + 1):
        if clock is not None:
            clock.check()
        _, gradient = optimizees.losses_and_gradients()
        yield t, optimizees, gradient, state
        phi, state = optimizer.step(gradient, state, optimizees.theta, t)
        optimizees.move(-lr * phi)
    yield task.horizon + 1, optimizees, gradient, state


def objective(
    task: Task,
    network: SymbolicNetwork,
    lr: float,
    seed: int,
    purpose: Purpose,
    episodes: Sequence[int],
    clock: Clock | None = None,
) -> float:
    """Mean objective of episodes with the network; infinite where it is not a number."""
    for _, optimizees, _, _ in run_network(task, network, lr, seed, purpose, episodes, clock):  # noqa: B007
        pass
    loss = float(sum(optimizees.evaluate(split)["loss"].mean() for split in OBJECTIVE)) / len(OBJECTIVE)
    return loss if math.isfinite(loss) else math.inf


def meta_train(
    task: Task,
    network: SymbolicNetwork,
    lr: float,
    *,
    seed: int,
    episodes: int,
    meta_batch: int,
    unroll: int,
    outer_lr: float,
    coordinates: int,
    validation: int,
    every: int,
    progress: Progress,
    clock: Clock,
) -> MetaTraining:
    """Meta-train ``network`` in place and leave it at the best that it was.

    Each episode trains ``meta_batch`` fresh optimizees over the task's horizon and takes an outer Adam step after
    every ``unroll`` inner steps. Every ``every`` episodes the network is run over the whole horizon on ``validation``
    episodes of a stream of their own, because truncated meta-gradients are biased and longer training is not always
    better.

    Args:
        task: The task.
        network: Trained in place.
        lr: Inner learning rate.
        seed: Base seed.
        episodes: Number of episodes.
        meta_batch: B, optimizees per episode.
        unroll: U, inner steps per window.
        outer_lr: Learning rate of the outer Adam.
        coordinates: K, coordinates sampled for the meta-gradient.
        validation: Validation episodes.
        every: Episodes between validations.
        progress: Where to report.
        clock: Ends meta-training early; what was reached is returned.
    """
    outer = torch.optim.Adam(network.parameters(), lr=outer_lr)
    drawing = generator_for(seed, Purpose.TRAIN, 0, part=2)

    def validate() -> float:
        return objective(task, network, lr, seed, Purpose.VALID, range(validation), clock)

    progress.phase("meta-training", episodes)
    result, best = MetaTraining(network, math.inf), copy.deepcopy(network.state_dict())
    try:
        result.loss = validate()
        result.history.append({"episode": 0, "loss": result.loss})
        for episode in range(1, episodes + 1):
            indices = range((episode - 1) * meta_batch, episode * meta_batch)
            meta_loss = _episode(task, network, lr, seed, indices, unroll, coordinates, drawing, outer, result, clock)
            record = {"episode": float(episode), "meta_loss": meta_loss}
            if episode % every == 0 or episode == episodes:
                record["loss"] = validate()
                if record["loss"] < result.loss:
                    result.loss, best = record["loss"], copy.deepcopy(network.state_dict())
            result.history.append(record)
            progress.step(episode, meta_loss=meta_loss, best=result.loss)
    except Interrupted:
        progress.note(f"meta-training stopped after {len(result.history) - 1} of {episodes} episodes")
    network.load_state_dict(best)
    if result.dropped:
        progress.note(
            f"{result.dropped} of {result.dropped + result.windows} windows were dropped: the loss left the range of "
            f"finite numbers. A lower learning rate or fewer features may help."
        )
    return result


def _episode(
    task: Task,
    network: SymbolicNetwork,
    lr: float,
    seed: int,
    indices: Sequence[int],
    unroll: int,
    coordinates: int,
    drawing: torch.Generator,
    outer: torch.optim.Optimizer,
    result: MetaTraining,
    clock: Clock,
) -> float:
    """One episode with outer steps; returns the mean loss over its inner steps."""
    optimizees = Optimizees(task, seed, Purpose.TRAIN, indices)
    optimizer = NetworkOptimizer(network, task.horizon)
    estimator = FirstOrder(network, optimizer.features, optimizer.values, lr, unroll, coordinates, drawing)
    state = optimizer.init(optimizees.theta)
    estimator.begin(state, optimizees.theta, 1)
    losses = []
    for t in range(1, task.horizon + 2):
        clock.check()
        loss, gradient = optimizees.losses_and_gradients()
        losses.append(loss.mean())
        whole = estimator.observe(gradient, optimizees.theta)
        if whole or (t > task.horizon and estimator.steps):
            meta_gradient = estimator.meta_gradient()
            # One check a window: anything that is not finite in it reaches the meta-gradient or the last loss.
            if not all(bool(torch.isfinite(part).all()) for part in (*meta_gradient, loss)):
                result.dropped += 1
                break
            for parameter, part in zip(network.parameters(), meta_gradient):
                parameter.grad = part
            outer.step()
            result.windows += 1
            estimator.begin(state, optimizees.theta, t)
            estimator.observe(gradient, optimizees.theta)
        if t <= task.horizon:
            phi, state = optimizer.step(gradient, state, optimizees.theta, t)
            optimizees.move(-lr * phi)
    return float(torch.stack(losses).mean())
