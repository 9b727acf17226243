"""Scores of numbers are SciPy's and scikit-learn's, and constant answers have a value."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy import stats

from metaprime.data.rows import Example
from metaprime.tasks.regression.scores import BY_NAME, metrics_of, score
from metaprime.tasks.regression.settings import MetricName

DRAW = np.random.default_rng(0)


def examples(gold: list[float]) -> list[Example]:
    return [Example(("x",), one) for one in gold]


@pytest.mark.parametrize("draws", [50, pytest.param(2_500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [2, 3, 10, 200])
def test_they_are_those_of_the_definitions(size: int, draws: int) -> None:
    for _ in range(draws):
        # Few values, so that there are ties.
        gold = DRAW.integers(0, 6, size).astype(float)
        answers = np.round(gold + DRAW.normal(size=size), 1)
        if np.ptp(gold) == 0 or np.ptp(answers) == 0:
            continue
        found = score(examples(gold.tolist()), answers.tolist(), "correlation").details
        assert found["pearson"] == pytest.approx(100 * np.corrcoef(gold, answers)[0, 1], abs=1e-10)
        ranks = [stats.rankdata(values) for values in (gold, answers)]
        assert found["spearman"] == pytest.approx(100 * np.corrcoef(*ranks)[0, 1], abs=1e-10)
        assert found["mse"] == pytest.approx(np.mean((gold - answers) ** 2), abs=1e-12)
        assert found["correlation"] == (found["pearson"] + found["spearman"]) / 2
        assert found["mean"]["answer"] == pytest.approx(gold.mean())
        assert found["mean"]["mse"] == pytest.approx(np.mean((gold - gold.mean()) ** 2))
        assert {found["mean"][name] for name in ("correlation", "pearson", "spearman")} == {0}
        assert not found["constant"]


@pytest.mark.parametrize(
    ("gold", "answers", "constant"), [([1, 2, 5], [3, 3, 3], True), ([2, 2, 2], [1, 2, 3], False), ([4], [2], True)]
)
def test_where_there_is_no_correlation_it_counts_as_none(
    gold: list[float], answers: list[float], constant: bool
) -> None:
    found = score(examples(gold), answers, "pearson")
    assert found.headline == found.details["spearman"] == found.details["correlation"] == 0
    assert found.details["constant"] == constant


def test_the_headline_is_the_chosen_metric() -> None:
    for name in get_args(MetricName):
        found = score(examples([0, 1, 5]), [0, 2, 4], name)
        assert found.headline == found.details[name]
        assert metrics_of(name)[0] is BY_NAME[name]
        assert set(metrics_of(name)) == set(BY_NAME.values())
    assert not BY_NAME["mse"].higher_is_better
