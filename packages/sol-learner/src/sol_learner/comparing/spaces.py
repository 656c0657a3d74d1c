"""Search spaces: which hyperparameters of an optimizer are tuned, and in which range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sol_learner.comparing.schedules import DECAYS, FLOORS, WARMUPS

__all__ = ["SCHEDULE", "Dimension", "Settings", "learning_rate", "settled", "space_of"]

Settings = Mapping[str, float | str]
"""Hyperparameters by name: ``lr``; those of the optimizer; ``warmup``, ``schedule`` and ``floor``."""


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter to tune.

    Attributes:
        name: As in :data:`Settings`.
        default: Value without tuning; ``None`` for a learning rate that nothing is known of.
        low, high: Log-uniform range of the value, or of 1 - value if ``complement``.
        complement: Whether the value is a factor near 1, searched by its distance from 1.
        choices: Choices, instead of a range.
    """

    name: str
    default: float | str | None
    low: float = 0.0
    high: float = 0.0
    complement: bool = False
    choices: tuple[float | str, ...] = ()

    def at(self, u: float) -> float | str:
        """The value at ``u``, 0 <= u < 1: uniform u give the distribution that the dimension describes.

        Numbers have three digits, so that printed values are exact.

        >>> Dimension("beta1", 0.9, 0.01, 1.0, complement=True).at(0.5)
        0.9
        """
        if self.choices:
            return self.choices[int(u * len(self.choices))]
        value = float(f"{self.low ** (1 - u) * self.high**u:.3g}")
        return round(1 - value, 12) if self.complement else value


def _near_one(low: float, high: float) -> Callable[[str, float], Dimension]:
    return lambda name, value: Dimension(name, value, min(low, 1 - value), high, complement=True)


def _positive(low: float, high: float) -> Callable[[str, float], Dimension]:
    return lambda name, value: Dimension(name, value, min(low, value or low), max(high, value))


_MOMENTUM, _AVERAGING = _near_one(0.005, 1.0), _near_one(1e-4, 0.5)
_SPACES: dict[str, Callable[[str, float], Dimension]] = {
    "beta1": _MOMENTUM,
    "mu": _MOMENTUM,
    "momentum": _MOMENTUM,
    "beta2": _AVERAGING,
    "alpha": _AVERAGING,
    "eps": _positive(1e-10, 1e-2),
    "wd": _positive(1e-5, 3.0),
    "weight_decay": _positive(1e-5, 3.0),
}
"""How each hyperparameter that is tuned is searched; any other keeps its default."""

SCHEDULE = (
    Dimension("warmup", 0.0, choices=WARMUPS),
    Dimension("schedule", "constant", choices=(*DECAYS,)),
    Dimension("floor", 0.0, choices=FLOORS),
)
"""The dimensions of a schedule."""


def learning_rate(default: float | None = None) -> Dimension:
    """The dimension of the learning rate; ``default`` is where the search starts, if something is known."""
    return (
        Dimension("lr", default, 1e-5, 100.0)
        if default is None
        else Dimension("lr", default, default / 10, default * 10)
    )


def space_of(values: Mapping[str, float]) -> tuple[Dimension, ...]:
    """The dimensions of hyperparameters with these defaults that are tuned; values out of range are not."""
    known = {name: value for name, value in values.items() if name in _SPACES and value >= 0}
    found = (_SPACES[name](name, value) for name, value in known.items())
    return tuple(dimension for dimension in found if not dimension.complement or known[dimension.name] < 1)


def settled(settings: Settings) -> dict[str, float | str]:
    """The settings, without a floor where nothing decays."""
    chosen = dict(settings)
    if chosen.get("schedule") == "constant" and "floor" in chosen:
        chosen["floor"] = 0.0
    return chosen
