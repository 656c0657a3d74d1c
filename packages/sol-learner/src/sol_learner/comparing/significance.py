"""Significance of differences between optimizers: paired tests, Holm's correction, bootstrap intervals.

Episodes are paired: both optimizers start from the same parameters and see the same batches, so the test is
a two-sided Student's t-test on their differences. A signed-rank test assumes less, but with n pairs its p-value is
never below 2**(1 - n): after Holm's correction for four baselines, a comparison with fewer than eight seeds could not
reach 0.05, however large the difference. Differences of losses over whole datasets are also close to normal. A
diverged run has no finite difference. Such a pair of optimizers gets no p-value; the number of diverged runs says more.

Requires SciPy, which the extra ``sol-learner[compare]`` installs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from sol_learner.comparing.optimizer_specs import EXTRA
from sol_learner.task_registry import install_line
from sol_symbols import SolError

__all__ = ["bootstrap_interval", "holm", "paired_test"]

RESAMPLES = 9_999
LEVEL = 0.95


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise SolError(f"statistical tests and intervals need SciPy: {install_line([EXTRA])}") from None
    return stats


def paired_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's t-test on paired samples; ``None`` if undefined.

    It is undefined for fewer than two pairs, for non-finite values, and if all differences are equal (zero variance).
    """
    difference = numpy.asarray(first, float) - numpy.asarray(second, float)
    if len(difference) < 2 or not numpy.isfinite(difference).all() or numpy.ptp(difference) == 0:
        return None
    return float(_stats().ttest_1samp(difference, 0.0).pvalue)


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


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of the mean by the bias-corrected and accelerated (BCa) bootstrap; 9,999 resamples, fixed seed.

    ``None`` for fewer than two values or for non-finite values. If all values are equal, both ends are that value.
    Source: Efron, "Better bootstrap confidence intervals", 1987.
    """
    sample = numpy.asarray(values, float)
    if len(sample) < 2 or not numpy.isfinite(sample).all():
        return None
    if numpy.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    found = _stats().bootstrap(
        (sample,),
        numpy.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        rng=numpy.random.default_rng(0),
    )
    low, high = float(found.confidence_interval.low), float(found.confidence_interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
