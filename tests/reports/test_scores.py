"""What scores come to: means over complete seeds, corrected contrasts, gains over the control."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from toy_suite import edit

from metaprime.reports.read import Suite, read_suite
from metaprime.reports.scores import contrasts_of, gains_over, middle_shots, score_interval
from metaprime.stats.intervals import correct, paired_contrast, t_interval


def test_scores_are_means_over_seeds_with_an_interval_over_sentences_too(suite: Suite) -> None:
    found = score_interval(suite, "meta", "head", 20)
    assert found is not None
    interval, over_sentences = found
    by_seed = suite.by_seed("meta", "head", 20)
    expected = np.mean([t.score for t in suite.select(arm="meta", method="head", shots=20)])
    assert over_sentences
    assert interval.mean == pytest.approx(expected)
    assert interval.deviation == pytest.approx(t_interval(list(by_seed.values())).deviation)


def test_contrasts_are_corrected_over_all_of_them(suite: Suite) -> None:
    found = contrasts_of(suite)
    assert len(found) == 3 * 2 * 2
    pairs = {
        (one, other, method, shots): (suite.by_seed(one, method, shots), suite.by_seed(other, method, shots))
        for one, other, method, shots in found
    }
    assert found == correct(pairs)


def test_a_contrast_that_cannot_be_tested_yet_counts_among_the_others(small: Path) -> None:
    edit(small, lambda results: results["arms"].update(late={"title": "to come", "priming": "ffff"}))
    alone = contrasts_of(read_suite(small))["meta", "none", "head", 50]
    edit(small, lambda results: results["contrasts"].append(["late", "none"]))
    both = contrasts_of(read_suite(small))
    assert math.isnan(both["late", "none", "head", 50].p)
    assert both["meta", "none", "head", 50].adjusted_p == pytest.approx(min(1, 2 * alone.p))


def test_where_no_contrast_can_be_computed_there_is_none(small: Path) -> None:
    edit(small, lambda results: results.update(records=[]))
    assert contrasts_of(read_suite(small)) == {}


def test_gains_are_over_the_control_by_language(suite: Suite) -> None:
    assert suite.control == "none"
    gains = gains_over(suite, "none", 20)
    one, other = (
        {t.entry.seed: t.score for t in suite.select(arm=arm, method="pfeiffer", language="qai", shots=20)}
        for arm in ("meta", "none")
    )
    assert gains["meta", "pfeiffer", "qai"] == paired_contrast(one, other)
    assert len(gains) == 4 * 2 * 2
    assert "none" not in {arm for arm, _, _ in gains}


def test_the_middle_k(suite: Suite) -> None:
    assert middle_shots(suite) == 20
