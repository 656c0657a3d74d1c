"""Plots of a rule's response curves, with matplotlib."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from sol_symbols.errors import SolError
from sol_symbols.escaping import escaped
from sol_symbols.files import write_atomically
from sol_symbols.response_curves import Panel, responses
from sol_symbols.rule import UpdateRule
from sol_symbols.simplification import simplify

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]

_STYLES = (("#1f5fa8", "-"), ("#6b6b6b", "--"), ("#c0392b", ":"))


def plot(rule: UpdateRule, path: str | Path | None = None, scale: float = 1.0) -> Figure:
    """A picture of phi over the gradient, the momentum and t/T; see :func:`sol_symbols.responses`.

    Needs matplotlib, which the extra ``sol-symbols[plot]`` installs. An open horizon is drawn as 100 steps, and the
    parameter's value as 0.

    Args:
        rule: The rule.
        path: Where to save it, as PNG, SVG or PDF by its suffix; not saved if ``None``.
        scale: Root mean square of the gradients shown.

    Returns:
        The figure, which notebooks show.

    Raises:
        RuleError: The scale is not a positive number.
        SolError: matplotlib is missing, or the file cannot be written.
    """
    panels = responses(rule, scale)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SolError('plotting needs matplotlib: pip install "sol-symbols[plot]"') from None
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels):
        _draw(axes, panel)
    figure.axes[0].set_ylabel("update φ; the optimizer subtracts lr · φ")
    formula = str(simplify(rule, 3).rule.expression) if len(str(rule)) > 200 else str(rule)
    title = (f"{rule.name}:  " if rule.name else "") + f"φ = {formula}"
    figure.suptitle(textwrap.fill(textwrap.shorten(escaped(title, "plot"), 330, placeholder=" ..."), 130), fontsize=10)
    if path is not None:
        picture = io.BytesIO()
        try:
            figure.savefig(picture, dpi=130, format=Path(path).suffix[1:] or "png")
        except (OSError, ValueError) as error:
            raise SolError(f"cannot save the plot to {path}: {error}") from None
        write_atomically(path, picture.getvalue())
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    for line, (color, style) in zip(panel.lines, _STYLES):
        axes.plot(line.x, line.phi, style, color=color, linewidth=2, label=line.label)
    axes.set_xlabel(panel.axis)
    axes.set_title(panel.title, fontsize=10)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    place = (0.5, -0.17)  # below the axes, where there are no lines
    axes.legend(
        title=panel.legend, loc="upper center", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=9,
        title_fontsize=9,
    )  # fmt: skip
    if panel.from_zero:
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(0.0, axes.get_ylim()[1]))
