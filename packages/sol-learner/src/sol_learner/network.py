"""The EQL network: a multilayer network whose units are operators, and its exact read-out as a rule.

One hidden layer maps features x (F of them) to units, and a linear read-out sums them:

    z = W x,    h_j = f_j(z_j) or f_j(z_j, z_j'),    phi = sum_j a_j h_j.

More layers repeat the first line on h. Unit j takes as many rows of W as its operator takes arguments. Source:
Sahoo, Lampert, Martius, "Learning equations for extrapolation and control", ICML 2018; SOL, ECCV 2024, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy
import torch
from torch import Tensor, nn

from sol_symbols import OPERATORS, STANDARD, RuleError, UpdateRule, Vocabulary
from sol_symbols.evaluate import array_function

__all__ = ["FEATURES", "UNITS", "SymbolicNetwork"]

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

UNITS = ("identity", "identity", "square", "mul", "mul", "mul", "sign", "exp")
"""Default units of a hidden layer, by operator name."""


class SymbolicNetwork(nn.Module):
    """phi(x; w), elementwise over coordinates.

    Args:
        start: The rule that the network equals before any training. An expression that is not among the features is
            added to them.
        features: Input features as expressions of ``vocabulary``.
        units: Operator names of each hidden layer.
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
        scale: float = 0.1,
        generator: torch.Generator | None = None,
        vocabulary: Vocabulary = STANDARD,
    ) -> None:
        super().__init__()
        for name in (unit for layer in units for unit in layer):
            if name not in OPERATORS:
                raise RuleError(f"{name!r} is not an operator; operators: {', '.join(OPERATORS)}")
            if "identity" not in next(layer for layer in units if name in layer):
                raise RuleError("every layer needs an identity unit, which carries the start rule")
        self.vocabulary = vocabulary
        self.features = [vocabulary.parse(text) for text in features]
        if start.expression not in self.features:
            self.features.append(start.expression)
        self.start = start
        self.units = [tuple(layer) for layer in units]
        self._operators = [[OPERATORS[name] for name in layer] for layer in self.units]
        self._functions = [[array_function(operator, torch) for operator in layer] for layer in self._operators]
        width, carrier = len(self.features), self.features.index(start.expression)
        weights = []
        for layer in self._operators:
            rows = sum(operator.arity for operator in layer)
            weight = scale * torch.randn(rows, width, generator=generator)
            row = sum(operator.arity for operator in layer[: [o.name for o in layer].index("identity")])
            weight[row] = 0
            weight[row, carrier] = 1
            weights.append(nn.Parameter(weight))
            width, carrier = len(layer), [operator.name for operator in layer].index("identity")
        self.hidden = nn.ParameterList(weights)
        readout = torch.zeros(width)
        readout[carrier] = 1
        self.readout = nn.Parameter(readout)

    def forward(self, features: Tensor) -> Tensor:
        """phi, shape [...], of features stacked along the first axis, shape [F, ...]."""
        shape = features.shape[1:]
        h = features.reshape(features.shape[0], -1)
        for weight, functions, operators in zip(self.hidden, self._functions, self._operators):
            rows = iter((weight @ h).unbind(0))
            h = torch.stack([f(*(next(rows) for _ in range(o.arity))) for f, o in zip(functions, operators)])
        return (self.readout @ h).view(shape)

    def expression(self) -> sympy.Expr:
        """phi as a formula over the features, nothing dropped: every weight enters with all its digits."""
        h = self.features
        for weight, operators in zip(self.hidden, self._operators):
            rows = iter([_linear(row, h) for row in weight.tolist()])
            h = [operator(*(next(rows) for _ in range(operator.arity))) for operator in operators]
        return _linear(self.readout.tolist(), h)

    def rule(self, lr: float, horizon: int) -> UpdateRule:
        """The network as a rule; it equals the network up to rounding (1e-6 relative in float64)."""
        values = {**self.start.values, "T": horizon}
        return UpdateRule(self.expression(), values, lr=lr, vocabulary=self.vocabulary)

    def values(self, horizon: int) -> dict[str, float]:
        """Hyperparameters that the features are computed with."""
        defaults = {n: h.default for n, h in self.vocabulary.hyperparameters.items() if h.default is not None}
        return {**defaults, **{n: v for n, v in self.start.values.items() if v is not None}, "T": float(horizon)}


def _linear(weights: list[float], inputs: list[sympy.Expr]) -> sympy.Expr:
    return sympy.Add(*(sympy.Float(weight) * value for weight, value in zip(weights, inputs, strict=True) if weight))
