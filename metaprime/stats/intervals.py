"""Intervals over replicates, and their correction for the number of contrasts in a table.

The unit of replication is the priming seed: each gives one number, a mean over the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

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
        """Says whether zero lies outside; never where there is no interval."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns Student's interval for the mean of independent replicates.

    Raises:
        ValueError: no replicates.

    Example:
        t_interval([71.2, 73.9, 70.4]).low
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
    """Returns the interval of the mean difference over the seeds both arms have.

    The same seed stands for the same K-shot samples and the same test set.

    Args:
        one: priming seed -> score.
        other: likewise, of the arm subtracted.

    Raises:
        ValueError: the arms share no seed.

    Example:
        paired_contrast({0: 74.0, 1: 71.5}, {0: 72.0, 1: 71.0}).mean  # 1.25
    """
    return t_interval([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())], confidence)


def p_value(found: Interval) -> float:
    """Returns the two-sided p of Student's test that the true mean is zero; of a paired contrast, that of the paired t-test.

    nan with one replicate. Replicates that do not differ at all leave no doubt: 1 where they are zero, else 0.

    Example:
        p_value(t_interval([1.0, 2.0, 1.5]))
    """
    if found.count < 2:
        return math.nan
    if found.deviation == 0:
        return 1.0 if found.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(found.mean) / found.deviation * math.sqrt(found.count), found.count - 1))


Name = TypeVar("Name")


@dataclass(frozen=True)
class Contrast:
    """One difference of a table, alone (`interval`, `p`) and among the table's others (`adjusted_p`, `corrected`).

    `adjusted_p` is Holm's. `corrected` is Bonferroni's interval, since Holm has no two-sided intervals that say more of a
    contrast it rejects than its sign. It asks for more than Holm: whatever is bold has a small adjusted p, not the reverse.
    """

    interval: Interval
    p: float
    adjusted_p: float
    corrected: Interval

    @property
    def difference(self) -> float:
        """Returns the mean over the seeds both arms have, in the unit of the scores."""
        return self.interval.mean

    @property
    def bold(self) -> bool:
        """Says whether a table may print it bold: the corrected interval excludes zero."""
        return self.corrected.excludes_zero


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns adjusted p-values in the order given (Holm 1979): at most the level exactly where the step-down test rejects.

    nan, a contrast that cannot be tested yet, stays nan but counts: a table that fills up must not lose what it claimed.

    Example:
        holm([0.01, 0.04, 0.03])  # [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")  # nan last
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(value) for value in adjusted]


def correct(
    pairs: Mapping[Name, tuple[dict[int, float], dict[int, float]]], level: float = 0.05
) -> dict[Name, Contrast]:
    """Returns all contrasts of one table; errors are counted over the whole table.

    With probability 1 - `level` or more no difference that is truly zero has an adjusted p of `level` or less, and with as
    much all corrected intervals cover.

    Args:
        pairs: by name, the scores of two arms, each priming seed -> score.
        level: of the error, for the table.

    Raises:
        ValueError: two arms share no seed.

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
        )
        for name, (one, other) in pairs.items()
    }
