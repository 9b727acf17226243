"""Intervals over replicates. The unit of replication is the priming seed: each gives one number, a mean over the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over `count` replicates, their standard deviation, and its interval (nan with fewer than two)."""

    mean: float
    deviation: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; never where there is no interval."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval for the mean of independent replicates.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no replicates")
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan, math.nan, count)
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)
    return Interval(mean, deviation, mean - half, mean + half, count)


def paired_contrast(one: dict[int, float], other: dict[int, float], confidence: float = 0.95) -> Interval:
    """Interval of the mean difference over the seeds both arms have; same seed, same K-shot samples, same test set.

    Raises:
        ValueError: they share no seed.
    """
    return t_interval([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())], confidence)


def p_value(found: Interval) -> float:
    """Two-sided p of Student's test that the true mean is zero; of a paired contrast, that is the paired t-test.

    nan with one replicate. Replicates that do not differ at all leave no doubt: 1 where they are zero, else 0.
    """
    if found.count < 2:
        return math.nan
    if found.deviation == 0:
        return 1.0 if found.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(found.mean) / found.deviation * math.sqrt(found.count), found.count - 1))
