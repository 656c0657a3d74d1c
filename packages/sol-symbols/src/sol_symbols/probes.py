"""Trajectories to compare rules on: all kinds of gradients that break identities true for ordinary numbers.

Columns are coordinates: noise of scales 1e-30 to 1e30 with and without a mean, zeros, gradients that start or stop,
a single spike, constants, alternation, and values that flip their sign once. They are the same in every call. For
reductions, the columns of a scale are a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy
import sympy
from numpy.typing import NDArray

from sol_symbols.evaluation import Evaluator
from sol_symbols.kinds import Layout
from sol_symbols.program import lower_features
from sol_symbols.rule import UpdateRule

__all__ = ["HORIZON", "STEPS", "measure", "trajectories"]

STEPS = 20
HORIZON = 16
"""Shorter than the trajectories, which therefore also show a rule after its schedule has ended."""

Array = NDArray[numpy.float64]
_SHAPES = 15


def trajectories(scales: tuple[float, ...] = (1e-30, 1e-8, 1e-3, 1.0, 30.0, 1e8, 1e30)) -> tuple[Array, Array]:
    """Gradients and parameter values, both [STEPS, coordinates], around each of the ``scales``.

    All scales are in one optimizer: where a rule has reductions over all tensors, the largest decides.
    """
    generator = numpy.random.default_rng(0)
    ones, steps = numpy.ones(STEPS), numpy.arange(STEPS)
    shapes = [
        *generator.normal(size=(4, STEPS)),
        *(0.2 * generator.normal(size=(4, STEPS)) + generator.normal(size=(4, 1))),
        *(ones, -ones, (-1.0) ** steps, numpy.where(steps < 7, 1.0, -1.0)),
        *((steps == 5).astype(float), (steps < 5).astype(float), -(steps > 5).astype(float)),
    ]
    columns = [0 * ones, *(scale * shape for scale in scales for shape in shapes)]
    gradients = numpy.stack(columns, axis=1)
    assert len(shapes) == _SHAPES
    return gradients, generator.normal(size=gradients.shape)


def _layout(coordinates: int) -> Layout:
    """The tensors of the trajectories: that of zeros, and one for each scale, every other one a matrix."""
    count = (coordinates - 1) // _SHAPES
    return Layout(((1,), *((3, 5) if i % 2 else (_SHAPES,) for i in range(count))))


def measure(
    rule: UpdateRule,
    expressions: Sequence[sympy.Expr],
    gradients: Array,
    parameters: Array,
    scale: float | Array = 1.0,
    others: Mapping[str, float] = MappingProxyType({}),
) -> Array:
    """``expressions`` over the rule's vocabulary and values along the trajectories, [expressions, STEPS, coordinates].

    The horizon of schedules is :data:`HORIZON` steps. Losses are some positive numbers times ``scale``. Runs that know
    nothing of each other can have an axis before that of the coordinates; ``scale`` then has one number for each. The
    values in ``others`` replace those of the rule.
    """
    program = lower_features(tuple(expressions), rule.vocabulary)
    evaluator = Evaluator(program, numpy, _layout(gradients.shape[-1]) if program.reduces else None)
    defaults = {name: h.default for name, h in rule.vocabulary.hyperparameters.items()}
    values, state, steps = {**defaults, **rule.values, **others, "T": float(HORIZON)}, evaluator.init(gradients[0]), []
    with numpy.errstate(all="ignore"):
        for t, (g, w) in enumerate(zip(gradients, parameters), start=1):
            outputs, state = evaluator.step(g, state, w, t, values, scale * (0.5 + t % 7))
            steps.append(numpy.stack(outputs))
    return numpy.stack(steps, axis=1)
