"""The EQL network as one kernel of PyTorch's compiler, for coordinates on devices other than the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sol_learner.networks.base import EQLLayers
from sol_symbols import Evaluator

__all__ = ["Kernel", "fused_kernel"]

Kernel = Callable[[list[Tensor], dict[str, float]], list[Tensor]]


def fused_kernel(network: EQLLayers, features: Evaluator) -> Kernel:
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
        # Features that are the same for all coordinates reduce to one number per row of the first layer.
        uniform = features.uniform(scalars)
        bias = weights[0] @ weights[0].new_tensor([uniform.get(i, 0.0) for i in range(len(network.features))])
        weights[0] = weights[0][:, list(varying)]
        return compiled(flat, numbers, weights, bias, tuple(scalars))

    return run


def _dot(weights: Tensor, inputs: list[Tensor], start: Tensor | None = None) -> Tensor:
    """start + sum_i weights_i inputs_i, each product and sum in one processor instruction."""
    first, *others = weights.unbind()
    total = first * inputs[0] if start is None else torch.addcmul(start, first, inputs[0])
    for weight, value in zip(others, inputs[1:]):
        total = torch.addcmul(total, weight, value)
    return total
