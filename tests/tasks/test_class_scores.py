"""Scores of classes are scikit-learn's, and the same as functions of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from metaprime.tasks.class_scores import OF_COUNTS, UNANSWERED, class_scores

ORACLES = {
    "accuracy": accuracy_score,
    "macro_f1": lambda gold, guess: f1_score(gold, guess, average="macro", zero_division=0),
    "micro_f1": lambda gold, guess: f1_score(gold, guess, average="micro", zero_division=0),
    "matthews": matthews_corrcoef,
}


def counted(gold: Sequence[str], guess: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """A confusion matrix, without the warning of scikit-learn's about a single class."""
    place = {name: number for number, name in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, ([place[name] for name in gold], [place[name] for name in guess]), 1)
    return counts


def drawn(draw: np.random.Generator, answers: str) -> tuple[list[str], list[str]]:
    names = [f"c{number}" for number in range(draw.integers(2, 7))]
    gold = draw.choice(names, size=30).tolist()
    return gold, ["c0"] * 30 if answers == "constant" else draw.choice(names, size=30).tolist()


DRAWS = [60, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("answers", ["random", "constant"])
def test_scores_are_those_of_scikit_learn(answers: str, draws: int) -> None:
    draw = np.random.default_rng(0)
    for _ in range(draws):
        gold, guess = drawn(draw, answers)
        found = class_scores(gold, guess)
        always = [found["majority"]["class"]] * 30
        assert gold.count(always[0]) == max(map(gold.count, gold))
        # As intervals over test examples compute it, where a class of the config may be absent.
        counts = counted(gold, guess, labels=[f"c{number}" for number in range(8)])
        for name, oracle in ORACLES.items():
            expected = 100 * oracle(gold, guess)
            assert abs(found[name] - expected) <= 1e-12
            assert abs(found["majority"][name] - 100 * oracle(gold, always)) <= 1e-12
            assert abs(OF_COUNTS[name](np.stack([counts, counts]))[1] - expected) <= 1e-9


def test_no_answers_at_all_are_zero_and_not_nan() -> None:
    assert {name: of(np.zeros((2, 2))).tolist() for name, of in OF_COUNTS.items()} == dict.fromkeys(OF_COUNTS, 0.0)


def test_one_class_alone_correlates_with_nothing_and_without_a_warning() -> None:
    found = class_scores(["yes"] * 3, ["yes"] * 3)
    assert (found["accuracy"], found["macro_f1"], found["matthews"]) == (100, 100, 0)


def test_a_missing_answer_is_wrong_and_no_class_of_its_own() -> None:
    found = class_scores(["NOUN", "VERB", "VERB", "NOUN"], ["NOUN", UNANSWERED, "VERB", "NOUN"])
    assert found["accuracy"] == 75
    assert set(found["classes"]) == {"NOUN", "VERB"}
    assert found["classes"]["VERB"] == {"precision": 100, "recall": 50, "f1": pytest.approx(200 / 3), "count": 2}
    assert found["macro_f1"] == pytest.approx((100 + 200 / 3) / 2)


def test_scores_of_glue_of_the_positive_class_and_means_of_two() -> None:
    # Three of four paraphrases found, and one false alarm in six pairs: F1 = 6 / 8, accuracy = 4 / 6.
    gold, guess = list("111100"), list("111010")
    found = class_scores(gold, guess, positive="1")
    assert found["f1"] == pytest.approx(75)
    assert found["accuracy_f1"] == pytest.approx((75 + 400 / 6) / 2)
    counts = counted(gold, guess, labels=["0", "1"])
    assert OF_COUNTS["f1"](counts) == pytest.approx(75)
    assert OF_COUNTS["accuracy_f1"](counts) == pytest.approx(found["accuracy_f1"])
    # Three classes, one of them never answered: F1 of 2/3, 2/3 and 0, accuracy 1/2.
    own = class_scores(list("aabc"), list("abba"))
    assert own["accuracy_macro_f1"] == pytest.approx((50 + 100 * (0.5 + 2 / 3 + 0) / 3) / 2)
    assert "f1" not in own


@pytest.mark.parametrize("draws", DRAWS)
def test_means_and_the_positive_class_as_scikit_learn_has_them(draws: int) -> None:
    draw = np.random.default_rng(1)
    for _ in range(draws):
        gold, guess = (draw.choice(["no", "yes"], size=12).tolist() for _ in range(2))
        found = class_scores(gold, guess, positive="yes")
        accuracy, f1 = accuracy_score(gold, guess), f1_score(gold, guess, pos_label="yes", zero_division=0)
        macro = f1_score(gold, guess, average="macro", zero_division=0)
        expected = {"f1": f1, "accuracy_f1": (accuracy + f1) / 2, "accuracy_macro_f1": (accuracy + macro) / 2}
        counts = counted(gold, guess, labels=["no", "yes"])
        for name, value in expected.items():
            assert abs(found[name] - 100 * value) <= 1e-12
            assert abs(OF_COUNTS[name](counts) - 100 * value) <= 1e-9
