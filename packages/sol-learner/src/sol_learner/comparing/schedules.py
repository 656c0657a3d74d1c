"""Learning-rate schedules of baselines: linear warm-up, then a decay."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["DECAYS", "FLOORS", "WARMUPS", "schedule_factor"]

DECAYS = {
    "constant": lambda u: 1.0,
    "linear": lambda u: 1 - u,
    "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    "sqrt": lambda u: 1 - math.sqrt(u),
}
"""Decay by name: a function from the fraction of the steps after warm-up, 0 <= u < 1, to 1 ... 0."""

WARMUPS = (0.0, 0.02, 0.05, 0.1)
"""Lengths of the warm-up that tuning tries, as fractions of the steps."""

FLOORS = (0.0, 0.1)
"""Values that tuning lets a decay end at."""


def schedule_factor(settings: Mapping[str, float | str], t: int, steps: int) -> float:
    """Learning rate factor at step ``t``, 1 <= t <= ``steps``.

    With W = round(``warmup`` * steps) and the decay d of :data:`DECAYS` that ``schedule`` names:

        t <= W:  t/W
        t > W:   floor + (1 - floor) d((t - 1 - W)/(steps - W))

    Defaults: ``warmup`` 0, ``schedule`` constant, ``floor`` 0.

    >>> [schedule_factor({"schedule": "linear"}, t, 4) for t in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [schedule_factor({"warmup": 0.5, "schedule": "linear", "floor": 0.5}, t, 4) for t in (1, 2, 3, 4)]
    [0.5, 1.0, 1.0, 0.75]
    """
    warm = round(float(settings.get("warmup", 0.0)) * steps)
    if t <= warm:
        return t / warm
    floor = float(settings.get("floor", 0.0))
    return floor + (1 - floor) * DECAYS[str(settings.get("schedule", "constant"))]((t - 1 - warm) / (steps - warm))
