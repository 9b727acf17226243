"""Scores of texts: the chosen metric is the headline, and intervals over texts compute the same number."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from metaprime.data.rows import Example
from metaprime.tasks.classification.scores import BY_NAME, ERRORS, TRIVIAL, metrics_of, score, statistics
from metaprime.tasks.classification.settings import OF_TWO, MetricName

LABELS = ("bad", "good", "fine")


@pytest.mark.parametrize("name", get_args(MetricName))
def test_intervals_and_headline_agree(name: MetricName) -> None:
    draw = np.random.default_rng(0)
    labels = LABELS[:2] if name in OF_TWO else LABELS
    gold, guess = draw.choice(labels, size=50).tolist(), draw.choice(LABELS[:2], size=50).tolist()
    found = score([Example(("x",), one) for one in gold], guess, name, labels)
    metrics = metrics_of(name, labels)
    assert metrics[0] is BY_NAME[name]
    assert set(metrics) == {metric for own, metric in BY_NAME.items() if own not in OF_TWO or len(labels) == 2}
    # Every metric that is listed has a number in the details, and in those of the majority class.
    for metric in metrics:
        assert math.isfinite(metric.of(found.details))
        assert math.isfinite(TRIVIAL.of(found.details, metric))
    assert found.headline == found.details[name]
    sums = statistics(name, labels)
    lines = [sums.of_example({"gold": one, "predicted": other}) for one, other in zip(gold, guess, strict=True)]
    assert sums.of_sums(np.sum(lines, axis=0, dtype=float)) == pytest.approx(found.headline, abs=1e-9)
    assert [line[-1] for line in lines] == [labels.index(one) for one in gold]


def test_constant_answers_are_said() -> None:
    texts = [Example(("x",), one) for one in ("bad", "good")]
    assert score(texts, ["bad", "bad"], "matthews").details["constant"]
    assert score(texts, ["bad", "bad"], "matthews").headline == 0
    assert not score(texts, ["bad", "good"], "accuracy").details["constant"]


def test_a_line_with_an_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="none of bad, good, fine"):
        statistics("accuracy", LABELS).of_example({"gold": "bad", "predicted": "B-PER"})


def test_mistakes_are_shown_with_both_texts() -> None:
    line = {"text": "Well", "pair": "Ill", "gold": "good", "predicted": "bad"}
    assert ERRORS.of_example(line) == (0, 1)
    assert [(piece.text, piece.type, piece.kind) for piece in ERRORS.show(line, "predicted")] == [
        ("Well", "bad", "wrong"),
        ("Ill", "", ""),
    ]
