"""Charts as inline SVG. Colors and sizes come from the page's style sheet, so they adapt to dark mode and print."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from markupsafe import Markup

__all__ = ["STYLES", "Chart", "Mark", "Series", "front_chart", "line_chart"]

_WIDTH, _HEIGHT = 390, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 12, 46
_MOST_POINTS = 400

STYLES = 12
"""Number of distinct line styles in the style sheet."""


@dataclass(frozen=True)
class Series:
    """A line: label, x values, y values (nan marks a gap) and the half-width of a band around it."""

    label: str
    x: Sequence[float] | numpy.ndarray
    y: Sequence[float] | numpy.ndarray
    spread: numpy.ndarray | None = None


@dataclass(frozen=True)
class Mark:
    """A dot of a front: position, whether it beats all shorter ones, whether it was selected, and its label."""

    x: float
    y: float
    best: bool
    chosen: bool
    label: str


@dataclass(frozen=True)
class Chart:
    """An SVG image and the labels of its lines in style order."""

    svg: Markup
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Axis:
    """A map from a range of values to pixels."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: Sequence[float] | numpy.ndarray | float) -> numpy.ndarray:
        """Pixel coordinates of ``values``."""
        array = numpy.asarray(values, float)
        low, high = self.low, self.high
        if self.log:
            array, low, high = numpy.log10(array), math.log10(low), math.log10(high)
        return self.start + (array - low) / (high - low) * (self.stop - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round tick values within the range."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8)):
                ticks = [step * 10.0**power for power in powers for step in steps]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) >= 4:
                    return ticks[:: math.ceil(len(ticks) / 7)]
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _axis(values: numpy.ndarray, start: float, stop: float, *, log: bool = False, margin: float = 0.05) -> _Axis:
    """An axis that covers all finite ``values``."""
    values = values[numpy.isfinite(values)]
    if log:
        values = values[values > 0]
    if not len(values):
        return _Axis(0.0 if not log else 0.1, 1.0, start, stop, log)
    low, high = float(values.min()), float(values.max())
    if log:
        factor = max((high / low) ** margin, 1.02)
        return _Axis(low / factor, high * factor, start, stop, log)
    room = margin * (high - low) if high > low else 0.05 * abs(high) or 1.0
    return _Axis(low - room, high + room, start, stop)


def line_chart(
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    description: str,
    *,
    xlog: bool = False,
    ylog: bool = False,
    from_zero: bool = False,
    dots: bool = False,
    whole: bool = False,
) -> Chart:
    """A line chart with bands; a script can show the values under the pointer.

    Args:
        series: The lines; styles repeat after :data:`STYLES` of them.
        xlabel: Label of the x-axis.
        ylabel: Label of the y-axis.
        description: Text alternative for screen readers.
        xlog: Logarithmic x-axis.
        ylog: Logarithmic y-axis; values that are not positive are omitted.
        from_zero: Include 0 in the y-axis range.
        dots: Draw a dot at every value.
        whole: The x-axis is a count: integer ticks only.
    """
    shown = [_thinned(line) for line in series]
    edges = [y for line in shown for y in (line.y, *_band(line)[ylog:])]  # a band's lower edge may be <= 0
    ys = numpy.concatenate([*map(numpy.asarray, edges), numpy.zeros(int(from_zero))])
    xs = numpy.concatenate([numpy.zeros(0), *(numpy.asarray(line.x, float) for line in shown)])
    if ylog and not (ys[numpy.isfinite(ys)] > 0).any():
        ylog = False
    across = _axis(xs, _LEFT, _WIDTH - _RIGHT, log=xlog, margin=0.03 if dots else 0.0)
    up = _axis(ys, _HEIGHT - _BOTTOM, _TOP, log=ylog)
    parts = [_frame(across, up, xlabel, ylabel, whole)]
    data = []
    for number, line in enumerate(shown):
        parts.append(_drawn(line, number, across, up, dots))
        x = across(line.x)
        values = [float(f"{v:.4g}") if math.isfinite(v) else None for v in numpy.asarray(line.y, float)]
        data.append({"x": [round(float(v), 1) for v in x], "v": [float(f"{v:.4g}") for v in line.x], "y": values})
    parts.append(Markup('<line class="cursor" y1="{}" y2="{}" visibility="hidden"/>').format(_TOP, _HEIGHT - _BOTTOM))
    svg = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-lines="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, description, json.dumps(data), Markup("").join(parts)
    )
    return Chart(svg, tuple(line.label for line in series))


def _drawn(line: Series, number: int, across: _Axis, up: _Axis, dots: bool) -> Markup:
    """A line, its band and its dots, in a group that a script can highlight."""
    style, parts = number % STYLES, []
    x, y = across(line.x), _safe(up, line.y)
    if line.spread is not None:
        below, above = (_safe(up, edge, clip=True) for edge in _band(line))
        keep = numpy.isfinite(below) & numpy.isfinite(above)
        outline = [*zip(x[keep], above[keep]), *zip(x[keep][::-1], below[keep][::-1])]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in outline)
        parts.append(Markup('<polygon class="band s{}" points="{}"/>').format(style, points))
    parts.append(Markup('<path class="line s{}" d="{}"/>').format(style, _path(x, y)))
    if dots:
        parts += [
            Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(style, a, b)
            for a, b in zip(x, y)
            if math.isfinite(b)
        ]
    return Markup('<g class="series">{}</g>').format(Markup("").join(parts))


def front_chart(marks: Sequence[Mark], xlabel: str, ylabel: str, description: str) -> Chart:
    """A chart of focusable dots; steps join those that beat all shorter ones."""
    across = _axis(numpy.array([mark.x for mark in marks]), _LEFT, _WIDTH - _RIGHT, margin=0.06)
    up = _axis(numpy.array([mark.y for mark in marks]), _HEIGHT - _BOTTOM, _TOP, margin=0.1)
    best = [(float(across(mark.x)), float(up(mark.y))) for mark in marks if mark.best]
    stairs = "".join(f"H{x:.1f}V{y:.1f}" if number else f"M{x:.1f},{y:.1f}" for number, (x, y) in enumerate(best))
    parts = [
        _frame(across, up, xlabel, ylabel, whole=True),
        Markup('<path class="line s0 thin" d="{}"/>').format(stairs),
    ]
    for number, mark in enumerate(marks):
        x, y = float(across(mark.x)), float(up(mark.y))
        ring = Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="12"/>').format(x, y) if mark.chosen else ""
        parts.append(
            Markup(
                '<g class="mark{}" tabindex="0" role="button" data-mark="{}" aria-label="{}">'
                '<circle class="target" cx="{:.1f}" cy="{:.1f}" r="14"/>{}<circle cx="{:.1f}" cy="{:.1f}" r="6"/></g>'
            ).format("" if mark.best else " beaten", number, mark.label, x, y, ring, x, y)
        )
    return Chart(
        Markup('<svg class="chart front" viewBox="0 0 {} {}" role="group" aria-label="{}">{}</svg>').format(
            _WIDTH, _HEIGHT, description, Markup("").join(parts)
        )
    )


def _thinned(line: Series) -> Series:
    """Average neighboring points so that a line has at most 400; extreme values become gaps."""
    x, y = numpy.asarray(line.x, float), numpy.asarray(line.y, float)
    y = numpy.where((abs(y) < 1e100) & ((abs(y) > 1e-100) | (y == 0)), y, numpy.nan)
    size = math.ceil(len(x) / _MOST_POINTS)
    if size <= 1:
        return Series(line.label, x, y, line.spread)
    starts = numpy.arange(0, len(x), size)
    counts = numpy.diff([*starts, len(x)])

    def mean(values: numpy.ndarray) -> numpy.ndarray:
        return numpy.asarray(numpy.add.reduceat(values, starts) / counts)

    return Series(line.label, mean(x), mean(y), None if line.spread is None else mean(line.spread))


def _band(line: Series) -> tuple[numpy.ndarray, ...]:
    y = numpy.asarray(line.y, float)
    return () if line.spread is None else (y - line.spread, y + line.spread)


def _safe(axis: _Axis, values: Sequence[float] | numpy.ndarray, *, clip: bool = False) -> numpy.ndarray:
    """Pixels; nan for values that the axis cannot show. With ``clip``, values below the axis move to its low end."""
    array = numpy.asarray(values, float)
    if clip:
        array = numpy.maximum(array, axis.low)
    shown = numpy.isfinite(array) & ((array > 0) | (not axis.log))
    return numpy.where(shown, axis(numpy.where(shown, array, axis.high)), numpy.nan)


def _path(x: numpy.ndarray, y: numpy.ndarray) -> str:
    pen, parts = False, []
    for a, b in zip(x, y):
        if not math.isfinite(b):
            pen = False
            continue
        parts.append(f"{'L' if pen else 'M'}{a:.1f},{b:.1f}")
        pen = True
    return "".join(parts)


def _frame(across: _Axis, up: _Axis, xlabel: str, ylabel: str, whole: bool = False) -> Markup:
    """Grid, tick labels and axis labels."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = []
    for tick in up.ticks:
        y = float(up(tick))
        parts += [line.format("grid", _LEFT, right, y, y), text.format("tick", _LEFT - 6, y + 4, "end", _number(tick))]
    for tick in across.ticks:
        if not whole or tick == round(tick):
            x = float(across(tick))
            parts.append(line.format("grid", x, x, _TOP, bottom))
            parts.append(text.format("tick", x, bottom + 17, "middle", _number(tick)))
    if not up.log and up.low < 0 < up.high:
        parts.append(line.format("zero", _LEFT, right, float(up(0)), float(up(0))))
    parts.append(text.format("label", (_LEFT + right) / 2, _HEIGHT - 8, "middle", xlabel))
    turned = Markup('<text class="label" transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>')
    parts.append(turned.format((_TOP + bottom) / 2, ylabel))
    return Markup("").join(parts)


def _number(value: float) -> str:
    if 1_000 <= abs(value) < 100_000:
        return f"{value:.0f}".replace("-", "−")
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
