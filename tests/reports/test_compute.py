"""FLOPs in a unit that fits, and how equal in compute two arms are."""

from __future__ import annotations

import math

import pytest

from metaprime.reports.compute import PrimingCost, how_equal, priming_cost, unit_of
from metaprime.runs.results import Arm, Facts


@pytest.mark.parametrize(
    ("largest", "unit", "told"),
    [
        (0.0, "GFLOP", "0"),
        (2.34e7, "GFLOP", "0.0234"),
        (9.99e11, "GFLOP", "999"),
        (1e12, "TFLOP", "1"),
        (1.2345e14, "TFLOP", "123"),
        (5.6789e16, "PFLOP", "56.8"),
        (5.6e21, "EFLOP", "5,600"),
    ],
)
def test_a_column_has_the_unit_of_its_largest_value(largest: float, unit: str, told: str) -> None:
    found = unit_of([None, 0.0, math.nan, largest])
    assert (found.name, found.text(largest, "-")) == (unit, told)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_is_unknown_says_so(unknown: float | None) -> None:
    assert unit_of([unknown]).text(unknown, "?") == "?"


COSTS = {
    "meta": PrimingCost("as proposed", 4e12, 3e12),
    "plain": PrimingCost("without the idea", 3.96e12, 1.5e12),
    "old": PrimingCost("begun long ago", None, None),
    "none": PrimingCost("no priming", 0.0, 0.0),
}


def test_a_match_says_how_good_it_is() -> None:
    assert how_equal({"meta": "plain"}, COSTS).endswith(
        "FLOPs of “without the idea” over those of “as proposed”: 0.99 in all steps, 0.50 up to the stopping points."
    )


@pytest.mark.parametrize("pair", [("old", "plain"), ("meta", "old"), ("none", "plain")])
def test_a_match_that_cannot_be_reckoned_says_so(pair: tuple[str, str]) -> None:
    assert how_equal(dict([pair]), COSTS).endswith(": unknown in all steps, unknown up to the stopping points.")


def test_a_match_with_an_arm_that_is_not_there_is_left_out() -> None:
    assert "FLOPs of" not in how_equal({"meta": "gone"}, COSTS)


@pytest.mark.parametrize(
    ("priming", "facts", "expected"),
    [
        (None, None, (0.0, 0.0)),
        ("ab", None, (None, None)),
        ("ab", Facts(), (None, None)),
        ("ab", Facts(flops=2e12, flops_chosen=1e12), (2e12, 1e12)),
    ],
)
def test_an_arm_costs_what_its_priming_runs_say(
    priming: str | None, facts: Facts | None, expected: tuple[float | None, float | None]
) -> None:
    assert priming_cost(Arm(title="a", priming=priming, facts=facts)) == PrimingCost("a", *expected)
