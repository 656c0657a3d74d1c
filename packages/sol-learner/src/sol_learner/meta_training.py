"""Meta-training: episodes of B optimizees, an outer step after every window, keeping the best network."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sol_learner.config import LearnConfig
from sol_learner.estimators import ESTIMATORS, Estimator, Window
from sol_learner.inner.episodes import run_episodes
from sol_learner.inner.optimizees import Optimizees
from sol_learner.inner.task_set import TaskSet
from sol_learner.networks.base import UpdateNetwork
from sol_learner.runtime.checkpoints import Checkpoints
from sol_learner.runtime.clock import Clock, Interrupted
from sol_learner.runtime.progress import Phase, Progress
from sol_learner.runtime.ranks import Ranks
from sol_learner.task import Stream, Substream, Task, device_of, generator_for
from sol_symbols import SolError
from sol_symbols.c_compiler import find_compiler

__all__ = ["MetaTrainer", "MetaTraining", "meta_train", "network_generator"]

UNROLL = 20
"""Default inner steps per window, U, if neither the configuration nor the task sets it."""

Network = TypeVar("Network", bound=UpdateNetwork)

_COMPILE_FROM = 3e7  # coordinates times steps above which compiling a C kernel (about a second) pays off
_COMPILE_ELSEWHERE_FROM = 3e9  # the same for PyTorch's compiler


@dataclass
class MetaTraining(Generic[Network]):
    """The result of meta-training.

    Attributes:
        network: The network with the best objective over the validation stream.
        loss: That objective; infinite if it was not measured.
        history: One record per episode: ``episode``, ``meta_loss``, ``best`` objective so far, and ``loss`` if the
            objective was measured.
        windows: Number of windows that gave a meta-gradient.
        dropped: Number of windows dropped because a gradient or a loss was not finite.
        divergences: Diagnostics of the first of these: step and largest gradient; on the sampled coordinates, the
            largest feature, its size and the largest update.
        kernel: The kernel that computed phi in the inner loop, a key of :data:`~sol_learner.networks.base.KERNELS`.
    """

    network: Network
    loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    windows: int = 0
    dropped: int = 0
    divergences: list[dict[str, float | str]] = field(default_factory=list)
    kernel: str = "eager"

    @property
    def advice(self) -> str:
        """What to do about dropped windows; empty if there are none."""
        if not self.dropped:
            return ""
        first = self.divergences[0]
        where = f"step {first['step']:.0f}"
        if "feature" in first:
            where += f", an update of {first['update']:.3g}"
            where += f" (the largest feature, {first['feature']}: {first['size']:.3g}"
            where += (
                f"; the largest gradient, of all coordinates: {first['gradient']:.3g})" if "gradient" in first else ")"
            )
        every = "all" if not self.windows else f"{self.dropped} of"
        return (
            f"{every} {self.dropped + self.windows} windows diverged and were dropped, the first at {where}. "
            f"Try a lower outer_lr, clip=1, fewer features or fewer exp units."
        )


def _own_settings(config: LearnConfig) -> dict[str, Any]:
    """The estimator's own arguments."""
    return {name: getattr(config, setting) for name, setting in ESTIMATORS[config.estimator].settings.items()}


def kernel_for(config: LearnConfig, task_set: TaskSet) -> str:
    """The configured kernel; ``auto`` is resolved by the amount of work and whether a compiler is available."""
    if config.kernel != "auto":
        return config.kernel
    on_cpu = device_of(task_set.tasks[0]).type == "cpu"
    if on_cpu and find_compiler() is None:
        return "eager"
    batch = config.meta_batch * ESTIMATORS[config.estimator].replicas_with(**_own_settings(config))
    work = 0.0
    for task in task_set.tasks:
        size = sum(p.numel() for p in task.build(torch.Generator().manual_seed(0)).parameters() if p.requires_grad)
        steps = batch * statistics.mean(config.horizons or (task.horizon,))
        if config.validate_every:
            steps += config.validation_episodes / config.validate_every * task.horizon
        work += config.episodes / len(task_set.tasks) * steps * size
    return "compiled" if work > (_COMPILE_FROM if on_cpu else _COMPILE_ELSEWHERE_FROM) else "eager"


class MetaTrainer(Generic[Network]):
    """Trains a network in place; see :func:`meta_train`."""

    def __init__(
        self,
        task_set: TaskSet,
        network: Network,
        lr: float,
        config: LearnConfig,
        progress: Progress,
        clock: Clock,
        ranks: Ranks,
    ) -> None:
        self.task_set, self.network, self.lr, self.config = task_set, network, lr, config
        self.progress, self.clock, self.ranks = progress, clock, ranks
        self.drawing = generator_for(config.seed, Stream.TRAIN, 0, Substream.META_TRAINING)
        gates = list(network.gates)
        weights = [p for p in network.parameters() if not any(p is gate for gate in gates)]
        groups = [{"params": weights, "lr": config.outer_lr}, {"params": gates, "lr": config.gate_lr}]
        self.outer = torch.optim.Adam([group for group in groups if group["params"]])
        self.estimator: Estimator = ESTIMATORS[config.estimator](
            network,
            self.drawing,
            kernel=kernel_for(config, task_set),
            meta_loss=config.meta_loss,
            outer_split=config.outer_split,
            **_own_settings(config),
        )
        self.result: MetaTraining[Network] = MetaTraining(network, kernel=self.estimator.optimizer.kernel)
        self.best = copy.deepcopy(network.state_dict())

    # -- checkpoints -----------------------------------------------------------------------------------------

    def restore(self, checkpoints: Checkpoints) -> None:
        """Resume from ``checkpoints``, if they contain a state."""
        record = checkpoints.kept("meta-training")
        if record is None:
            return
        mine, self.result = self.result.kernel, MetaTraining(self.network, **record)
        if mine != self.result.kernel and len(self.result.history) <= self.config.episodes:
            self.progress.note(
                f"meta-training began with the {self.result.kernel} kernel and resumes with the {mine} one: "
                "results may differ from those of an uninterrupted run"
            )
        tensors = checkpoints.tensors
        self.network.load_state_dict({n: tensors[f"network/{n}"] for n in self.best})
        self.best = {n: tensors[f"best/{n}"] for n in self.best}
        self.drawing.set_state(tensors["drawing"])
        for index, parameter in enumerate(p for group in self.outer.param_groups for p in group["params"]):
            prefix = f"outer/{index}/"
            state = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
            if state:
                self.outer.state[parameter] = {
                    n: value if n == "step" else value.to(parameter) for n, value in state.items()
                }
        for line in self.result.history[1:]:
            self._report(line)

    def keep(self, checkpoints: Checkpoints) -> None:
        """Save everything that the next episode depends on to ``checkpoints``."""
        tensors = {f"network/{n}": value for n, value in self.network.state_dict().items()}
        tensors |= {f"best/{n}": value for n, value in self.best.items()}
        tensors["drawing"] = self.drawing.get_state()
        for index, parameter in enumerate(p for group in self.outer.param_groups for p in group["params"]):
            tensors |= {f"outer/{index}/{n}": value for n, value in self.outer.state.get(parameter, {}).items()}
        r = self.result
        r.kernel = self.estimator.optimizer.kernel  # compilation may have failed at the first step
        record = {name: value for name, value in vars(r).items() if name != "network"}
        checkpoints.keep("meta-training", record, tensors)

    # -- training --------------------------------------------------------------------------------------------

    def validate(self) -> float:
        """Mean objective of the network over the validation episodes, which are split between the ranks."""
        self.network.use_mean_gates()
        episodes, config = self.ranks.own(range(self.config.validation_episodes)), self.config

        def measure(task: Task) -> Tensor:
            if not len(episodes):
                return torch.zeros(1, 0)
            optimizer = self.estimator.optimizer
            steps = run_episodes(task, optimizer, self.lr, config.seed, Stream.VALID, episodes, self.clock)
            *_, (_, optimizees, _) = steps
            return self.task_set.evaluate(optimizees)

        losses = self.ranks.gathered(self.task_set.mean(measure)[0].tolist())
        loss = sum(losses) / len(losses)
        return loss if math.isfinite(loss) else math.inf

    def sparsity(self, episode: int) -> float:
        """Weight of the gate penalty in this episode."""
        first = self.config.sparsity_from * self.config.episodes
        return self.config.sparsity * min(1.0, max(0.0, (episode - first) / max(self.config.episodes - first, 1)))

    def episode(self, episode: int) -> float:
        """Run one episode with its outer steps; returns the mean loss over its inner steps."""
        config = self.config
        which = (episode - 1) % len(self.task_set.tasks)
        task, scale = self.task_set.tasks[which], self.task_set.scales[which]
        horizon = _stage(config.horizons or (task.horizon,), episode, config.episodes)
        unroll = _stage(config.unroll or (getattr(task, "unroll", UNROLL),), episode, config.episodes)
        batch = config.meta_batch * self.ranks.size
        indices = self.ranks.own(range((episode - 1) * batch, episode * batch))
        replicas = self.estimator.num_replicas
        optimizees = Optimizees(task, config.seed, Stream.TRAIN, indices, replicas, config.precision, config.scaling)
        self.estimator.begin(optimizees, self.lr, horizon)
        losses, weight = [], self.sparsity(episode) if config.gates else 0.0
        for first in range(1, horizon + 1, unroll):
            self.clock.check()
            self.network.sample_gates(self.drawing)
            window = self.estimator.window(min(unroll, horizon + 1 - first))
            *gradient, loss = self.ranks.mean([*window.meta_gradient, window.losses.mean()])
            # One check per window: any non-finite value in it reaches the meta-gradient or the losses.
            if not all(bool(torch.isfinite(part).all()) for part in (*gradient, loss)):
                self.result.dropped += 1
                self.result.divergences = [*self.result.divergences, self._diagnose(window, first)][:20]
                break
            self._outer_step([part / scale for part in gradient], weight)
            losses.append(float(loss))
        return sum(losses) / len(losses) if losses else math.nan

    def _outer_step(self, gradient: Sequence[Tensor], weight: float) -> None:
        for parameter, part in zip(self.network.parameters(), gradient):
            parameter.grad = part.to(parameter)
        if weight:
            for gate, part in zip(self.network.gates, self._penalty_gradient(weight)):
                gate.grad += part
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.outer.step()
        self.result.windows += 1

    def _penalty_gradient(self, weight: float) -> tuple[Tensor, ...]:
        return torch.autograd.grad(weight * self.network.open_gates(), list(self.network.gates))

    def _diagnose(self, window: Window, first: int) -> dict[str, float | str]:
        """Where a window became non-finite, see :attr:`MetaTraining.divergences`."""
        bad = (~torch.isfinite(window.losses)).nonzero()
        offset = int(bad[0]) if len(bad) else len(window.losses) - 1
        found: dict[str, float | str] = {"step": float(first + offset)}
        if window.largest is not None:
            found["gradient"] = float(window.largest(offset))
        features = None if window.inputs is None else window.inputs(offset)
        extremes = {} if features is None else self.network.extremes(features)
        if "update" in extremes:
            extremes["update"] = self.lr * float(extremes["update"])
        return found | extremes

    def train(self, checkpoints: Checkpoints) -> MetaTraining[Network]:
        """Run all remaining episodes, then restore the best network."""
        config, result = self.config, self.result
        self.progress.phase(Phase.META_TRAIN, "meta-training", config.episodes)
        self.restore(checkpoints)
        result = self.result
        try:
            if not result.history:
                result.loss = self.validate() if config.validate_every else math.inf
                result.history.append({"episode": 0, "loss": result.loss})
            for episode in range(len(result.history), config.episodes + 1):
                record = {"episode": float(episode), "meta_loss": self.episode(episode)}
                due = config.validate_every and (episode % config.validate_every == 0 or episode == config.episodes)
                if due:
                    record["loss"] = self.validate()
                if not config.validate_every or (due and record["loss"] < result.loss):
                    result.loss = record.get("loss", math.inf)
                    self.best = copy.deepcopy(self.network.state_dict())
                result.history.append(record | {"best": result.loss})
                self._report(result.history[-1])
                self.keep(checkpoints)
            if not config.validate_every:
                result.loss = self.validate()
                if not math.isfinite(result.loss):
                    advice = result.advice or "try a lower outer_lr."
                    raise SolError(
                        f"meta-training ended with a diverging network, and no better one was saved: {advice}"
                    )
        except Interrupted:
            self.progress.note(f"meta-training stopped after {len(result.history) - 1} of {config.episodes} episodes")
        self.network.load_state_dict(self.best)
        self.network.use_mean_gates()
        if result.advice:
            self.progress.note(result.advice)
        return result

    def _report(self, record: dict[str, float]) -> None:
        numbers = {name: value for name, value in record.items() if name != "episode"}
        self.progress.step(int(record["episode"]), **numbers)


def network_generator(seed: int) -> torch.Generator:
    """The random generator for the initial weights of the meta-trained network."""
    return generator_for(seed, Stream.TRAIN, 0, Substream.NETWORK)


def _stage(values: Sequence[int], episode: int, episodes: int) -> int:
    """The current value of a curriculum whose stages split the episodes equally."""
    return values[min(len(values) * (episode - 1) // max(episodes, 1), len(values) - 1)]


def meta_train(
    task_set: TaskSet,
    network: Network,
    lr: float,
    config: LearnConfig,
    *,
    progress: Progress,
    clock: Clock,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks | None = None,
) -> MetaTraining[Network]:
    """Meta-train ``network`` in place and restore its best state.

    Each episode trains a meta-batch of fresh optimizees of one task (tasks alternate) over the horizon, with an outer
    Adam step after every window. Every ``validate_every`` episodes, the network is run over the whole horizon on
    episodes of the validation stream, because truncated meta-gradients are biased and longer training is not always
    better.

    Args:
        task_set: The tasks.
        network: Trained in place.
        lr: Inner learning rate.
        config: Settings of meta-training.
        progress: Progress reporter.
        clock: Can end meta-training early; the result so far is returned.
        checkpoints: Checkpoints to write and to resume from.
        ranks: Processes that share the work.
    """
    trainer = MetaTrainer(task_set, network, lr, config, progress, clock, ranks or Ranks())
    return trainer.train(checkpoints or Checkpoints())
