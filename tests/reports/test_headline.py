"""The title and the one sentence of a suite: no more than the corrected intervals say."""

from __future__ import annotations

import math
from dataclasses import replace

from metaprime.reports.headline import finding, title_of
from metaprime.reports.read import Suite
from metaprime.reports.scores import ContrastKey, contrasts_of
from metaprime.reports.wording import limits, signed
from metaprime.stats.intervals import Contrast, Interval

WIDE = Interval(7.0, 5.0, -150.0, 164.0, 2)


def test_each_contrast_of_the_first_arm_is_told_as_its_corrected_interval_allows(suite: Suite) -> None:
    contrasts = contrasts_of(suite)
    text = finding(suite, contrasts)
    assert text.startswith("F1, AT, K = 20: meta-priming ")
    for (arm, subtracted, method, shots), one in contrasts.items():
        told = f"{signed(one.difference)} {limits(one.corrected, sign=True)}"
        if (arm, method, shots) == ("meta", "pfeiffer", 20):
            title = suite.title(subtracted)
            assert (f"{told} over {title}" in text) == one.bold
            assert (f"not told apart from {title} ({told})" in text) == (not one.bold)


def many(suite: Suite, *corrected: Interval) -> dict[ContrastKey, Contrast]:
    return {
        (f"a{place}", f"b{place}", "head", 20): Contrast(one, 0.5, 1.0, one, 0.05)
        for place, one in enumerate(corrected)
    }


def test_many_pairs_are_counted(suite: Suite) -> None:
    clear, unclear = Interval(5.0, 1.0, 3.0, 7.0, 5), Interval(1.0, 1.0, -3.0, 5.0, 5)
    found = many(suite, unclear, WIDE, WIDE, unclear)
    assert finding(suite, found) == (
        "Of 4 differences none is told apart from zero; 2 have too few seeds for an interval."
    )
    found["c", "d", "head", 20] = Contrast(clear, 0.001, 0.01, clear, 0.05)
    assert finding(suite, found) == (
        "Of 5 differences 1 are told apart from zero: c − d +5.0 [+3.0, +7.0]; 2 have too few seeds for an interval; 2 are "
        "not told apart from it."
    )


def test_few_seeds_and_nothing_claim_nothing(suite: Suite) -> None:
    assert finding(suite, {}) == "No contrast can be computed yet."
    text = finding(suite, {("meta", "none", "head", 20): Contrast(WIDE, 0.5, 0.5, WIDE)})
    assert text.endswith("meta-priming has too few seeds for a comparison with no priming.")
    none = Interval(math.nan, math.nan, math.nan, math.nan, 1)
    assert finding(suite, {("meta", "none", "head", 20): Contrast(none, 1.0, 1.0, none)}).startswith("No contrast")


def test_the_title_has_encoder_data_and_date(suite: Suite) -> None:
    config = {"encoder": {"name": "org/mini"}, "data": {"source": "synthetic:"}}
    record = {**suite.transfers[0].record, "volatile": {"written": "2026-11-27T14:18:53"}}
    transfers = (replace(suite.transfers[0], record=record),)
    told = replace(suite, results=suite.results.model_copy(update={"config": config}), transfers=transfers)
    assert title_of(told) == "paper_tweaks (synthetic), encoder mini, data synthetic, 2026-11-27"
    assert title_of(suite) == "paper_tweaks (synthetic)"
