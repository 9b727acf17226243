"""What may be claimed when a table holds many contrasts: Holm's step-down test, and intervals that hold all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from metaprime.evaluation.statistics import Interval, p_value, paired_contrast

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
