"""Resampled sentences against scipy's bootstrap, and the two-way interval where the answer is known."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from scipy import stats

from metaprime.rng import stream
from metaprime.stats import bootstrap
from metaprime.stats.bootstrap import Counts, Floats, Resampled, mean_of, resample, two_way_t_interval
from metaprime.stats.intervals import t_interval
from metaprime.tasks.tagging.errors import STATISTICS, entities, micro_f1


def corpus(seeds: int, sentences: int, address: str = "counts") -> dict[int, Counts]:
    """Counts of several seeds on the same sentences."""
    draws = stream(0, address)
    gold = draws.integers(4, size=sentences)
    right = [draws.binomial(gold, 0.5 + 0.05 * seed) for seed in range(seeds)]
    return {seed: np.stack([r, r + draws.integers(2, size=sentences), gold], axis=1) for seed, r in enumerate(right)}


def ends(scores: Resampled) -> tuple[float, float]:
    """Percentiles over resamples of the mean over these very seeds."""
    low, high = np.quantile(scores.scores_NR.mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def f1_of(counts: Counts) -> float:
    """Micro-F1 of all sentences together."""
    return float(micro_f1(counts.sum(axis=0, dtype=np.float64)))


def test_f1_of_counts() -> None:
    assert f1_of(np.array([[1, 2, 1], [1, 1, 3]])) == pytest.approx(200 * 2 / (3 + 4))
    assert f1_of(np.array([[2, 2, 2]], dtype=np.uint8)) == 100
    assert f1_of(np.array([[0, 0, 0]])) == f1_of(np.array([[0, 0, 3]])) == 0


def test_scores_are_f1_on_the_same_draws_for_every_seed() -> None:
    counts = corpus(3, 50)
    found = resample({8: counts[2], 1: counts[0], 5: counts[2]}, micro_f1, resamples=20)
    assert found.seeds == (1, 5, 8)
    assert found.observed_R == pytest.approx([f1_of(counts[place]) for place in (0, 2, 2)])
    assert found.scores_NR.shape == (20, 3)
    assert (found.scores_NR[:, 1] == found.scores_NR[:, 2]).all()
    assert len(np.unique(found.scores_NR[:, 0])) > 15


def test_the_draws_are_those_of_scipys_bootstrap_of_sentences() -> None:
    counts = corpus(1, 200)

    def f1(*columns: Any, axis: int) -> Any:
        right, predicted, gold = (column.sum(axis=axis) for column in columns)
        return 200 * right / (predicted + gold)

    theirs = stats.bootstrap(tuple(counts[0].T), f1, paired=True, method="percentile", random_state=stream(1, "theirs"))
    found = resample(counts, micro_f1, resamples=5000)
    expected = theirs.confidence_interval
    assert ends(found) == pytest.approx((expected.low, expected.high), abs=0.2)
    assert found.observed_R.tolist() == [f1_of(counts[0])]


def test_a_difference_is_paired_by_seed_and_by_sentence() -> None:
    counts = corpus(4, 80)
    one, other = resample({0: counts[0], 1: counts[1]}, micro_f1), resample({1: counts[3], 2: counts[2]}, micro_f1)
    difference = one - other
    assert difference.seeds == (1,)
    assert difference.observed_R == pytest.approx([f1_of(counts[1]) - f1_of(counts[3])])
    assert (difference.scores_NR[:, 0] == one.scores_NR[:, 1] - other.scores_NR[:, 0]).all()
    nothing = one - one
    assert (nothing.observed_R.tolist(), ends(nothing)) == ([0, 0], (0, 0))


def test_what_is_not_scored_alike_is_not_paired() -> None:
    counts, elsewhere = corpus(2, 50), corpus(2, 50, "elsewhere")
    one = resample(counts, micro_f1)
    for other in (
        resample(elsewhere, micro_f1),
        resample(counts, micro_f1, seed=1),
        resample(counts, micro_f1, resamples=9),
    ):
        with pytest.raises(ValueError, match="same examples"):
            one - other
    with pytest.raises(ValueError, match="share no seed"):
        one - resample({7: counts[0]}, micro_f1)


def test_a_mean_over_languages() -> None:
    parts = [resample(corpus(3, size, f"language {size}"), micro_f1) for size in (40, 60)]
    mean = mean_of(parts)
    assert mean.observed_R == pytest.approx((parts[0].observed_R + parts[1].observed_R) / 2)
    assert mean.scores_NR == pytest.approx((parts[0].scores_NR + parts[1].scores_NR) / 2)
    assert not (mean - mean).scores_NR.any()
    with pytest.raises(ValueError, match="same examples"):
        mean - parts[0]
    with pytest.raises(ValueError, match="same seeds"):
        mean_of([parts[0], resample(corpus(2, 60), micro_f1)])
    with pytest.raises(ValueError, match="same seeds"):
        mean_of([])


def test_where_only_seeds_differ() -> None:
    """Every sentence of a seed counts the same: nothing is left to the sentences."""
    scores = resample({r: np.tile([r, 10, 10], (30, 1)) for r in (5, 6, 8, 9)}, micro_f1, resamples=4000)
    assert scores.observed_R.tolist() == [50, 60, 80, 90]
    assert two_way_t_interval(scores) == t_interval([50, 60, 80, 90])
    assert ends(scores) == (70, 70)


def test_where_only_sentences_differ() -> None:
    """All seeds predict the same: nothing is left to the seeds."""
    scores = resample(dict.fromkeys(range(4), corpus(1, 100)[0]), micro_f1)
    found = two_way_t_interval(scores)
    assert found.high - found.mean == pytest.approx(stats.norm.ppf(0.975) * scores.scores_NR[:, 0].std(ddof=1))
    nothing = two_way_t_interval(scores - scores)
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)


def test_two_way_by_hand() -> None:
    """Seeds at 70, 72, 74: variance 4, so 4/3 of the mean's. Resampled, each pair of seeds has covariance 2 or so."""
    luck_N = stream(0, "luck").normal(0, math.sqrt(2), size=200_000)
    own_NR = stream(0, "own luck").normal(0, 3, size=(200_000, 3))
    found = two_way_t_interval(Resampled((0, 1, 2), np.array([70.0, 72.0, 74.0]), luck_N[:, None] + own_NR, ""))
    variance = 4 / 3 + 2
    # That of the sentences is taken as known.
    freedom = variance**2 / ((4 / 3) ** 2 / 2)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(variance), rel=0.01)
    assert (found.mean, found.deviation, found.count) == (72, 2, 3)
    opposite = Resampled((0, 1), np.array([70.0, 72.0]), luck_N[:, None] * np.array([1.0, -1.0]), "")
    # Chance below zero takes nothing away.
    assert two_way_t_interval(opposite) == t_interval([70.0, 72.0])


def test_one_seed_says_nothing_of_seeds() -> None:
    scores = resample(corpus(1, 100), micro_f1)
    found = two_way_t_interval(scores)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.mean == pytest.approx(scores.observed_R[0])


def test_equal_input_gives_equal_output_and_order_does_not_matter() -> None:
    counts = corpus(5, 60)
    one, other = resample(counts, micro_f1), resample(dict(reversed(counts.items())), micro_f1)
    assert (one.scores_NR == other.scores_NR).all()
    assert two_way_t_interval(one) == two_way_t_interval(other)
    assert two_way_t_interval(one, 0.5).low > two_way_t_interval(one).low
    assert (resample(counts, micro_f1, seed=1).scores_NR != one.scores_NR).any()


def test_a_large_test_set_is_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = corpus(2, 300)
    whole = ends(resample(counts, micro_f1))
    for chunk in (1, 2000):
        monkeypatch.setattr(bootstrap, "DRAWN_TOGETHER", chunk)
        found = resample(counts, micro_f1)
        assert found.scores_NR.shape == (1000, 2)
        assert ends(found) == pytest.approx(whole, abs=0.5)
    perfect = resample({0: np.ones((300, 3), dtype=int)}, micro_f1, resamples=7)
    assert (perfect.scores_NR == 100).all()


def test_a_thousand_resamples_of_five_seeds_and_a_thousand_sentences_take_a_second() -> None:
    counts = corpus(5, 1000)
    began = time.process_time()
    two_way_t_interval(resample(counts, micro_f1))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no replicates"),
        ({0: np.zeros((0, 3), dtype=int)}, r"at least one: int64 \(0, 3\)"),
        ({0: np.zeros((5, 0), dtype=int)}, r"at least one: int64 \(5, 0\)"),
        ({0: np.zeros(3, dtype=int)}, r"examples x counts, .* \(3,\)"),
        ({0: np.zeros((5, 3))}, "whole numbers .*: float64"),
        ({0: np.array([[-1, 0, 0]])}, "whole numbers from 0"),
        ({0: np.array([[1, 1, 1]]), 1: np.array([[1, 1, 2]])}, "not scored on the same examples"),
        ({0: np.array([[1, 1, 1]]), 1: np.array([[1, 1, 1], [0, 0, 0]])}, "not scored on the same examples"),
        ({0: np.array([[1, 1, 1]]), 1: np.array([[1, 1]])}, "not scored on the same examples"),
    ],
)
def test_what_is_no_count_is_refused(counts: dict[int, Counts], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(counts, micro_f1)


def test_any_score_that_is_a_function_of_sums_is_resampled() -> None:
    def accuracy(sums: Floats) -> Floats:
        return 100 * sums[..., 0] / sums[..., 1]

    draws = stream(0, "answers")
    counts = {seed: np.stack([draws.integers(2, size=80), np.ones(80, dtype=int)], axis=1) for seed in (0, 1)}
    found = resample(counts, accuracy, resamples=50)
    assert found.observed_R.tolist() == [100 * counts[seed][:, 0].mean() for seed in (0, 1)]
    assert found.scores_NR.shape == (50, 2)
    assert len(np.unique(found.scores_NR[:, 0])) > 10
    with pytest.raises(ValueError, match="not scored on the same examples"):
        resample({0: counts[0], 1: counts[1] + [0, 1]}, accuracy)


def test_entities_right_are_no_more_than_those_predicted_and_those_of_gold() -> None:
    """The counts of entities are what they are taken for, whatever the tags: right, predicted, gold."""
    draws, tags = stream(0, "tags of counts"), ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    seen = set()
    for _ in range(300):
        gold, drawn = ([tags[place] for place in draws.integers(len(tags), size=5)] for _ in range(2))
        predicted = [one if draws.random() < 0.7 else other for one, other in zip(gold, drawn, strict=True)]
        right, guessed, there = STATISTICS.of_example({"words": ["a"] * 5, "gold": gold, "predicted": predicted})
        assert 0 <= right <= min(guessed, there)
        assert (guessed, there) == (len(entities(predicted)), len(entities(gold)))
        seen.add((right < guessed, right < there))
    assert len(seen) == 4
