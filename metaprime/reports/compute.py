"""Writes FLOPs in readable form: a column in one unit, and how far two arms that count as equal in compute really are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metaprime.runs.results import Arm

COUNTED = (
    "FLOPs are multiplications and additions of the matrix products of training (GFLOP: nine zeros, TFLOP: twelve, PFLOP: "
    "fifteen), counted for one step and estimated for the others from their sub-words"
)
"""What the columns hold, for captions."""


@dataclass(frozen=True)
class Unit:
    """So many FLOPs, and what a column of them is headed."""

    name: str
    flops: float

    def text(self, flops: float | None, unknown: str) -> str:
        """Writes FLOPs in this unit: three digits, or all before the point where they are more."""
        if flops is None or not math.isfinite(flops):
            return unknown
        value = flops / self.flops
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


FLOP_UNITS = (Unit("EFLOP", 1e18), Unit("PFLOP", 1e15), Unit("TFLOP", 1e12), Unit("GFLOP", 1e9))


def unit_of(values: Iterable[float | None]) -> Unit:
    """Returns the largest unit that the largest value holds at least one of; the smallest there is if none.

    Args:
        values: FLOPs; None and nan are unknown.

    Example:
        unit_of([2.4e12, None]).name  # "TFLOP"
    """
    largest = max((value for value in values if value is not None and math.isfinite(value)), default=0.0)
    return next((unit for unit in FLOP_UNITS if unit.flops <= largest), FLOP_UNITS[-1])


@dataclass(frozen=True)
class PrimingCost:
    """An arm's FLOPs of priming, of all steps allowed and of those up to the stopping point; None where unknown."""

    title: str
    flops: float | None
    chosen: float | None


def priming_cost(arm: Arm) -> PrimingCost:
    """Returns what the arm's priming took: nothing where it primes nothing, unknown where its runs do not say.

    Example:
        priming_cost(results.arms["meta"]).flops
    """
    if arm.priming is None:
        return PrimingCost(arm.title, 0.0, 0.0)
    facts = arm.facts
    return PrimingCost(arm.title, facts.flops if facts else None, facts.flops_chosen if facts else None)


def how_equal(matched: Mapping[str, str], costs: Mapping[str, PrimingCost]) -> str:
    """Says what the column `at equal compute` holds, and how equal in compute each pair is.

    Args:
        matched: arm -> its baseline.
        costs: by arm; a pair that is not in it is left out.

    Example:
        how_equal({"meta": "multitask"}, {name: priming_cost(arm) for name, arm in results.arms.items()})
    """
    pairs = [(costs[one], costs[other]) for one, other in matched.items() if {one, other} <= costs.keys()]
    told = [
        f"FLOPs of “{other.title}” over those of “{one.title}”: {_ratio(other.flops, one.flops)} in all steps, "
        f"{_ratio(other.chosen, one.chosen)} up to the stopping points."
        for one, other in pairs
    ]
    return " ".join(["At equal compute: the scores of a baseline that has the arm's compute without its idea.", *told])


def _ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if other and one is not None else "unknown"
