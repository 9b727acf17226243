"""Writes FLOPs in readable units, and their ratio in arms that are compared at equal compute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metaprime.runs.results import Arm

COUNTED = (
    "FLOPs are multiplications and additions of the matrix products of training (GFLOP: nine zeros, TFLOP: twelve, PFLOP: "
    "fifteen), counted for one step and estimated for the others from their sub-words"
)
"""Explanation of the columns, for captions."""


@dataclass(frozen=True)
class Unit:
    """A unit of FLOPs: `Unit("TFLOP", 1e12)`. `name` heads a column."""

    name: str
    flops: float

    def text(self, flops: float | None, unknown: str) -> str:
        """Writes FLOPs in this unit with three digits, or as a whole number from 100 on.

        Example:
            Unit("TFLOP", 1e12).text(2.4e12, "?")  # "2.4"
        """
        if flops is None or not math.isfinite(flops):
            return unknown
        value = flops / self.flops
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


FLOP_UNITS = (Unit("EFLOP", 1e18), Unit("PFLOP", 1e15), Unit("TFLOP", 1e12), Unit("GFLOP", 1e9))


def unit_of(values: Iterable[float | None]) -> Unit:
    """Returns the largest unit that does not exceed the largest value, at least the smallest unit.

    Args:
        values: FLOPs; None and nan are unknown.

    Example:
        unit_of([2.4e12, None]).name  # "TFLOP"
    """
    largest = max((value for value in values if value is not None and math.isfinite(value)), default=0.0)
    return next((unit for unit in FLOP_UNITS if unit.flops <= largest), FLOP_UNITS[-1])


@dataclass(frozen=True)
class PrimingCost:
    """FLOPs of an arm's priming; None: unknown.

    Attributes:
        title: title of the arm.
        flops: FLOPs of all steps.
        chosen: FLOPs up to the stopping point.
    """

    title: str
    flops: float | None
    chosen: float | None


def priming_cost(arm: Arm) -> PrimingCost:
    """Returns the FLOPs of an arm's priming: zero without priming, unknown if not counted.

    Example:
        priming_cost(results.arms["meta"]).flops
    """
    if arm.priming is None:
        return PrimingCost(arm.title, 0.0, 0.0)
    facts = arm.facts
    return PrimingCost(arm.title, facts.flops if facts else None, facts.flops_chosen if facts else None)


def how_equal(matched: Mapping[str, str], costs: Mapping[str, PrimingCost]) -> str:
    """Returns the caption of the column `at equal compute`, with each pair's ratio of FLOPs.

    Args:
        matched: arm -> its baseline.
        costs: arm -> its cost; a pair without both costs is left out.

    Example:
        how_equal({"meta": "multitask"}, {name: priming_cost(arms[name]) for name in arms})
    """
    pairs = [(costs[arm], costs[baseline]) for arm, baseline in matched.items() if {arm, baseline} <= costs.keys()]
    ratios = [
        f"FLOPs of “{baseline.title}” over those of “{arm.title}”: {_ratio(baseline.flops, arm.flops)} in all steps, "
        f"{_ratio(baseline.chosen, arm.chosen)} up to the stopping points."
        for arm, baseline in pairs
    ]
    return " ".join(
        ["At equal compute: the scores of a baseline that has the arm's compute without its idea.", *ratios]
    )


def _ratio(flops: float | None, reference: float | None) -> str:
    """Writes a ratio of FLOPs with two decimals."""
    return f"{flops / reference:.2f}" if reference and flops is not None else "unknown"
