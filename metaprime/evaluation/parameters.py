"""F1 against what fine-tuning moves: parameters of each arm and method, and how stable it is, where records say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from metaprime.evaluation.figures import Figure, Line, LinePanel
from metaprime.evaluation.statistics import Interval, t_interval
from metaprime.evaluation.suite import Suite

TICKS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Per cent."""


@dataclass(frozen=True)
class Moved:
    """Of one arm and method, as its records have it.

    Attributes:
        count: parameters of the change that fine-tuning leaves, the head apart.
        share: of the encoder's, per cent.
        change: leave-one-out change of the loss (nats) over seeds, each a mean over languages; None where it was not measured.
        gap: the loss on a sentence left out above that on the same trained on (nats), likewise.
    """

    count: int
    share: float
    change: Interval | None
    gap: Interval | None


def moved(suite: Suite, arm: str, method: str, shots: int) -> Moved | None:
    """None where no record says."""
    found = suite.select(arm=arm, method=method, shots=shots)
    sizes = [transfer.record["parameters"] for transfer in found if "parameters" in transfer.record]
    if not sizes:
        return None
    changes: dict[int, list[float]] = {}
    gaps: dict[int, list[float]] = {}
    for transfer in found:
        if stability := transfer.record.get("stability"):
            changes.setdefault(transfer.entry.seed, []).append(stability["change"])
            gaps.setdefault(transfer.entry.seed, []).append(stability["without"] - stability["with"])
    count = sizes[0].get("stored", sizes[0]["adapter"])
    return Moved(count, 100 * count / sizes[0]["encoder"], _over_seeds(changes), _over_seeds(gaps))


def _over_seeds(values: Mapping[int, list[float]]) -> Interval | None:
    means = [sum(own) / len(own) for own in values.values()]
    return t_interval(means) if means else None


def over_parameters(suite: Suite, scores: Mapping[tuple[str, str, int], Interval], shots: int) -> Figure | None:
    """F1 over the share of parameters, one line for each `line` of arms; None where no two arms share one."""
    lines: dict[str, list[str]] = {}
    for name, arm in suite.results.arms.items():
        if arm.line:
            lines.setdefault(arm.line, []).append(name)
    if not any(len(arms) > 1 for arms in lines.values()):
        return None
    panels = []
    for method in suite.results.methods:
        drawn = []
        for series, arms in enumerate(lines.values(), 1):
            points = [
                (size.share, scores[arm, method, shots])
                for arm in arms
                if (size := moved(suite, arm, method, shots)) and size.count and (arm, method, shots) in scores
            ]
            if points:
                x, found = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                drawn.append(
                    Line(
                        series,
                        x,
                        tuple(one.mean for one in found),
                        tuple(one.mean - _or_zero(one.deviation / math.sqrt(one.count)) for one in found),
                        tuple(one.mean + _or_zero(one.deviation / math.sqrt(one.count)) for one in found),
                        marked=True,
                    )
                )
        if drawn:
            shares = [x for line in drawn for x in line.x]
            ticks = tuple(tick for tick in TICKS if min(shares) / 2 < tick < 2 * max(shares))
            panels.append(
                LinePanel(
                    method, "parameters moved, % of the encoder's (log)", "entity F1 (%)", tuple(drawn), True, ticks
                )
            )
    if not panels:
        return None
    caption = (
        f"Entity F1 (K = {shots}) over the parameters that fine-tuning moves, the head apart. The band is the mean ± one "
        "standard error over seeds."
    )
    return Figure("parameters", "F1 over parameters", caption, tuple(panels), tuple(enumerate(lines, 1)))


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
