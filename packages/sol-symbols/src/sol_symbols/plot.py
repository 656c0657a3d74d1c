"""A picture of a rule: its response to this step's gradient and to the momentum behind it, and its schedule.

All gradients have root mean square 1 (times ``scale``), so that v hardly moves while the momentum does: the history
before the step shown is g_i = scale (mu + (-1)^i sqrt(1 - mu^2)), whose mean is mu and whose mean square is 1.

The panels show phi over this step's gradient, for histories of mean -0.9, 0 and 0.9; phi over the mean of the history,
for gradients -1, 0 and 1; and phi over the steps, for a steady gradient and for one whose sign alternates.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from sol_symbols.errors import RuleError, SolError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sol_symbols.rule import UpdateRule

__all__ = ["draw"]

_BLUE, _GREY, _RED = "#1f5fa8", "#6b6b6b", "#c0392b"
_POINTS = 241
_DEFAULT_STEPS = 100


def draw(rule: UpdateRule, path: str | Path | None = None, scale: float = 1.0) -> Figure:
    """See :meth:`sol_symbols.UpdateRule.plot`."""
    if not (numpy.isfinite(scale) and scale > 0):
        raise RuleError(f"the gradients' scale, {scale!r}, is not a positive number")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SolError('drawing needs matplotlib: pip install "sol-symbols[plot]"') from None
    steps = int(rule.horizon or _DEFAULT_STEPS)
    steps = min(steps, 10 * _DEFAULT_STEPS)  # the picture of a longer run is laid over as many steps
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.set_ylabel("update φ; the optimizer subtracts lr · φ")
    _response_to_gradient(left, rule, scale, steps)
    _response_to_momentum(middle, rule, scale, steps)
    _schedule(right, rule, scale, steps)
    formula = str(rule.simplified(3).expression) if len(str(rule)) > 200 else str(rule)
    title = (f"{rule.name}:  " if rule.name else "") + f"φ = {formula}"
    figure.suptitle(textwrap.fill(textwrap.shorten(title, 330, placeholder=" ..."), 130), fontsize=10)
    if path is not None:
        try:
            figure.savefig(path, dpi=130)
        except (OSError, ValueError) as error:
            raise SolError(f"cannot draw into {path}: {error}") from None
    return figure


def _history(mean: Any, steps: int, scale: float) -> numpy.ndarray:
    """Gradients of the given mean(s) and of root mean square 1, [steps, coordinates], times ``scale``."""
    mean = numpy.atleast_1d(numpy.asarray(mean, float))
    signs = (-1.0) ** numpy.arange(steps, 0, -1)[:, None]  # the last one before the step shown is the lower one
    return scale * (mean + signs * numpy.sqrt(1 - mean**2))


def _last(rule: UpdateRule, gradients: numpy.ndarray, steps: int) -> numpy.ndarray:
    """phi at the end of the gradients, [coordinates]; the parameter's value is 0."""
    return rule.evaluate(gradients, 0.0, steps if rule.needs_horizon else None)[-1]


def _response_to_gradient(axes: Axes, rule: UpdateRule, scale: float, steps: int) -> None:
    g = numpy.linspace(-3, 3, _POINTS)
    for mean, color, style in ((0.9, _BLUE, "-"), (0.0, _GREY, "--"), (-0.9, _RED, ":")):
        past = numpy.repeat(_history(mean, steps // 2, scale), _POINTS, axis=1)
        phi = _last(rule, numpy.vstack([past, scale * g]), steps)
        axes.plot(scale * g, _gaps(phi), style, color=color, linewidth=2, label=f"{mean * scale:.3g}")
    _finish(axes, "gradient of this step, g", "mean of past gradients", f"step {steps // 2 + 1} of {steps}")


def _response_to_momentum(axes: Axes, rule: UpdateRule, scale: float, steps: int) -> None:
    mean = numpy.linspace(-1, 1, _POINTS)
    past = _history(mean, steps // 2, scale)
    for g, color, style in ((1.0, _BLUE, "-"), (0.0, _GREY, "--"), (-1.0, _RED, ":")):
        phi = _last(rule, numpy.vstack([past, numpy.full_like(past[:1], g * scale)]), steps)
        axes.plot(scale * mean, _gaps(phi), style, color=color, linewidth=2, label=f"{g * scale:.3g}")
    _finish(axes, "mean of past gradients (momentum)", "gradient of this step", f"step {steps // 2 + 1} of {steps}")


def _schedule(axes: Axes, rule: UpdateRule, scale: float, steps: int) -> None:
    t = numpy.arange(1, steps + 1)
    horizon = steps if rule.needs_horizon else None
    for signs, color, style, name in (
        (numpy.ones(steps), _BLUE, "-", "steady"),
        ((-1.0) ** (t - 1), _GREY, "--", "alternating, at its +"),
    ):
        phi = rule.evaluate(scale * signs[:, None], 0.0, horizon)[:, 0]
        shown = signs > 0
        phi = numpy.where(numpy.abs(phi) < 1e100, phi, numpy.nan)
        axes.plot(t[shown] / steps, phi[shown], style, color=color, linewidth=2, label=name)
    _finish(axes, f"t/T, with T = {steps}", f"gradients of size {scale:g}", "over the run")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(0.0, axes.get_ylim()[1]))


def _gaps(phi: numpy.ndarray) -> numpy.ndarray:
    """Jumps, such as those of a sign, and what is not finite as gaps in the line."""
    phi = numpy.where(numpy.abs(phi) < 1e100, phi, numpy.nan)
    if numpy.isnan(phi).all():
        return phi
    step = numpy.nan_to_num(numpy.abs(numpy.diff(phi)))
    jumps = numpy.flatnonzero(step > 20 * numpy.median(step) + 0.05 * numpy.nanmax(numpy.abs(phi)))
    phi[jumps + 1] = numpy.nan
    return phi


def _finish(axes: Axes, label: str, legend: str, title: str) -> None:
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=10)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    place = (0.5, -0.17)  # below, where no line can run
    axes.legend(
        title=legend, loc="upper center", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=9, title_fontsize=9
    )
