"""How numbers and intervals read in a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from metaprime.evaluation.statistics import Interval

UNKNOWN = "–"


def listed(items: Iterable[Any]) -> str:
    return ", ".join(map(str, items)) or "none"


def number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else UNKNOWN


def signed(value: float) -> str:
    """With its sign, and a true minus."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else UNKNOWN


def whole(value: float | None) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}"


def spread(interval: Interval) -> str:
    """`mean ± standard deviation`, the mean alone where there is one replicate."""
    both = math.isfinite(interval.deviation)
    return f"{number(interval.mean)} ± {number(interval.deviation)}" if both else number(interval.mean)


def limits(interval: Interval, sign: bool = False) -> str:
    """`[low, high]`; nothing where there is no interval."""
    if not math.isfinite(interval.low):
        return ""
    low, high = (signed(end) if sign else number(end) for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def p_text(p: float) -> str:
    if not math.isfinite(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
