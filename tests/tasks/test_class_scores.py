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
        assert found["majority"]["accuracy"] == pytest.approx(100 * max(map(gold.count, gold)) / 30)
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
