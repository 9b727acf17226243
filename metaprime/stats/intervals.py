"""Intervals over replicates. The unit of replication is the priming seed: each gives one number, a mean over the rest."""

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


Name = TypeVar("Name")


@dataclass(frozen=True)
class Contrast:
    """One difference of a table, alone (`interval`, `p`) and among the table's others (`adjusted_p`, `corrected`, `stands`).

    `stands` is Holm's verdict. `corrected` is Bonferroni's interval, since Holm has no two-sided intervals that say more
    of a contrast that stands than its sign. It asks for more than Holm: whatever is bold stands, not the reverse.
    """

    interval: Interval
    p: float
    adjusted_p: float
    corrected: Interval
    stands: bool

    @property
    def difference(self) -> float:
        """Mean over the seeds both arms have, in the unit of the scores."""
        return self.interval.mean

    @property
    def bold(self) -> bool:
        """Whether a table may print it bold: the corrected interval excludes zero."""
        return self.corrected.excludes_zero


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Holm 1979): at most `level` exactly where the step-down test rejects.

    nan, a contrast that cannot be tested yet, stays nan but counts: a table that fills up must not lose what it claimed.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")  # nan last
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(value) for value in adjusted]


def correct(
    pairs: Mapping[Name, tuple[dict[int, float], dict[int, float]]], level: float = 0.05
) -> dict[Name, Contrast]:
    """All contrasts of one table, each of two arms' scores by priming seed; errors are counted over the whole table.

    Each with probability 1 - `level` or more: no difference that is truly zero stands; all corrected intervals cover.

    Raises:
        ValueError: two arms share no seed.
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
            stands=adjusted[name] <= level,
        )
        for name, (one, other) in pairs.items()
    }
