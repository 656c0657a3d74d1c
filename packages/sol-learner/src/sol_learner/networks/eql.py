"""The EQL network: a multilayer network whose units are operators, and its exact read-out as a rule.

One hidden layer maps features x (F of them) to units, and a linear read-out sums them:

    z = W x,    h_j = f_j(z_j) or f_j(z_j, z_j'),    phi = sum_j a_j h_j.

More layers repeat the first line on h. Unit j has one row of W for each argument of its operator. Source:
Sahoo, Lampert, Martius, "Learning equations for extrapolation and control", ICML 2018; SOL, ECCV 2024, eq. 3.

With gates, each weight is multiplied by a hard-concrete gate (Louizos, Welling, Kingma, ICLR 2018, eq. 10-13)

    z = min(1, max(0, s (zeta - gamma) + gamma)),   s = sigmoid((log u - log(1 - u) + log_alpha) / beta),

u uniform in (0, 1) while training, z at s = sigmoid(log_alpha) otherwise, which is exactly 0 or 1 at the ends.

As the optimizer of optimizees, :class:`NetworkOptimizer` computes features, phi and states of every coordinate at every
inner step. Two implementations give the same numbers. Eager tensor operations process the coordinates in chunks whose
temporaries stay in the processor's cache. A compiled kernel reads each coordinate once, which is many times faster: C
code on the CPU (:mod:`sol_learner.networks.native`), ``torch.compile`` on other devices
(:mod:`sol_learner.networks.fused`). Everything that changes between steps (decays, bias corrections, weights) is
passed as numbers, so the kernel is compiled once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import final

import sympy
import torch
from torch import Tensor, nn

from sol_learner.networks.base import KERNELS, NetworkRunner, State, UpdateNetwork
from sol_learner.networks.differentiable import DIFFERENTIABLE
from sol_learner.networks.fused import Kernel, fused_kernel
from sol_learner.networks.native import NativeKernel
from sol_symbols import (
    OPERATORS,
    STANDARD,
    Evaluator,
    RuleError,
    SolError,
    UpdateRule,
    Vocabulary,
    feature_evaluator,
    format_expression,
    symbol,
)
from sol_symbols.evaluation import array_function

__all__ = ["FEATURES", "UNITS", "NetworkOptimizer", "SymbolicNetwork"]

FEATURES = (
    "g",
    "g2",
    "g3",
    "ag",
    "m_hat",
    "sqrt(v_hat)",
    "sign(g)",
    "sign(m)",
    "ad",
    "rs",
    "ld",
    "cd",
    "1",
    "2",
)
"""The 14 input features of the SOL paper."""

UNITS = ("identity*2", "square", "mul*3", "sign", "exp")
"""Default units of a hidden layer, by operator name."""

_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1  # Louizos et al.'s
_OPEN, _CARRIER = 3.0, 10.0  # log_alpha of a gate at first: its mean is 1, and the start rule's gate never shuts

_CHUNK = 1 << 15  # coordinates evaluated at once: temporaries then stay within the processor's cache
_PULLED = 1 << 17  # steps times coordinates differentiated at once: smaller chunks start too many operations


class SymbolicNetwork(UpdateNetwork):
    """phi(x; w), elementwise over coordinates.

    Args:
        start: The rule that the network equals before any training. An expression that is not among the features is
            added to them.
        features: Input features as expressions of ``vocabulary``.
        units: Operator names of each hidden layer; ``"mul*3"`` stands for three of a kind.
        gates: Whether weights have hard-concrete gates.
        scale: Standard deviation of the hidden weights that do not carry the start rule.
        generator: For the initial weights.
        vocabulary: Defines the names.

    Raises:
        RuleError: A feature cannot be read, or a unit is not in the operator table.
    """

    def __init__(
        self,
        start: UpdateRule,
        features: Sequence[str] = FEATURES,
        units: Sequence[Sequence[str]] = (UNITS,),
        gates: bool = False,
        scale: float = 0.1,
        generator: torch.Generator | None = None,
        vocabulary: Vocabulary = STANDARD,
    ) -> None:
        super().__init__()
        self.vocabulary, self.start = vocabulary, start
        self.features = [vocabulary.parse(text) for text in features]
        if start.expression not in self.features:
            self.features.append(start.expression)
        self.units = [_unit_names(layer) for layer in units]
        self.operators = [[OPERATORS[name] for name in layer] for layer in self.units]
        self.functions = [[array_function(operator, torch) for operator in layer] for layer in self.operators]
        width, carrier = len(self.features), self.features.index(start.expression)
        weights, logits = [], []
        for layer, names in zip(self.operators, self.units):
            rows = sum(operator.arity for operator in layer)
            weight = scale * torch.randn(rows, width, generator=generator)
            first = names.index("identity")
            row = sum(operator.arity for operator in layer[:first])
            weight[row] = 0
            weight[row, carrier] = 1
            weights.append(weight)
            logits.append(torch.full_like(weight, _OPEN))
            logits[-1][row, carrier] = _CARRIER
            width, carrier = len(layer), first
        readout = torch.zeros(width)
        readout[carrier] = 1
        self.hidden = nn.ParameterList(weights)
        self.readout = nn.Parameter(readout)
        logits.append(torch.full_like(readout, _OPEN))
        logits[-1][carrier] = _CARRIER
        self.gates = nn.ParameterList(logits if gates else [])
        self._noise: list[Tensor] = []

    def sample_gates(self, generator: torch.Generator) -> None:
        """Draw new random gates, used until the next call or :meth:`use_mean_gates`; nothing without gates."""
        self._noise = [torch.rand(gate.shape, generator=generator).to(gate.device) for gate in self.gates]

    def use_mean_gates(self) -> None:
        """Use the gates' deterministic values, as the read-out does."""
        self._noise = []

    def share_gates(self, other: UpdateNetwork) -> None:
        """Use the random gates that ``other``, a copy of this network, has drawn."""
        assert isinstance(other, SymbolicNetwork)
        self._noise = other._noise

    def open_gates(self) -> Tensor:
        """Expected share of gates that are not exactly 0, a scalar; 1 without gates."""
        if not len(self.gates):
            return self.readout.new_ones(())
        logits = torch.cat([gate.reshape(-1) for gate in self.gates])
        return torch.sigmoid(logits - _BETA * math.log(-_GAMMA / _ZETA)).mean()

    def runner(self, kernel: str = "eager") -> NetworkOptimizer:
        """The network as the optimizer of optimizees."""
        return NetworkOptimizer(self, kernel)

    @torch.no_grad()
    def extremes(self, features: Tensor) -> dict[str, float | str]:
        """See :meth:`UpdateNetwork.extremes`; an update that is not a number counts as infinite."""
        update = self(features).abs().nan_to_num(nan=math.inf, posinf=math.inf).max()
        sizes = features.abs().flatten(1).nan_to_num(nan=math.inf, posinf=math.inf).amax(1)
        largest = max((i for i, f in enumerate(self.features) if not f.is_number), key=lambda i: sizes[i])
        name = format_expression(self.features[largest])
        return {"feature": name, "size": float(sizes[largest]), "update": float(update)}

    def weights(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The weights in effect, of each hidden layer and of the read-out: gates multiplied in, in ``dtype``."""
        weights = [weight.to(dtype or weight.dtype) for weight in (*self.hidden, self.readout)]
        if not len(self.gates):
            return weights
        noise: Sequence[Tensor | None] = self._noise or [None] * len(weights)
        gates = [_stretch(logit.to(dtype or logit.dtype), draw) for logit, draw in zip(self.gates, noise)]
        return [weight * gate for weight, gate in zip(weights, gates)]

    def forward(self, features: Tensor) -> Tensor:
        """phi, shape [...], of features stacked along the first axis, shape [F, ...]."""
        shape = features.shape[1:]
        h = features.reshape(features.shape[0], -1)
        *hidden, readout = self.weights(features.dtype)
        for weight, functions, operators in zip(hidden, self.functions, self.operators):
            rows = iter((weight @ h).unbind(0))
            h = torch.stack([f(*(next(rows) for _ in range(o.arity))) for f, o in zip(functions, operators)])
        return (readout @ h).view(shape)

    def expression(self) -> sympy.Expr:
        """phi as a formula over the features, exact: every weight, with all its digits."""
        h = self.features
        *hidden, readout = self.weights(torch.float64)
        for weight, operators in zip(hidden, self.operators):
            rows = iter([_linear(row, h) for row in weight.tolist()])
            h = [operator(*(next(rows) for _ in range(operator.arity))) for operator in operators]
        return _linear(readout.tolist(), h)

    def rule(self, lr: float, horizon: int | None = None) -> UpdateRule:
        """The network as a rule; it equals the network up to rounding (1e-6 relative in float64)."""
        values = {**self.start.values, "T": horizon}
        return UpdateRule(self.expression(), values, lr=lr, vocabulary=self.vocabulary)

    def values(self) -> dict[str, float]:
        """Hyperparameters that the features are computed with."""
        defaults = {n: h.default for n, h in self.vocabulary.hyperparameters.items() if h.default is not None}
        return {**defaults, **{n: v for n, v in self.start.values.items() if v is not None}}


def _linear(weights: list[float], inputs: list[sympy.Expr]) -> sympy.Expr:
    return sympy.Add(*(sympy.Float(weight) * value for weight, value in zip(weights, inputs, strict=True) if weight))


def _stretch(logit: Tensor, noise: Tensor | None) -> Tensor:
    """A hard-concrete gate; deterministic without noise."""
    s = torch.sigmoid(logit if noise is None else (torch.logit(noise, eps=1e-6) + logit) / _BETA)
    return (s * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _unit_names(layer: Sequence[str]) -> tuple[str, ...]:
    """Operator names of a layer, multiplicities written out."""
    names: list[str] = []
    for text in layer:
        name, _, count = text.partition("*")
        if name not in OPERATORS:
            raise RuleError(f"{name!r} is not an operator; operators: {', '.join(OPERATORS)}")
        if count and not (count.isdecimal() and int(count)):
            raise RuleError(f"{text!r} is not a unit; use mul or mul*3")
        names += [name] * int(count or 1)
    if "identity" not in names:
        raise RuleError("every layer needs an identity unit, which carries the start rule")
    return tuple(names)


@final
class NetworkOptimizer(NetworkRunner):
    """Runs a network as the optimizer of optimizees: features, phi, states.

    Args:
        network: phi.
        kernel: ``"eager"``, or ``"compiled"``, which falls back to eager tensors without a compiler.

    Raises:
        SolError: Unknown kernel.
    """

    def __init__(self, network: SymbolicNetwork, kernel: str = "eager") -> None:
        if kernel not in KERNELS:
            raise SolError(f"no kernel {kernel!r}; kernels: {', '.join(KERNELS)}")
        self.network, self.values = network, network.values()
        self.features: Evaluator = feature_evaluator(network.features, network.vocabulary, torch)
        self._native: NativeKernel | None = None
        self._fused: Kernel | None = None
        if kernel == "compiled" and next(network.parameters()).device.type == "cpu":
            self._native = _native(network, self.features)
        elif kernel == "compiled":
            self._fused = fused_kernel(network, self.features)

    @property
    def kernel(self) -> str:
        """See :class:`NetworkRunner`; also ``"eager"`` if a requested kernel could not be compiled."""
        return "eager" if self._native is None and self._fused is None else "compiled"

    @cached_property
    def _recurrences(self) -> Evaluator:
        states = [symbol(name) for name in self.features.program.states]
        return feature_evaluator(states, self.network.vocabulary, torch)

    @cached_property
    def _smooth(self) -> Evaluator:
        return feature_evaluator(self.network.features, self.network.vocabulary, DIFFERENTIABLE)

    def begin(self, theta: Tensor, horizon: int) -> State:
        """States before the first step of an episode whose decays span ``horizon`` steps."""
        self.values["T"] = float(horizon)
        # As views of one dimension, like all later states: the fused kernel is compiled for them.
        flat = self.features.init(theta.reshape(-1))
        return {name: value.view_as(theta) for name, value in flat.items()}

    @torch.no_grad()
    def step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """See :class:`NetworkRunner`; all tensors of one shape."""
        flat = [gradient.reshape(-1), theta.reshape(-1), *(value.reshape(-1) for value in state.values())]
        results: list[Tensor] | None = None
        if self._native is not None and self._native.fits(*flat):
            results = self._native.step(flat, t, self.values)
        elif self._fused is not None:
            results = self._by_fused(self._fused, flat, self.features.scalars(t, self.values))
        if results is None:
            results = self._chunked(flat, self.features.scalars(t, self.values), list(state))
        phi, *new = (result.view_as(theta) for result in results)
        return phi, dict(zip(state, new))

    def differentiable_step(self, gradient: Tensor, state: State, theta: Tensor, t: int) -> tuple[Tensor, State]:
        """See :class:`NetworkRunner`; the derivative of sqrt at 0 is taken as 0, like those of sign and abs."""
        outputs, after = self._smooth.step(gradient, state, theta, t, self.values)
        return self.network(torch.stack(outputs)), after

    def vjp(
        self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int, cotangents: Tensor
    ) -> tuple[Tensor, ...]:
        """See :class:`NetworkRunner`. Neither features nor states depend on w: after the recurrences, steps and
        coordinates are taken in chunks of any shape."""
        if self._native is not None and self._native.fits(*gradients, *thetas, *state.values(), *cotangents):
            return self._native.vjp(gradients, thetas, list(state.values()), first, self.values, cotangents)
        states = list(self._states(gradients, thetas, state, first))
        table = [self.features.scalars(t, self.values) for t in range(first, first + len(gradients))]
        columns = {name: cotangents.new_tensor([row[name] for row in table]).unsqueeze(1) for name in table[0]}
        parameters, size = list(self.network.parameters()), gradients[0].numel()
        total = [torch.zeros_like(parameter) for parameter in parameters]
        height, width = max(1, _PULLED // size), min(size, _PULLED)
        for top in range(0, len(table), height):
            steps = slice(top, top + height)
            g, w = _flat(gradients[steps]), _flat(thetas[steps])
            old = {name: _flat([values[name] for values in states[steps]]) for name in state}
            weights, scalars = cotangents[steps].flatten(1), {name: column[steps] for name, column in columns.items()}
            for left in range(0, size, width):
                part = (slice(None), slice(left, left + width))
                outputs, _ = self.features.elementwise(
                    g[part], {name: value[part] for name, value in old.items()}, w[part], scalars
                )
                phi = self.network(torch.stack([output.expand_as(g[part]) for output in outputs]))
                for sum_, new in zip(total, torch.autograd.grad((weights[part] * phi).sum(), parameters)):
                    sum_ += new
        return tuple(total)

    def inputs(self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int) -> Tensor:
        """See :class:`NetworkRunner`."""
        *_, last = self._states(gradients, thetas, state, first)
        outputs, _ = self.features.step(gradients[-1], last, thetas[-1], first + len(gradients) - 1, self.values)
        return torch.stack(outputs)

    def _states(
        self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int
    ) -> Iterator[State]:
        """The states before each of these steps."""
        yield state
        for t, gradient, theta in zip(range(first, first + len(gradients) - 1), gradients, thetas):
            _, state = self._recurrences.step(gradient, state, theta, t, self.values)
            yield state

    def _by_fused(self, fused: Kernel, flat: list[Tensor], scalars: dict[str, float]) -> list[Tensor] | None:
        """Compute with PyTorch's compiler. If it fails, return ``None`` and do not try it again."""
        try:
            return fused(flat, scalars)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            self._fused = None
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"cannot compile the fused kernel, using eager tensors: {reason}", stacklevel=2)
            return None

    def _chunked(self, flat: list[Tensor], scalars: dict[str, float], names: list[str]) -> list[Tensor]:
        if len(flat[0]) <= _CHUNK:
            return self._evaluated(flat, scalars, names)
        results = [torch.empty_like(flat[0]) for _ in range(1 + len(names))]
        for start in range(0, len(flat[0]), _CHUNK):
            chunk = self._evaluated([value[start : start + _CHUNK] for value in flat], scalars, names)
            for result, value in zip(results, chunk):
                result[start : start + _CHUNK] = value
        return results

    def _evaluated(self, flat: list[Tensor], scalars: dict[str, float], names: list[str]) -> list[Tensor]:
        g, w, *old = flat
        outputs, after = self.features.elementwise(g, dict(zip(names, old)), w, scalars)
        return [self.network(torch.stack(outputs)), *after.values()]


def _flat(values: Sequence[Tensor]) -> Tensor:
    """[U, coordinates] of U tensors."""
    return torch.stack([value.reshape(-1) for value in values])


def _native(network: SymbolicNetwork, features: Evaluator) -> NativeKernel | None:
    """The network in C, or ``None`` if it cannot be compiled here."""
    try:
        return NativeKernel(network, features)
    except SolError as error:
        warnings.warn(f"cannot compile the kernel, using eager tensors: {error}", stacklevel=2)
        return None
