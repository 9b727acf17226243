"""Intervals against scipy's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from metaprime.stats.intervals import p_value, paired_contrast, t_interval

VALUES = [71.2, 73.9, 70.4, 75.0, 72.2]


@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_the_interval_is_students(confidence: float) -> None:
    found = t_interval(VALUES, confidence)
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.mean == pytest.approx(72.54)
    assert found.deviation == pytest.approx(np.std(VALUES, ddof=1))
    assert found.count == 5


def test_a_contrast_is_the_paired_test_over_shared_seeds() -> None:
    one = {3: 70.0, 0: 74.0, 1: 71.5, 7: 0.0}
    other = {0: 72.0, 1: 71.0, 3: 69.5, 8: 99.0}
    found = paired_contrast(one, other)
    test = stats.ttest_rel([74.0, 71.5, 70.0], [72.0, 71.0, 69.5])
    expected = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (found.mean, found.count) == (1.0, 3)
    assert (found.low > 0) == (test.pvalue < 0.05)
    back = paired_contrast(other, one)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_one_replicate_has_no_interval() -> None:
    found = t_interval([70.5])
    assert (found.mean, found.count) == (70.5, 1)
    assert all(map(math.isnan, (found.deviation, found.low, found.high)))


def test_no_replicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no replicates"):
        t_interval([])
    with pytest.raises(ValueError, match="no replicates"):
        paired_contrast({0: 1.0}, {1: 1.0})


def test_the_p_value_is_the_paired_tests() -> None:
    one, other = {0: 74.0, 1: 71.5, 2: 70.0, 3: 73.0}, {0: 72.0, 1: 71.0, 2: 69.5, 3: 73.4}
    expected = stats.ttest_rel(list(one.values()), list(other.values())).pvalue
    assert p_value(paired_contrast(one, other)) == pytest.approx(expected, rel=1e-12)
    assert p_value(paired_contrast(other, one)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_excludes_zero_where_the_p_value_is_small(confidence: float) -> None:
    for shift in np.linspace(-4, 4, 33):
        found = t_interval([value - 72.5 + shift for value in VALUES], confidence)
        assert found.excludes_zero == (p_value(found) < 1 - confidence)


def test_without_deviation_there_is_no_doubt_and_no_warning() -> None:
    assert p_value(t_interval([0.0, 0.0, 0.0])) == 1.0
    assert p_value(t_interval([0.5, 0.5])) == 0.0
    assert t_interval([-0.5, -0.5]).excludes_zero
    assert not t_interval([0.0, 0.0]).excludes_zero


def test_one_replicate_has_no_p_value() -> None:
    assert math.isnan(p_value(t_interval([3.0])))
    assert not t_interval([3.0]).excludes_zero
