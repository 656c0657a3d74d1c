"""Running a network as an optimizer: features, phi and states of every coordinate at every inner step.

Two ways to the same numbers. Eager tensor operations go over the coordinates in chunks whose temporaries stay in the
processor's cache. A compiled kernel reads each coordinate once, which is many times faster: C code for coordinates on
the CPU (:mod:`sol_learner.networks.native`), ``torch.compile`` for those on other devices. All that changes from step
to step (decays, bias corrections, weights) enters as numbers, so that it is compiled once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sol_learner.networks.base import NetworkRunner, State
from sol_learner.networks.native import NativeKernel
from sol_symbols import Evaluator, SolError, feature_evaluator, symbol

if TYPE_CHECKING:
    from sol_learner.networks.eql import SymbolicNetwork

__all__ = ["KERNELS", "NetworkOptimizer"]

KERNELS = ("eager", "compiled")

_CHUNK = 1 << 15  # coordinates evaluated at once: temporaries then stay within the processor's cache
_PULLED = 1 << 17  # steps times coordinates differentiated at once: smaller chunks start too many operations


class _Differentiable(ModuleType):
    """PyTorch's functions, with the derivative of sqrt taken as 0 at 0.

    At a history of zeros Adam's denominator is sqrt(0), whose derivative is infinite; what it is multiplied by is 0.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        zero = x == 0
        return torch.where(zero, x, torch.sqrt(torch.where(zero, 1.0, x)))


_DIFFERENTIABLE = _Differentiable("torch")


@final
class NetworkOptimizer(NetworkRunner):
    """Runs a network as the optimizer of optimizees: features, phi, states.

    Args:
        network: phi.
        kernel: ``"eager"``, or ``"compiled"``, which falls back on eager tensors where there is no compiler.

    Raises:
        SolError: There is no such kernel.
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
            self._fused = _fused(network, self.features)

    @property
    def kernel(self) -> str:
        """See :class:`NetworkRunner`; ``"eager"`` also where a kernel was asked for and could not be compiled."""
        return "eager" if self._native is None and self._fused is None else "compiled"

    @cached_property
    def _recurrences(self) -> Evaluator:
        states = [symbol(name) for name in self.features.program.states]
        return feature_evaluator(states, self.network.vocabulary, torch)

    @cached_property
    def _smooth(self) -> Evaluator:
        return feature_evaluator(self.network.features, self.network.vocabulary, _DIFFERENTIABLE)

    def begin(self, theta: Tensor, horizon: int) -> State:
        """States before the first step of an episode whose decays are laid over ``horizon`` steps."""
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

    def pull_back(
        self, gradients: Sequence[Tensor], thetas: Sequence[Tensor], state: State, first: int, cotangents: Tensor
    ) -> tuple[Tensor, ...]:
        """See :class:`NetworkRunner`. Neither features nor states depend on w: after the recurrences, steps and
        coordinates are taken in chunks of any shape."""
        if self._native is not None and self._native.fits(*gradients, *thetas, *state.values(), *cotangents):
            return self._native.pull_back(gradients, thetas, list(state.values()), first, self.values, cotangents)
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
        """By PyTorch's compiler; nothing, then and ever after, where it fails."""
        try:
            return fused(flat, scalars)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            self._fused = None
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"no fused kernel on this machine, eager tensors are used: {reason}", stacklevel=2)
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
    """The network in C, or nothing where the machine cannot compile it."""
    try:
        return NativeKernel(network, features)
    except SolError as error:
        warnings.warn(f"no compiled kernel on this machine, eager tensors are used: {error}", stacklevel=2)
        return None


Kernel = Callable[[list[Tensor], dict[str, float]], list[Tensor]]


def _fused(network: SymbolicNetwork, features: Evaluator) -> Kernel:
    """A kernel by PyTorch's compiler over flat gradient, parameters and states."""
    names, varying = list(features.program.states), features.varying

    def formula(
        flat: list[Tensor], scalars: Tensor, weights: list[Tensor], bias: Tensor, keys: tuple[str, ...]
    ) -> list[Tensor]:
        g, w, *old = flat
        outputs, after = features.elementwise(g, dict(zip(names, old)), w, dict(zip(keys, scalars.unbind())))
        h = [outputs[i] for i in varying]
        starts: list[Tensor | None] = [*bias.unbind()]
        *hidden, readout = weights
        for weight, functions, operators in zip(hidden, network.functions, network.operators):
            rows = iter([_dot(row, h, start) for row, start in zip(weight.unbind(), starts)])
            h = [f(*(next(rows) for _ in range(o.arity))) for f, o in zip(functions, operators)]
            starts = [None] * sum(operator.arity for layer in network.operators for operator in layer)
        return [_dot(readout, h), *after.values()]

    compiled = torch.compile(formula, dynamic=True, fullgraph=True)

    def run(flat: list[Tensor], scalars: dict[str, float]) -> list[Tensor]:
        weights = [weight.detach() for weight in network.weights()]
        numbers = torch.tensor(list(scalars.values()), dtype=torch.float64, device=weights[0].device)
        # Features that are the same for all coordinates come down to one number for each row of the first layer.
        uniform = features.uniform(scalars)
        bias = weights[0] @ weights[0].new_tensor([uniform.get(i, 0.0) for i in range(len(network.features))])
        weights[0] = weights[0][:, list(varying)]
        return compiled(flat, numbers, weights, bias, tuple(scalars))

    return run


def _dot(weights: Tensor, inputs: list[Tensor], start: Tensor | None = None) -> Tensor:
    """start + sum_i weights_i inputs_i, each product and sum one operation of the processor."""
    first, *others = weights.unbind()
    total = first * inputs[0] if start is None else torch.addcmul(start, first, inputs[0])
    for weight, value in zip(others, inputs[1:]):
        total = torch.addcmul(total, weight, value)
    return total
