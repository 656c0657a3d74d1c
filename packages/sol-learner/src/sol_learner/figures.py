"""Figures of a run as PNG: the front and the training curves of a comparison."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import torch

from sol_learner.comparing.comparison import Comparison
from sol_learner.search.front import FrontPoint
from sol_symbols import UpdateRule, format_expression, round_constants
from sol_symbols.escaping import escaped

__all__ = ["curves_png", "front_png"]


def _figure() -> tuple[Any, Any]:
    """A canvas and its axes; matplotlib is imported only when a figure is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    return FigureCanvasAgg(figure), figure.add_subplot()


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def front_png(front: Sequence[FrontPoint], chosen: UpdateRule) -> bytes:
    """PNG of loss vs. length: one dot per rule, a line through those that beat all shorter rules."""
    canvas, axes = _figure()
    points = sorted(front, key=lambda point: (point.terms, -point.loss))
    best = [p for p in points if p.loss <= min(q.loss for q in points if q.terms <= p.terms)]
    axes.plot([p.terms for p in best], [p.loss for p in best], drawstyle="steps-post", alpha=0.5, color="C0")
    axes.scatter([p.terms for p in points], [p.loss for p in points], color="C0", zorder=3)
    mine = [point for point in points if point.rule == chosen]
    axes.scatter(
        [p.terms for p in mine],
        [p.loss for p in mine],
        s=120,
        facecolor="none",
        edgecolor="C3",
        label="selected rule",
        zorder=4,
    )
    axes.set_xlabel("additive terms in the formula")
    axes.set_ylabel("objective on validation seeds")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if mine:
        axes.legend(frameon=False)
    return _png(canvas)


def curves_png(comparison: Comparison, rule: UpdateRule) -> bytes:
    """PNG of the batch loss vs. step: mean over held-out seeds with a band of one standard deviation."""
    canvas, axes = _figure()
    table = [optimizer.curve for optimizer in comparison.ranked]
    most = 10 * max((abs(float(mean[0])) for mean, _, _ in table if mean[0].isfinite()), default=math.inf)
    table = [(mean.where(mean.abs() < most, math.nan), spread, runs) for mean, spread, runs in table]  # clip divergence
    values = torch.cat([mean[mean.isfinite()] for mean, _, _ in table])
    lowest = float(values.min()) if len(values) else 0.0
    if lowest > 0:
        axes.set_yscale("log")
    for optimizer, (mean, spread, _) in zip(comparison.ranked, table):
        steps = range(1, len(mean) + 1)
        tuned = "tuned " if optimizer.tuning else ""
        final = optimizer.metric("train", "loss")
        final = final[final.isfinite()]
        spread_at_end = float(final.std(correction=1)) if len(final) > 1 else 0.0
        notes = [f"{final.mean():.3f} ± {spread_at_end:.3f} final training loss"] * bool(len(final))
        notes += [f"{len(optimizer.diverged)} of {comparison.episodes} runs diverged"] * bool(optimizer.diverged)
        label = escaped(f"{tuned}{optimizer.name} (lr {optimizer.lr:.3g}): {'; '.join(notes)}", "plot")
        lower = (mean - spread).clamp(min=lowest / 2) if lowest > 0 else mean - spread
        (line,) = axes.plot(steps, mean, label=label, linewidth=1.8 if optimizer is comparison.optimizers[0] else 1.2)
        axes.fill_between(steps, lower, mean + spread, color=line.get_color(), alpha=0.15)
    axes.set_xlabel("inner step")
    axes.set_ylabel("training batch loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, title=f"mean ± standard deviation over {comparison.episodes} held-out seeds")
    title = "\n".join(textwrap.wrap(f"φ = {format_expression(round_constants(rule, 3).expression)}", 90))
    axes.set_title(f"{escaped(comparison.task, 'plot')}\n{title}", fontsize=9)
    return _png(canvas)
