"""Intervals against scipy's own; Holm against its definitions and an example worked by hand, and what a table makes of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from metaprime.rng import stream
from metaprime.stats.intervals import correct, holm, p_value, paired_contrast, t_interval

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


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("noise", [0.0, 1e-12])
def test_equal_differences_have_the_p_of_the_sign_test(count: int, noise: float) -> None:
    values = [7.0 + noise * place for place in range(count)]
    sign_test = stats.binomtest(count, count).pvalue
    assert p_value(t_interval(values)) == pytest.approx(sign_test)
    assert p_value(t_interval([-value for value in values])) == pytest.approx(sign_test)


def test_two_seeds_have_no_p_below_what_two_signs_can_give() -> None:
    apart = t_interval([-1.0, 6.0])
    assert p_value(apart) == pytest.approx(stats.ttest_1samp([-1.0, 6.0], 0).pvalue, rel=1e-9)
    assert stats.ttest_1samp([5.0, 5.1], 0).pvalue < 0.01
    assert p_value(t_interval([5.0, 5.1])) == 0.5


def test_an_interval_is_measured_by_its_scale() -> None:
    found = t_interval([10.0, 30.0])
    assert found.wider_than(100.0)
    assert not found.wider_than(300.0)
    assert not t_interval([3.0]).wider_than(0.0)


def test_without_deviation_there_is_no_warning() -> None:
    assert p_value(t_interval([0.0, 0.0, 0.0])) == 1.0
    assert t_interval([-0.5, -0.5]).excludes_zero
    assert not t_interval([0.0, 0.0]).excludes_zero


def test_one_replicate_has_no_p_value() -> None:
    assert math.isnan(p_value(t_interval([3.0])))
    assert not t_interval([3.0]).excludes_zero


def stepping_down(p_values: Sequence[float], level: float) -> set[int]:
    """Which are rejected: the smallest p against level / m, the next against level / (m - 1), until one fails."""
    left, rejected = list(range(len(p_values))), set()
    while left:
        smallest = min(left, key=lambda place: p_values[place])
        if p_values[smallest] > level / len(left):
            break
        left.remove(smallest)
        rejected.add(smallest)
    return rejected


def closed_test(p_values: Sequence[float], place: int) -> float:
    """Holm is Bonferroni on every family that a hypothesis belongs to: the worst of those adjusted p-values."""
    others = [p for at, p in enumerate(p_values) if at != place]
    families = itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(len(p_values)))
    return max(min(1.0, (1 + len(family)) * min(p_values[place], *family, 1.0)) for family in families)


def test_worked_by_hand() -> None:
    # Sorted: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04, but no less than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_agrees_with_both_definitions() -> None:
    draws = stream(0, "p-values")
    for _ in range(200):
        # Small ones, and ties.
        p_values = (draws.random(int(draws.integers(1, 7))) ** 3).round(2).tolist()
        adjusted = holm(p_values)
        assert adjusted == pytest.approx([closed_test(p_values, place) for place in range(len(p_values))])
        # Between the values that rounded p-values can reach.
        for level in (0.013, 0.053, 0.107, 0.531):
            assert {place for place, p in enumerate(adjusted) if p <= level} == stepping_down(p_values, level)


def test_what_cannot_be_tested_yet_counts() -> None:
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.04, 0.03])
    assert math.isnan(adjusted[1])


CONTROL = {0: 70.0, 1: 71.0, 2: 69.0, 3: 70.5, 4: 69.5}


def arm(*gains: float) -> dict[int, float]:
    return {seed: CONTROL[seed] + gain for seed, gain in enumerate(gains)}


def test_a_table() -> None:
    clear, middling, nothing = (
        arm(5.0, 5.2, 4.9, 5.1, 5.3),
        arm(0.9, 2.8, 0.5, 2.2, 1.2),
        arm(1.0, -1.0, 0.5, -0.4, 0.0),
    )
    table = correct({"clear": (clear, CONTROL), "middling": (middling, CONTROL), "nothing": (nothing, CONTROL)})
    for name, one in (("clear", clear), ("middling", middling), ("nothing", nothing)):
        test = stats.ttest_rel(list(one.values()), list(CONTROL.values()))
        alone, corrected = test.confidence_interval(0.95), test.confidence_interval(1 - 0.05 / 3)
        found = table[name]
        assert found.p == pytest.approx(test.pvalue)
        assert (found.interval.low, found.interval.high) == pytest.approx((alone.low, alone.high))
        assert (found.corrected.low, found.corrected.high) == pytest.approx((corrected.low, corrected.high))
        assert found.difference == found.interval.mean == found.corrected.mean
    assert [(c.adjusted_p <= 0.05, c.bold) for c in table.values()] == [(True, True), (True, False), (False, False)]
    # Alone in its table the middling one would be bold.
    assert correct({0: (middling, CONTROL)})[0].bold


def test_one_seed_claims_nothing() -> None:
    table = correct({"one seed": ({0: 99.0}, CONTROL), "five": (arm(5.0, 5.2, 4.9, 5.1, 5.3), CONTROL)})
    assert not table["one seed"].adjusted_p <= 0.05
    assert not table["one seed"].bold
    assert all(math.isnan(value) for value in (table["one seed"].p, table["one seed"].adjusted_p))
    # Of a family of two.
    assert table["five"].adjusted_p == 2 * table["five"].p


@pytest.mark.parametrize(("seeds", "bold"), [(2, False), (3, False), (5, False), (6, True)])
def test_equal_differences_are_bold_only_if_their_signs_are_evidence(seeds: int, bold: bool) -> None:
    control = {seed: 70.0 + seed for seed in range(seeds)}
    found = correct({0: ({seed: score + 7.0 for seed, score in control.items()}, control)})[0]
    assert found.corrected.excludes_zero
    assert found.bold == bold == (found.adjusted_p <= 0.05)


def test_two_seeds_are_never_bold() -> None:
    found = correct({0: ({0: 75.0, 1: 76.001}, {0: 70.0, 1: 71.0})})[0]
    assert found.corrected.excludes_zero
    assert not found.bold


def test_an_empty_table_and_arms_without_a_shared_seed() -> None:
    assert correct({}) == {}
    with pytest.raises(ValueError, match="no replicates"):
        correct({0: ({7: 1.0}, CONTROL)})
