"""Scores of classes are scikit-learn's, and the same as functions of a confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from metaprime.tasks.class_scores import OF_COUNTS, UNANSWERED, class_scores

ORACLES = {
    "accuracy": accuracy_score,
    "macro_f1": lambda gold, guess: f1_score(gold, guess, average="macro", zero_division=0),
    "micro_f1": lambda gold, guess: f1_score(gold, guess, average="micro", zero_division=0),
    "matthews": matthews_corrcoef,
}


def drawn(draw: np.random.Generator, answers: str) -> tuple[list[str], list[str]]:
    names = [f"c{number}" for number in range(draw.integers(2, 7))]
    gold = draw.choice(names, size=30).tolist()
    return gold, ["c0"] * 30 if answers == "constant" else draw.choice(names, size=30).tolist()


@pytest.mark.parametrize("answers", ["random", "constant"])
@pytest.mark.parametrize("name", ORACLES)
def test_scores_are_those_of_scikit_learn(name: str, answers: str) -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        gold, guess = drawn(draw, answers)
        expected = pytest.approx(100 * ORACLES[name](gold, guess), abs=1e-12)
        found = class_scores(gold, guess)
        assert found[name] == expected
        always = [found["majority"]["class"]] * 30
        assert gold.count(always[0]) == max(map(gold.count, gold))
        assert found["majority"][name] == pytest.approx(100 * ORACLES[name](gold, always), abs=1e-12)
        # As intervals over test examples compute it, where a class of the config may be absent.
        names = [f"c{number}" for number in range(8)]
        counts = confusion_matrix(gold, guess, labels=names).astype(float)
        assert OF_COUNTS[name](np.stack([counts, counts]))[1] == pytest.approx(
            100 * ORACLES[name](gold, guess), abs=1e-9
        )


def test_no_answers_at_all_are_zero_and_not_nan() -> None:
    assert {name: of(np.zeros((2, 2))).tolist() for name, of in OF_COUNTS.items()} == dict.fromkeys(OF_COUNTS, 0.0)


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
    counts = confusion_matrix(gold, guess, labels=["0", "1"]).astype(float)
    assert OF_COUNTS["f1"](counts) == pytest.approx(75)
    assert OF_COUNTS["accuracy_f1"](counts) == pytest.approx(found["accuracy_f1"])
    # Three classes, one of them never answered: F1 of 2/3, 2/3 and 0, accuracy 1/2.
    own = class_scores(list("aabc"), list("abba"))
    assert own["accuracy_macro_f1"] == pytest.approx((50 + 100 * (0.5 + 2 / 3 + 0) / 3) / 2)
    assert "f1" not in own


@pytest.mark.parametrize("name", ["f1", "accuracy_f1", "accuracy_macro_f1"])
def test_means_and_the_positive_class_as_scikit_learn_has_them(name: str) -> None:
    draw = np.random.default_rng(1)
    for _ in range(200):
        gold, guess = (draw.choice(["no", "yes"], size=12).tolist() for _ in range(2))
        found = class_scores(gold, guess, positive="yes")
        accuracy, f1 = accuracy_score(gold, guess), f1_score(gold, guess, pos_label="yes", zero_division=0)
        macro = f1_score(gold, guess, average="macro", zero_division=0)
        expected = {"f1": f1, "accuracy_f1": (accuracy + f1) / 2, "accuracy_macro_f1": (accuracy + macro) / 2}
        assert found[name] == pytest.approx(100 * expected[name], abs=1e-12)
        counts = confusion_matrix(gold, guess, labels=["no", "yes"]).astype(float)
        assert OF_COUNTS[name](counts) == pytest.approx(100 * expected[name], abs=1e-9)
