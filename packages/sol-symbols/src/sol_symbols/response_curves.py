"""Curves of a rule's response to the current gradient, to the momentum, and over its schedule.

All gradients have root mean square 1 (times ``scale``): v hardly changes while the momentum does. The history before
the step shown is g_i = scale (mu + (-1)^i sqrt(1 - mu^2)), with mean mu and mean square 1, times the scale.

A rule with reductions sees each coordinate shown in an optimizer of its own, with one tensor: a vector, whose other
coordinates have gradients that are noise of the same size. Titles say so where matrices would have other curves.

The panels show phi over this step's gradient, for histories of mean -0.9, 0 and 0.9; phi over the mean of the history,
for gradients -1, 0 and 1; and phi over the steps, for a steady gradient and for one whose sign alternates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from sol_symbols.errors import RuleError
from sol_symbols.kinds import Layout
from sol_symbols.rule import UpdateRule, checked_rule, lower

__all__ = ["Line", "Panel", "responses"]

_POINTS = 241
_DEFAULT_STEPS = 100
_OTHERS = 15
_LARGEST = 1e100  # of what is drawn
_BY_SHAPE = {"matrices", "vectors", "orth", "fan_in", "is_vector"}


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: Its difference from the other lines.
        x: Abscissae, [n].
        phi: Ordinates, [n]; nan at gaps: at jumps and where phi is not finite.
    """

    label: str
    x: numpy.ndarray
    phi: numpy.ndarray


@dataclass(frozen=True)
class Panel:
    """One panel of curves of phi.

    Attributes:
        title: The step or steps shown, and "for vectors" if the rule distinguishes them from matrices.
        axis: Label of the abscissa.
        legend: Title of the lines' labels.
        lines: The lines, at most three.
        from_zero: Whether the axis always includes phi = 0.
    """

    title: str
    axis: str
    legend: str
    lines: tuple[Line, ...]
    from_zero: bool = False


def responses(rule: UpdateRule, scale: float = 1.0) -> tuple[Panel, Panel, Panel]:
    """phi over this step's gradient, over the mean of past gradients, and over t/T.

    The parameter's value is 0, and the loss, if the rule uses it, 1.

    Args:
        rule: The rule. An open horizon counts as 100 steps, one above 1,000 as 1,000.
        scale: Root mean square of the gradients.

    Raises:
        RuleError: The scale is not a positive number, or is 1e100 or more.

    >>> from sol_symbols import ZOO
    >>> schedule = responses(ZOO["powersign-ld"])[2]
    >>> schedule.axis, [line.label for line in schedule.lines]
    ('t/T, with T = 100', ['steady', 'alternating, at its +'])
    """
    rule = checked_rule(rule)
    if not 0 < scale < _LARGEST:
        raise RuleError(f"scale must be a positive number below {_LARGEST:g}, got {scale!r}")
    steps = min(int(rule.horizon or _DEFAULT_STEPS), 10 * _DEFAULT_STEPS)
    return _to_gradient(rule, scale, steps), _to_momentum(rule, scale, steps), _schedule(rule, scale, steps)


def _history(mean: Any, steps: int, scale: float) -> numpy.ndarray:
    """Gradients of the given mean(s) and of root mean square 1, [steps, coordinates], times ``scale``."""
    mean = numpy.atleast_1d(numpy.asarray(mean, float))
    signs = (-1.0) ** numpy.arange(steps, 0, -1)[:, None]  # the last one before the step shown is the lower
    return scale * (mean + signs * numpy.sqrt(1 - mean**2))


def _last(rule: UpdateRule, gradients: numpy.ndarray, steps: int, scale: float) -> numpy.ndarray:
    """phi at the end of the gradients, [coordinates]."""
    return _along(rule, gradients, steps if rule.needs_horizon else None, scale)[-1]


def _along(rule: UpdateRule, gradients: numpy.ndarray, horizon: float | None, scale: float) -> numpy.ndarray:
    """phi along the gradients, which are of size ``scale``, [steps, coordinates]."""
    if not lower(rule).reduces:
        return rule.evaluate(gradients, 0.0, horizon)
    steps, count = gradients.shape
    losses = numpy.ones(steps)
    noise = scale * numpy.random.default_rng(0).normal(size=(steps, 1, _OTHERS))
    tensors = numpy.concatenate([gradients[..., None], numpy.repeat(noise, count, axis=1)], axis=2)
    phi = rule.evaluate(tensors, 0.0, horizon, Layout(((1 + _OTHERS,),)), losses)  # an optimizer for each coordinate
    return numpy.asarray(phi[..., 0])


def _title(rule: UpdateRule, shown: str) -> str:
    names = {operator.name for operator in rule.calls} | {entry.name for entry in rule.inputs}
    return shown if names.isdisjoint(_BY_SHAPE) else f"{shown}, for vectors"


def _to_gradient(rule: UpdateRule, scale: float, steps: int) -> Panel:
    g, lines = numpy.linspace(-3, 3, _POINTS), []
    for mean in (0.9, 0.0, -0.9):
        past = numpy.repeat(_history(mean, steps // 2, scale), _POINTS, axis=1)
        phi = _last(rule, numpy.vstack([past, scale * g]), steps, scale)
        lines.append(Line(f"{mean * scale:.3g}", scale * g, _gaps(phi)))
    title = _title(rule, f"step {steps // 2 + 1} of {steps}")
    return Panel(title, "gradient of this step, g", "mean of past gradients", tuple(lines))


def _to_momentum(rule: UpdateRule, scale: float, steps: int) -> Panel:
    mean, lines = numpy.linspace(-1, 1, _POINTS), []
    past = _history(mean, steps // 2, scale)
    for g in (1.0, 0.0, -1.0):
        phi = _last(rule, numpy.vstack([past, numpy.full_like(past[:1], g * scale)]), steps, scale)
        lines.append(Line(f"{g * scale:.3g}", scale * mean, _gaps(phi)))
    title = _title(rule, f"step {steps // 2 + 1} of {steps}")
    return Panel(title, "mean of past gradients (momentum)", "gradient of this step", tuple(lines))


def _schedule(rule: UpdateRule, scale: float, steps: int) -> Panel:
    t, lines = numpy.arange(1, steps + 1), []
    horizon = steps if rule.needs_horizon else None
    for signs, label in ((numpy.ones(steps), "steady"), ((-1.0) ** (t - 1), "alternating, at its +")):
        phi = _along(rule, scale * signs[:, None], horizon, scale)[:, 0]
        shown = signs > 0
        lines.append(Line(label, (t / steps)[shown], _finite(phi)[shown]))
    axis, legend = f"t/T, with T = {steps}", f"gradients of size {scale:g}"
    return Panel(_title(rule, "over the run"), axis, legend, tuple(lines), from_zero=True)


def _finite(phi: numpy.ndarray) -> numpy.ndarray:
    return numpy.where(numpy.abs(phi) < _LARGEST, phi, numpy.nan)


def _gaps(phi: numpy.ndarray) -> numpy.ndarray:
    """Gaps at jumps, such as those of a sign, and where phi is not finite."""
    phi = _finite(phi)
    if numpy.isnan(phi).all():
        return phi
    step = numpy.nan_to_num(numpy.abs(numpy.diff(phi)))
    jumps = numpy.flatnonzero(step > 20 * numpy.median(step) + 0.05 * numpy.nanmax(numpy.abs(phi)))
    phi[jumps + 1] = numpy.nan
    return phi
