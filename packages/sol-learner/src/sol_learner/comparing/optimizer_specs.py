"""What can be compared: a rule, or an optimizer class from PyTorch, pytorch-optimizer or a file.

Names are resolved in this order:

    torch:AdamW  pytorch_optimizer:Lion  file.py:Class    a class; library names ignore case
    adam                                                  a zoo rule, equal to the library's in float64
    radam                                                 a torch.optim class that is not in the zoo
    tune:NAME                                             NAME, tuned although it has a learning rate
    anything else                                         a rule: run folder, rule file, formula; or the folder of
                                                          a meta-trained LSTM

An optimizer with a learning rate (a rule with ``lr``, a class from a file with a default for it) is used unchanged; the
others are tuned over their :func:`~OptimizerSpec.space`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sol_learner.comparing.spaces import SCHEDULE, Dimension, Settings, learning_rate, space_of
from sol_learner.inner.optimizees import Optimizees
from sol_learner.networks.base import State
from sol_learner.networks.trained_lstm import LSTM_FILE, LSTM_WEIGHTS, TrainedLSTM
from sol_learner.task_registry import install_line
from sol_learner.user_code import file_digest, from_file
from sol_symbols import ZOO, Layout, RuleEvaluator, SolError, UpdateRule, evaluator, resolve_rule

__all__ = [
    "EXTRA",
    "PANEL",
    "LSTMSpec",
    "OptimizerSpec",
    "RuleSpec",
    "Started",
    "Step",
    "TorchSpec",
    "resolve_optimizer",
]

EXTRA = "sol-learner[compare]"
"""The extra to install for pytorch-optimizer."""

TUNE = "tune:"
"""Prefix of an optimizer that is tuned although it has a learning rate."""

PANEL = ("adamw", "nadamw", "nesterov", "lion")
"""The hand-made optimizers that a learned rule has to beat, each tuned with its schedule and weight decay."""

Step = Callable[[int, Tensor, float], None]
"""``step(t, gradient, lr)`` updates the optimizees; t starts at 1, the gradient has the shape of their theta."""


@dataclass(frozen=True)
class Started:
    """An optimizer that is ready to train.

    Attributes:
        step: ``step(t, gradient, lr)``; t starts at 1, the gradient has the shape of ``theta``.
        state_bytes: Returns the size of its state in bytes.
        finish: Called once after the last step: places the weights to evaluate, if they are not those it trains.
    """

    step: Step
    state_bytes: Callable[[], int]
    finish: Callable[[], None] = lambda: None


class OptimizerSpec(Protocol):
    """An optimizer that can be compared. It must be picklable."""

    @property
    def fixed(self) -> Settings | None:
        """The fixed settings; ``None`` if it has to be tuned."""

    @property
    def rule(self) -> UpdateRule | None:
        """The rule, if it is one."""

    def identity(self) -> dict[str, Any]:
        """Everything except settings that determines its results; JSON-serializable."""

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """Search space, learning rate first; with ``full``, also momenta, averaging, eps, weight decay, schedule."""

    def check(self) -> None:
        """Raise :class:`~sol_symbols.SolError` if it cannot be used."""

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> Started:
        """The optimizer for fresh ``optimizees``."""


def _moving(
    optimizees: Optimizees,
    state: State,
    update: Callable[[Tensor, State, Tensor, int], tuple[Tensor, State]],
    weights: Callable[[State, Tensor, int, float], Tensor] | None = None,
) -> Started:
    """What :meth:`OptimizerSpec.begin` returns.

    Args:
        optimizees: What is trained.
        state: Before the first step.
        update: Computes phi and the new state.
        weights: Computes the weights to evaluate with after step t at a learning rate.
    """
    last = (0, 0.0)

    def step(t: int, gradient: Tensor, lr: float) -> None:
        nonlocal state, last
        phi, state = update(gradient, state, optimizees.theta, t)
        optimizees.descend(phi, lr)
        last = (t, lr)

    def finish() -> None:
        if weights is not None:
            optimizees.place(weights(state, optimizees.theta, *last))

    return Started(step, lambda: sum(value.nbytes for value in state.values()), finish)


@dataclass(frozen=True)
class RuleSpec:
    """An update rule.

    Attributes:
        rule: The rule.
        rate_only: Whether tuning is limited to the learning rate.
        around: Where tuning begins: a learning rate that worked elsewhere.
    """

    rule: UpdateRule
    rate_only: bool = False
    around: float | None = None

    @property
    def fixed(self) -> Settings | None:
        """See :class:`OptimizerSpec`."""
        return None if self.rule.lr is None else {"lr": self.rule.lr}

    def identity(self) -> dict[str, Any]:
        """See :class:`OptimizerSpec`."""
        return {"rule": self.rule.digest}

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """See :class:`OptimizerSpec`. A rule that already contains a schedule gets no additional one, and one with
        evaluation weights needs none."""
        rate = learning_rate(self.around)
        if not full or self.rate_only:
            return (rate,)
        known = self.rule.vocabulary.hyperparameters  # a constant is not tuned, whatever its name
        values = {name: value for name, value in self.rule.values.items() if value is not None and name in known}
        schedule = () if self.rule.needs_horizon or self.rule.evaluation is not None else SCHEDULE
        return (rate, *space_of({**values, "wd": values.get("wd", 0.0)}), *schedule)

    def with_decay(self, settings: Settings) -> UpdateRule:
        """The rule, plus decoupled weight decay ``wd*w`` if ``settings`` have a ``wd`` that it has no place for."""
        return self.rule if "wd" not in settings or "wd" in self.rule.values else self.rule.with_weight_decay(0.0)

    def check(self) -> None:
        """See :class:`OptimizerSpec`; a rule can always be used."""

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> Started:
        """See :class:`OptimizerSpec`; the rule's schedule spans ``steps``."""
        phi = _evaluator(self.with_decay(settings), steps, optimizees.layout)
        values = {**phi.values, **{name: value for name, value in settings.items() if name in phi.values}}

        def update(gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
            (value,), state = phi.step(gradient, state, theta, t, values, optimizees.losses_before)
            return value, state

        def weights(state: State, theta: Tensor, t: int, lr: float) -> Tensor:
            averaged: Tensor = phi.weights(state, theta, t, lr, values)
            return averaged

        return _moving(
            optimizees, phi.init(optimizees.theta), update, None if self.rule.evaluation is None else weights
        )


@functools.lru_cache(maxsize=64)
def _evaluator(rule: UpdateRule, steps: int, layout: Layout) -> RuleEvaluator:
    return evaluator(rule, torch, steps, hoist=True, layout=layout)


@dataclass(frozen=True)
class TorchSpec:
    """A PyTorch optimizer class.

    Attributes:
        source: Module (``torch.optim``, ``pytorch_optimizer``) or Python file that contains it.
        name: Name of the class.
        digest: SHA-256 of the file, or the version of the library.
        tuned: Whether to tune it although it has a learning rate of its own.
    """

    source: str
    name: str
    digest: str
    tuned: bool = False

    rule = None

    @property
    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        """The class.

        Raises:
            SolError: The file has changed or cannot be imported.
        """
        return _load(self.source, self.name, self.digest)

    @property
    def _defaults(self) -> dict[str, Any]:
        parameters = inspect.signature(self.optimizer_class).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    @property
    def _own_rate(self) -> float | None:
        """The learning rate that a class from a file has by default; those of libraries mean nothing."""
        lr = self._defaults.get("lr")
        return float(lr) if self.source.endswith(".py") and isinstance(lr, int | float) else None

    @property
    def fixed(self) -> Settings | None:
        """See :class:`OptimizerSpec`."""
        return None if self.tuned or self._own_rate is None else {"lr": self._own_rate}

    def identity(self) -> dict[str, Any]:
        """See :class:`OptimizerSpec`. A file is identified by its content, not by its path."""
        source = "file" if self.source.endswith(".py") else self.source
        return {"source": source, "class": self.name, "digest": self.digest}

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """See :class:`OptimizerSpec`. A class that takes a ``horizon`` has its own schedule and gets no other, and one
        that averages its weights, with ``train()`` and ``eval()``, needs none."""
        defaults, rate = self._defaults, learning_rate(self._own_rate)
        if not full:
            return (rate,)
        betas = defaults.get("betas")
        if isinstance(betas, tuple) and len(betas) >= 2:
            defaults |= {"beta1": betas[0], "beta2": betas[1]}
        numbers = {name: v for name, v in defaults.items() if isinstance(v, float) or (v == 0 and v is not False)}
        averages = callable(getattr(self.optimizer_class, "eval", None))
        return (rate, *space_of(numbers), *(() if "horizon" in defaults or averages else SCHEDULE))

    def check(self) -> None:
        """See :class:`OptimizerSpec`. Tries one step on four parameters.

        Raises:
            SolError: It is not an optimizer, or needs more than parameters, gradients and a learning rate.
        """
        if not (inspect.isclass(self.optimizer_class) and issubclass(self.optimizer_class, torch.optim.Optimizer)):
            raise SolError(f"{self.name} in {self.source} must be a subclass of torch.optim.Optimizer")
        parameter = nn.Parameter(torch.ones(2, 2))
        parameter.grad = torch.ones(2, 2)
        try:
            for optimizer in self._make([parameter], {"lr": 0.01}, 10):
                _call([optimizer], "train")
                optimizer.step()
                if not all("lr" in group for group in optimizer.param_groups):
                    raise SolError(f"{self.name} cannot be compared: its parameter groups have no learning rate 'lr'")
        except SolError:
            raise
        except Exception as error:  # third-party classes can raise anything
            raise SolError(
                f"{self.name} cannot be compared: given a list of parameters and lr, it must step with their gradients "
                f"alone, and it raised {type(error).__name__}: {error}. If it needs more, such as named groups, write "
                "a subclass that adds it, as FILE.py:CLASS; if it is a formula, compare that"
            ) from None

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> Started:
        """See :class:`OptimizerSpec`. The class receives tensors in the model's shapes.

        Raises:
            SolError: There is more than one optimizee.
        """
        if optimizees.theta.shape[:2] != (1, 1):
            raise SolError(f"{self.name} supports only one optimizee at a time")
        parameters = [nn.Parameter(view.clone()) for view in optimizees.views(optimizees.theta[0, 0])]
        optimizers = self._make(parameters, settings, steps)
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        _call(optimizers, "train")

        def place() -> None:
            optimizees.place(torch.cat([p.detach().reshape(-1) for p in parameters]).view_as(optimizees.theta))

        def step(t: int, gradient: Tensor, lr: float) -> None:
            with torch.no_grad():
                for parameter, view, g in zip(
                    parameters, optimizees.views(optimizees.theta[0, 0]), optimizees.views(gradient[0, 0])
                ):
                    parameter.copy_(view)  # changes it only if the task projects
                    parameter.grad = g
            factor = lr / float(settings["lr"]) if settings["lr"] else 0.0
            for optimizer, own in zip(optimizers, rates):
                for group, rate in zip(optimizer.param_groups, own):  # the class may give its groups different rates
                    group["lr"] = factor * rate
                optimizer.step()
            place()

        def finish() -> None:
            if _call(optimizers, "eval"):
                place()

        return Started(step, lambda: sum(map(_state_bytes, optimizers)), finish)

    def _make(self, parameters: list[nn.Parameter], settings: Settings, steps: int) -> list[torch.optim.Optimizer]:
        """The optimizer; for a class that takes matrices only, also an AdamW for the other parameters."""
        known = self._defaults
        own = {name: value for name, value in settings.items() if name not in _SCHEDULE}
        arguments: dict[str, Any] = {name: value for name, value in own.items() if name in known}
        if "beta1" in own and "betas" in known:
            arguments["betas"] = (own["beta1"], own["beta2"], *known["betas"][2:])
        if "horizon" in known:
            arguments["horizon"] = steps
        if self.optimizer_class is not getattr(torch.optim, "Muon", None):
            return [self.optimizer_class(parameters, **arguments)]
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        others = [parameter for parameter in parameters if parameter.ndim != 2]
        arguments["adjust_lr_fn"] = "match_rms_adamw"  # so that one learning rate suits both
        found = [self.optimizer_class(matrices, **arguments)] if matrices else []
        return [*found, torch.optim.AdamW(others, lr=float(settings["lr"]))] if others else found


_SCHEDULE = {dimension.name for dimension in SCHEDULE}


def _call(optimizers: list[torch.optim.Optimizer], mode: str) -> bool:
    """Switch schedule-free optimizers, which evaluate at other weights than they train; whether there is one."""
    switches = [getattr(optimizer, mode) for optimizer in optimizers if callable(getattr(optimizer, mode, None))]
    for switch in switches:
        switch()
    return bool(switches)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Size in bytes of all state tensors, without scalar counters."""
    tensors = pytree.tree_leaves([*optimizer.state.values()])  # some keep numbers of the run there, too
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim)


@dataclass(frozen=True)
class LSTMSpec:
    """A meta-trained LSTM.

    Attributes:
        folder: Output folder of ``sol learn-lstm``.
        digest: SHA-256 of the weights.
    """

    folder: str
    digest: str

    rule = None

    @property
    def trained(self) -> TrainedLSTM:
        """The LSTM.

        Raises:
            SolError: Its files cannot be read.
        """
        return _load_lstm(self.folder, self.digest)

    @property
    def fixed(self) -> Settings:
        """See :class:`OptimizerSpec`."""
        return {"lr": self.trained.lr}

    def identity(self) -> dict[str, Any]:
        """See :class:`OptimizerSpec`."""
        return {"lstm": self.digest}

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """See :class:`OptimizerSpec`; it is used as trained, without tuning."""
        return ()

    def check(self) -> None:
        """See :class:`OptimizerSpec`."""
        _ = self.trained

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> Started:
        """See :class:`OptimizerSpec`."""
        runner = self.trained.network.to(optimizees.theta.device).runner()
        return _moving(optimizees, runner.begin(optimizees.theta, steps), runner.step)


@functools.lru_cache(maxsize=16)
def _load_lstm(folder: str, digest: str) -> TrainedLSTM:
    if file_digest(Path(folder, LSTM_WEIGHTS)) != digest:
        raise SolError(f"the LSTM in {folder} changed during the comparison; run it again")
    return TrainedLSTM.load(folder)


@functools.lru_cache(maxsize=64)
def _load(source: str, name: str, digest: str) -> type[torch.optim.Optimizer]:
    if not source.endswith(".py"):
        return getattr(importlib.import_module(source), name)
    path = Path(source)
    if file_digest(path) != digest:
        raise SolError(f"{path} changed during the comparison; run it again")
    return from_file(path, name)


_LIBRARIES = {"torch": "torch.optim", "torch.optim": "torch.optim"}
_LIBRARIES |= dict.fromkeys(("pytorch_optimizer", "pytorch-optimizer"), "pytorch_optimizer")


def resolve_optimizer(text: str) -> OptimizerSpec:
    """The optimizer that ``text`` names; see the module docstring.

    Raises:
        SolError: No such optimizer exists, or a required package is not installed.

    >>> resolve_optimizer("torch:adamw").name
    'AdamW'
    >>> print(resolve_optimizer("lion").rule)
    sign(li) where beta2 = 0.99
    """
    if text.startswith(TUNE):
        return _to_tune(text.removeprefix(TUNE))
    source, _, name = text.rpartition(":")
    if source in _LIBRARIES:
        return _of_library(_LIBRARIES[source], name)
    if source.endswith(".py"):
        spec = TorchSpec(str(Path(source).resolve()), name, file_digest(Path(source)))
        spec.optimizer_class  # noqa: B018  (report import errors early)
        return spec
    if text.lower() in ZOO:
        return RuleSpec(ZOO[text.lower()])
    if text.lower() in (known.lower() for known in _classes("torch.optim")):
        return _of_library("torch.optim", text)
    if Path(text, LSTM_FILE).is_file():
        return LSTMSpec(str(Path(text).resolve()), file_digest(Path(text, LSTM_WEIGHTS)))
    try:
        return RuleSpec(resolve_rule(text))
    except SolError as error:
        classes = "torch:NAME, pytorch_optimizer:NAME or FILE.py:CLASS"
        raise SolError(f"{error}\nTo use another optimizer, write {classes}") from None


def _to_tune(text: str) -> OptimizerSpec:
    """An optimizer that has a learning rate, to be tuned around it; a rule keeps all its other values."""
    spec = resolve_optimizer(text)
    if isinstance(spec, TorchSpec):
        return replace(spec, tuned=True)
    if isinstance(spec, RuleSpec):
        return RuleSpec(replace(spec.rule, lr=None), rate_only=spec.rule.lr is not None, around=spec.rule.lr)
    raise SolError(f"cannot tune {text}: an LSTM trains at the learning rate it was meta-trained for")


def _of_library(module: str, name: str) -> TorchSpec:
    classes = _classes(module)
    found = {known.lower(): known for known in classes}.get(name.lower())
    if found is None:
        raise SolError(f"no optimizer {name!r} in {module}; available: {', '.join(classes)}")
    return TorchSpec(module, found, metadata.version(module.partition(".")[0].replace("_", "-")))


def _classes(module: str) -> list[str]:
    try:
        members = vars(importlib.import_module(module))
    except ImportError:
        raise SolError(f"{module} is not installed: {install_line([EXTRA])}") from None
    base = torch.optim.Optimizer
    return sorted(
        key for key, cls in members.items() if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
    )
