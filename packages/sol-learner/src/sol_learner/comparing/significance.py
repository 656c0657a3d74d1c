"""Significance of differences between optimizers: paired tests, Holm's correction, bootstrap intervals.

Episodes are paired: both optimizers start from the same parameters and see the same batches, so the test is a two-sided
Student's t-test on their differences. If all values are positive, as most losses are, these are differences of the
logarithms: optimizers differ by factors, and hard seeds must not drown easy ones. A signed-rank test assumes less, but
with n pairs its p-value is never below 2**(1 - n): after Holm's correction for four baselines, a comparison with fewer
than eight seeds could not reach 0.05, however large the difference. A diverged run has no finite difference. Such a
pair of optimizers gets no p-value; the number of diverged runs says more.

Percentile intervals of a bootstrap over n values are too narrow, as resamples have (n - 1)/n of the variance and normal
quantiles stand for those of Student's t: with ten values they cover 90% instead of 95%. The intervals here are
percentile intervals at corrected levels, after Hesterberg, "What teachers should know about the bootstrap", 2015. They
cover 95% from about ten values on. No resample lies outside of the values, so with three values they cover 75% at any
level; a decision therefore also asks for a p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy

__all__ = ["LEVEL", "bootstrap_interval", "holm", "interval_between", "paired_test", "resampling"]

Values = Sequence[float] | numpy.ndarray

RESAMPLES = 9_999
LEVEL = 0.95


def paired_test(first: Values, second: Values) -> float | None:
    """Two-sided p-value of Student's t-test on paired samples, or on their logarithms; ``None`` if undefined.

    Logarithms are taken if all values are positive. The p-value is undefined for fewer than two pairs, for non-finite
    values, and if all differences are equal (zero variance).
    """
    with numpy.errstate(invalid="ignore"):
        pair = numpy.array([first, second], float)
        pair = numpy.log(pair) if (pair > 0).all() else pair
        difference = numpy.subtract(*pair)
    if len(difference) < 2 or not numpy.isfinite(difference).all() or numpy.ptp(difference) <= 1e-12 * abs(pair).max():
        return None
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return 1 - _within(abs(float(difference.mean())) / error, len(difference) - 1)


def _within(t: float, freedom: int) -> float:
    """P(\\|X\\| <= t) for Student's t with ``freedom`` degrees of freedom, a finite sum.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine, odd = math.sin(angle), math.cos(angle), freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        total, term = total + term, term * cosine**2 * k / (k + 1)
    found = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(found, 1.0)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for multiple tests by Holm's step-down procedure; ``None`` is kept and does not count.

    Of m p-values in ascending order, the i-th becomes max over j <= i of min(1, (m - j + 1) p_j).
    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03, None])
    [0.03, 0.06, 0.06, None]
    """
    ranked = sorted((p, place) for place, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[place] = largest
    return adjusted


def bootstrap_interval(
    values: Values, statistic: Callable[[numpy.ndarray], numpy.ndarray] | None = None
) -> tuple[float, float] | None:
    """95% bootstrap interval of a function of means; 9,999 resamples, fixed seed.

    ``None`` for fewer than two rows or for non-finite values. If all rows are equal, both ends are the same.

    Args:
        values: One row per episode, [S] or [S, K]; rows are resampled, so that columns stay paired.
        statistic: Maps means [R, K] to numbers [R]; the first mean by default.

    Example: the ratio of two means, ``bootstrap_interval(numpy.stack([a, b], 1), lambda m: m[:, 0] / m[:, 1])``.
    """
    rows = numpy.asarray(values, float)
    rows = rows.reshape(len(rows), -1)
    if len(rows) < 2 or not numpy.isfinite(rows).all():
        return None
    means = resampling(len(rows)) @ rows if numpy.ptp(rows, axis=0).any() else rows[:1]
    return interval_between(statistic(means) if statistic else means[:, 0], len(rows))


@lru_cache(maxsize=32)
def resampling(count: int, seed: int = 0) -> numpy.ndarray:
    """Weights of ``count`` values in each resample, [R, S]; rows sum to 1; a function of the arguments."""
    drawn = numpy.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    places = drawn + count * numpy.arange(RESAMPLES)[:, None]
    return numpy.bincount(places.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count) / count


def interval_between(statistics: numpy.ndarray, count: int) -> tuple[float, float] | None:
    """The interval that resampled ``statistics`` of ``count`` values give; ``None`` if an end is not finite."""
    tail = _tail(count)
    low, high = (float(end) for end in numpy.quantile(statistics, [tail, 1 - tail]))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


@lru_cache(maxsize=64)
def _tail(count: int) -> float:
    """The corrected tail probability: Phi(-sqrt(n/(n - 1)) t), with t the quantile of n - 1 degrees of freedom."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, count - 1) < LEVEL else (low, middle)
    return NormalDist().cdf(-low * math.sqrt(count / (count - 1)))
