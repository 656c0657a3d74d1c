"""What can be compared: a rule, or an optimizer class from PyTorch, pytorch-optimizer or a file.

Names are resolved in this order:

    torch:AdamW  pytorch_optimizer:Lion  file.py:Class    a class; library names ignore case
    adam                                                  a zoo rule, equal to the library's in float64
    radam                                                 a torch.optim class that is not in the zoo
    anything else                                         a rule: run folder, rule file, formula; or the folder of
                                                          a meta-trained LSTM

An optimizer with a learning rate (a rule with ``lr``, a class from a file with a default for it) is used unchanged; the
others are tuned over their :func:`~OptimizerSpec.space`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sol_learner.inner.optimizees import Optimizees
from sol_learner.networks.base import State
from sol_learner.networks.trained_lstm import LSTM_FILE, LSTM_WEIGHTS, TrainedLSTM
from sol_learner.task_registry import install_line
from sol_symbols import ZOO, SolError, UpdateRule, evaluator, resolve_rule

__all__ = [
    "EXTRA",
    "SCHEDULES",
    "Dimension",
    "LSTMSpec",
    "OptimizerSpec",
    "RuleSpec",
    "Settings",
    "Step",
    "TorchSpec",
    "resolve_optimizer",
    "schedule_factor",
]

EXTRA = "sol-learner[compare]"
"""The extra to install for tuning, statistical tests and pytorch-optimizer."""

SCHEDULES = ("constant", "linear", "cosine")

Settings = Mapping[str, float | str]
"""Hyperparameters by name, including ``lr`` and ``schedule``."""

Step = Callable[[int, Tensor, float], None]
"""``step(t, gradient, lr)`` updates the optimizees; t starts at 1, the gradient has the shape of their theta."""


def schedule_factor(schedule: str, t: int, steps: int) -> float:
    """Learning rate factor at step ``t`` of ``steps``: 1 at the first step; close to 0 at the last, unless constant.

    With u = (t - 1)/steps: constant 1, linear 1 - u, cosine (1 + cos(pi u))/2.

    >>> [schedule_factor("linear", t, 4) for t in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    u = (t - 1) / steps
    return {"constant": 1.0, "linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2}[schedule]


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter to tune.

    Attributes:
        name: As in :data:`Settings`.
        default: Value without tuning; ``None`` for a learning rate, which has no sensible default.
        low, high: Log-uniform range of the value, or of 1 - value if ``complement``.
        complement: Whether the value is a factor near 1, searched by its distance from 1.
        choices: Categorical choices, instead of a range.
    """

    name: str
    default: float | str | None
    low: float = 0.0
    high: float = 0.0
    complement: bool = False
    choices: tuple[str, ...] = ()


_LR = Dimension("lr", None, 1e-5, 100.0)
_SCHEDULE = Dimension("schedule", "constant", choices=SCHEDULES)


def _momentum(name: str, default: float) -> Dimension:
    return Dimension(name, default, min(0.01, 1 - default), 1.0, complement=True)


def _averaging(name: str, default: float) -> Dimension:
    return Dimension(name, default, min(1e-4, 1 - default), 0.5, complement=True)


def _decay(name: str, default: float) -> Dimension:
    return Dimension(name, default, min(1e-6, default), max(0.3, default))


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
        """Search space: the learning rate; with ``full``, also momenta, averaging, weight decay and schedule."""

    def check(self) -> None:
        """Raise :class:`~sol_symbols.SolError` if it cannot be used."""

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> tuple[Step, Callable[[], int]]:
        """A step function for fresh ``optimizees``, and a function that returns the size of its state in bytes."""


def _moving(
    optimizees: Optimizees, state: State, update: Callable[[Tensor, State, Tensor, int], tuple[Tensor, State]]
) -> tuple[Step, Callable[[], int]]:
    """Build the return value of :meth:`OptimizerSpec.begin` from a function that computes phi and the new state."""

    def step(t: int, gradient: Tensor, lr: float) -> None:
        nonlocal state
        phi, state = update(gradient, state, optimizees.theta, t)
        optimizees.descend(phi, lr)

    return step, lambda: sum(value.nbytes for value in state.values())


@dataclass(frozen=True)
class RuleSpec:
    """An update rule."""

    rule: UpdateRule

    @property
    def fixed(self) -> Settings | None:
        """See :class:`OptimizerSpec`."""
        return None if self.rule.lr is None else {"lr": self.rule.lr}

    def identity(self) -> dict[str, Any]:
        """See :class:`OptimizerSpec`."""
        return {"rule": self.rule.digest}

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """See :class:`OptimizerSpec`. A rule that already contains a schedule gets no additional one."""
        if not full:
            return (_LR,)
        found, values = [_LR], {name: value for name, value in self.rule.values.items() if value is not None}
        found += [_momentum(name, values[name]) for name in ("beta1", "mu") if name in values]
        found += [_averaging("beta2", values["beta2"])] if "beta2" in values else []
        found += [_decay("wd", values["wd"])] if values.get("wd") else []
        return (*found, *(() if self.rule.needs_horizon else (_SCHEDULE,)))

    def check(self) -> None:
        """See :class:`OptimizerSpec`; a rule can always be used."""

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> tuple[Step, Callable[[], int]]:
        """See :class:`OptimizerSpec`; the rule's schedule spans ``steps``."""
        phi = _evaluator(self.rule, steps)
        values = {**phi.values, **{name: value for name, value in settings.items() if name in phi.values}}

        def update(gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
            (value,), state = phi.step(gradient, state, theta, t, values)
            return value, state

        return _moving(optimizees, phi.init(optimizees.theta), update)


_evaluator = functools.lru_cache(maxsize=64)(lambda rule, steps: evaluator(rule, torch, steps, hoist=True))


@dataclass(frozen=True)
class TorchSpec:
    """A PyTorch optimizer class.

    Attributes:
        source: Module (``torch.optim``, ``pytorch_optimizer``) or Python file that contains it.
        name: Name of the class.
        digest: SHA-256 of the file, or the version of the library.
    """

    source: str
    name: str
    digest: str

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
    def fixed(self) -> Settings | None:
        """See :class:`OptimizerSpec`."""
        lr = self._defaults.get("lr")
        return {"lr": float(lr)} if self.source.endswith(".py") and isinstance(lr, int | float) else None

    def identity(self) -> dict[str, Any]:
        """See :class:`OptimizerSpec`. A file is identified by its content, not by its path."""
        source = "file" if self.source.endswith(".py") else self.source
        return {"source": source, "class": self.name, "digest": self.digest}

    def space(self, full: bool) -> tuple[Dimension, ...]:
        """See :class:`OptimizerSpec`; weight decay is tuned if its default is not 0."""
        if not full:
            return (_LR,)
        defaults, found = self._defaults, [_LR]
        if "momentum" in defaults:
            found.append(_momentum("momentum", 0.0))
        betas = defaults.get("betas")
        if isinstance(betas, tuple) and len(betas) >= 2:
            found += [_momentum("beta1", betas[0]), _averaging("beta2", betas[1])]
        if isinstance(defaults.get("alpha"), float):  # torch.optim.RMSprop
            found.append(_averaging("alpha", defaults["alpha"]))
        if isinstance(defaults.get("weight_decay"), float) and defaults["weight_decay"]:
            found.append(_decay("weight_decay", defaults["weight_decay"]))
        return (*found, _SCHEDULE)

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
            self._make([parameter], {"lr": 0.01}, 10).step()
        except Exception as error:  # third-party classes can raise anything
            raise SolError(f"{self.name} cannot be compared: {type(error).__name__}: {error}") from None

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> tuple[Step, Callable[[], int]]:
        """See :class:`OptimizerSpec`. The class receives tensors in the model's shapes.

        Raises:
            SolError: There is more than one optimizee.
        """
        if optimizees.theta.shape[:2] != (1, 1):
            raise SolError(f"{self.name} supports only one optimizee at a time")
        parameters = [nn.Parameter(view.clone()) for view in optimizees.views(optimizees.theta[0, 0])]
        optimizer = self._make(parameters, settings, steps)

        def step(t: int, gradient: Tensor, lr: float) -> None:
            with torch.no_grad():
                for parameter, view, g in zip(
                    parameters, optimizees.views(optimizees.theta[0, 0]), optimizees.views(gradient[0, 0])
                ):
                    parameter.copy_(view)  # changes it only if the task projects
                    parameter.grad = g
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizees.place(torch.cat([p.detach().reshape(-1) for p in parameters]).view_as(optimizees.theta))

        return step, lambda: _state_bytes(optimizer)

    def _make(self, parameters: list[nn.Parameter], settings: Settings, steps: int) -> torch.optim.Optimizer:
        known = self._defaults
        arguments: dict[str, Any] = {name: value for name, value in settings.items() if name in known}
        if "beta1" in settings and "betas" in known:
            arguments["betas"] = (settings["beta1"], settings["beta2"], *known["betas"][2:])
        if "horizon" in known:
            arguments["horizon"] = steps
        return self.optimizer_class(parameters, **arguments)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Size in bytes of all state tensors, without scalar counters."""
    tensors = [value for state in optimizer.state.values() for value in state.values()]
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

    def begin(self, optimizees: Optimizees, settings: Settings, steps: int) -> tuple[Step, Callable[[], int]]:
        """See :class:`OptimizerSpec`."""
        runner = self.trained.network.to(optimizees.theta.device).runner()
        return _moving(optimizees, runner.begin(optimizees.theta, steps), runner.step)


@functools.lru_cache(maxsize=16)
def _load_lstm(folder: str, digest: str) -> TrainedLSTM:
    if _digest(Path(folder, LSTM_WEIGHTS)) != digest:
        raise SolError(f"the LSTM in {folder} changed during the comparison; run it again")
    return TrainedLSTM.load(folder)


@functools.lru_cache(maxsize=64)
def _load(source: str, name: str, digest: str) -> type[torch.optim.Optimizer]:
    if not source.endswith(".py"):
        return getattr(importlib.import_module(source), name)
    path = Path(source)
    if _digest(path) != digest:
        raise SolError(f"{path} changed during the comparison; run it again")
    spec = importlib.util.spec_from_file_location(f"sol_compared_{digest[:16]}", path)
    if spec is None or spec.loader is None:
        raise SolError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # third-party files can raise anything
        raise SolError(f"cannot import {path}: {type(error).__name__}: {error}") from None
    if not hasattr(module, name):
        kinds = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise SolError(f"{path} has no class {name!r}; available: {', '.join(kinds) or 'none'}")
    return getattr(module, name)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SolError(f"cannot read {path}: {error.strerror}") from None


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
    source, _, name = text.rpartition(":")
    if source in _LIBRARIES:
        return _of_library(_LIBRARIES[source], name)
    if source.endswith(".py"):
        spec = TorchSpec(str(Path(source).resolve()), name, _digest(Path(source)))
        spec.optimizer_class  # noqa: B018  (report import errors early)
        return spec
    if text.lower() in ZOO:
        return RuleSpec(ZOO[text.lower()])
    if text.lower() in (known.lower() for known in _classes("torch.optim")):
        return _of_library("torch.optim", text)
    if Path(text, LSTM_FILE).is_file():
        return LSTMSpec(str(Path(text).resolve()), _digest(Path(text, LSTM_WEIGHTS)))
    try:
        return RuleSpec(resolve_rule(text))
    except SolError as error:
        classes = "torch:NAME, pytorch_optimizer:NAME or FILE.py:CLASS"
        raise SolError(f"{error}\nTo use another optimizer, write {classes}") from None


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
