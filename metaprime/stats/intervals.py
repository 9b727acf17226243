"""Student's intervals and tests over replicates, and their correction for several contrasts in a table.

The unit of replication is the priming seed: each seed gives one number, a mean over everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

# Its part `stats` takes a second to load, and is loaded when it is first used.
import scipy

FEWEST = 3
"""Smallest number of seeds whose deviation a test may rest on."""

EQUAL = 1e-9
"""Deviation, relative to the mean, below which replicates are equal but for rounding."""


@dataclass(frozen=True)
class Interval:
    """A mean over replicates with its confidence interval.

    Attributes:
        mean: mean of the replicates.
        deviation: sample standard deviation of the replicates; nan with fewer than two.
        low: lower end of the interval; nan with fewer than two replicates.
        high: upper end of the interval; nan with fewer than two replicates.
        count: number of replicates.
    """

    mean: float
    deviation: float
    low: float
    high: float
    count: int

    def wider_than(self, scale: float) -> bool:
        """Returns True if the interval is wider than the whole scale of its numbers; False without ends.

        Args:
            scale: distance between the smallest and the largest possible value.

        Example: `t_interval([1.0, 90.0]).wider_than(100.0)`
        """
        return self.high - self.low > scale

    @property
    def excludes_zero(self) -> bool:
        """Returns True if zero lies outside the interval; False if the ends are nan."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns Student's interval for the mean of independent replicates.

    Args:
        values: one score for each replicate.
        confidence: nominal coverage, in (0, 1).

    Raises:
        ValueError: no replicates.

    Example: `t_interval([71.2, 73.9, 70.4]).low`
    """
    if not values:
        raise ValueError("no replicates")
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan, math.nan, count)
    deviation = float(np.std(values, ddof=1))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)
    return Interval(mean, deviation, mean - half, mean + half, count)


def paired_contrast(one: dict[int, float], other: dict[int, float], confidence: float = 0.95) -> Interval:
    """Returns the interval of the mean difference of two arms over their common seeds.

    Arms with the same seed have the same K-shot samples and the same test set.

    Args:
        one: priming seed -> score.
        other: priming seed -> score of the arm that is subtracted.
        confidence: nominal coverage, in (0, 1).

    Raises:
        ValueError: the arms have no common seed.

    Example: `paired_contrast({0: 74.0, 1: 71.5}, {0: 72.0, 1: 71.0}).mean` is 1.25.
    """
    return t_interval([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())], confidence)


def p_value(interval: Interval) -> float:
    """Returns the two-sided p-value of Student's test that the true mean is zero.

    For a paired contrast this is the paired t-test. It is nan with one replicate. Equal replicates have no
    deviation to test with, and two have next to none: their p is no smaller than the least that n signs can
    give, 2 / 2^n.

    Example:
        p_value(t_interval([1.0, 2.0, 1.5]))
        p_value(t_interval([7.0, 7.0]))  # 0.5
    """
    if interval.count < 2:
        return math.nan
    least = 2.0 ** (1 - interval.count)
    if interval.deviation <= EQUAL * abs(interval.mean):
        return least if interval.mean else 1.0
    t = abs(interval.mean) / interval.deviation * math.sqrt(interval.count)
    p = float(2 * scipy.stats.t.sf(t, interval.count - 1))
    return max(p, least) if interval.count < FEWEST else p


Name = TypeVar("Name")


@dataclass(frozen=True)
class Contrast:
    """A difference of two arms, with and without correction for the other contrasts of its table.

    Holm has no two-sided intervals that say more about a rejected contrast than its sign, so the interval
    is Bonferroni's. It is stricter: a bold contrast always has a small adjusted p, but not vice versa.

    Attributes:
        interval: uncorrected interval.
        p: uncorrected p-value.
        adjusted_p: p-value after Holm's correction.
        corrected: interval after Bonferroni's correction.
        level: error level of the whole table.
    """

    interval: Interval
    p: float
    adjusted_p: float
    corrected: Interval
    level: float = 0.05

    @property
    def difference(self) -> float:
        """Returns the mean difference over the common seeds, in the unit of the scores."""
        return self.interval.mean

    @property
    def bold(self) -> bool:
        """Returns True if the corrected interval excludes zero, so that tables print the contrast bold.

        The adjusted p forbids it to fewer than three seeds, and to equal differences of few seeds, whose
        interval has no width.
        """
        enough = self.interval.count >= FEWEST and self.adjusted_p <= self.level
        return enough and self.corrected.excludes_zero


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values after Holm's correction (1979), in the order of the input.

    An adjusted p-value is at most the level exactly if Holm's step-down test rejects. nan, a contrast that
    cannot be tested yet, stays nan but counts, so that a table loses no claim when it is completed.

    Example:
        holm([0.01, 0.04, 0.03])  # [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    # nan is sorted last.
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(value) for value in adjusted]


def correct(
    pairs: Mapping[Name, tuple[dict[int, float], dict[int, float]]], level: float = 0.05
) -> dict[Name, Contrast]:
    """Returns all contrasts of one table, corrected for their number.

    The family-wise error is at most `level`: with probability 1 - `level` or more no true difference of
    zero has an adjusted p of `level` or less, and with the same probability all corrected intervals cover.

    Args:
        pairs: name of a contrast -> scores of its two arms, each priming seed -> score.
        level: error level of the whole table.

    Raises:
        ValueError: two arms have no common seed.

    Example:
        table = correct({"meta - none": ({0: 74.0, 1: 71.5}, {0: 72.0, 1: 71.0})})
    """
    alone = {name: paired_contrast(one, other, 1 - level) for name, (one, other) in pairs.items()}
    p = {name: p_value(interval) for name, interval in alone.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return {
        name: Contrast(
            interval=alone[name],
            p=p[name],
            adjusted_p=adjusted[name],
            corrected=paired_contrast(one, other, 1 - level / len(pairs)),
            level=level,
        )
        for name, (one, other) in pairs.items()
    }
