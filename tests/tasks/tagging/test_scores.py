"""Entity scores on examples small enough to count by hand."""

from __future__ import annotations

import json

import pytest

from metaprime.tasks.tagging.scores import entity_scores


def counts(precision: float, recall: float, f1: float, entities: int) -> dict[str, object]:
    return {
        "precision": pytest.approx(precision),
        "recall": pytest.approx(recall),
        "f1": pytest.approx(f1),
        "entities": entities,
    }


def test_lenient_and_strict_differ_where_an_entity_opens_with_inside() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    predicted = [["I-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    scores = entity_scores(gold, predicted)
    assert scores["sentences"] == 2
    # Lenient: PER right though it opens with I-; LOC one of two right. Strict: the I- PER is no entity at all.
    assert scores["lenient"]["overall"] == counts(200 / 3, 200 / 3, 200 / 3, 3)
    assert scores["lenient"]["types"] == {"LOC": counts(50, 50, 50, 2), "PER": counts(100, 100, 100, 1)}
    assert scores["strict"]["overall"] == counts(50, 100 / 3, 40, 3)
    assert scores["strict"]["types"] == {"LOC": counts(50, 50, 50, 2), "PER": counts(0, 0, 0, 1)}


def test_a_type_in_the_middle_of_an_entity_splits_it_leniently_only() -> None:
    scores = entity_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "I-LOC", "B-LOC"]])
    assert scores["lenient"]["overall"] == counts(200 / 3, 100, 80, 2)
    assert scores["strict"]["overall"] == counts(100, 100, 100, 2)


def test_micro_is_over_entities_not_over_types() -> None:
    gold = [["B-PER"], ["B-PER"], ["B-PER"], ["B-LOC"]]
    predicted = [["B-PER"], ["B-PER"], ["B-PER"], ["B-PER"]]
    assert entity_scores(gold, predicted)["lenient"]["overall"] == counts(75, 75, 75, 4)


def test_a_boundary_that_is_off_counts_nothing() -> None:
    scores = entity_scores([["B-PER", "I-PER"]], [["B-PER", "O"]])
    assert scores["lenient"]["overall"] == counts(0, 0, 0, 1)


@pytest.mark.parametrize("reading", ["lenient", "strict"])
def test_nothing_predicted_and_nothing_there_are_zeros(reading: str) -> None:
    nothing = entity_scores([["B-PER", "O"]], [["O", "O"]])[reading]
    assert nothing == {"overall": counts(0, 0, 0, 1), "types": {"PER": counts(0, 0, 0, 1)}}
    empty = entity_scores([["O", "O"]], [["O", "O"]])[reading]
    assert empty == {"overall": counts(0, 0, 0, 0), "types": {}}
    spurious = entity_scores([["O", "O"]], [["B-PER", "O"]])[reading]
    assert spurious["overall"] == counts(0, 0, 0, 0)


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="sentence 1: 2 gold tags, 1 predicted"):
        entity_scores([["O"], ["B-PER", "O"]], [["O"], ["B-PER"]])
    with pytest.raises(ValueError, match="zip"):
        entity_scores([["O"], ["O"]], [["O"]])


def test_scores_are_plain_numbers() -> None:
    scores = entity_scores([("B-PER", "O")], [("B-PER", "O")])
    assert json.loads(json.dumps(scores)) == scores
