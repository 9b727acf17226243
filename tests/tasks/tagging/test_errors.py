"""Kinds of entity errors: each rule by example, and the promise that nothing is counted twice on random tags."""

from __future__ import annotations

import pytest
from seqeval.metrics import f1_score

from metaprime.rng import stream
from metaprime.tasks.tagging.errors import KINDS, Entity, ErrorCounts, count, entities, matches

TAGS = ("O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def kinds(gold: str, predicted: str) -> list[str]:
    return [match.kind for match in matches(gold.split(), predicted.split())]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("O O", "O O", []),
        ("B-PER I-PER", "B-PER I-PER", ["correct"]),
        ("B-PER I-PER", "B-LOC I-LOC", ["type"]),
        ("B-PER I-PER", "B-PER O", ["boundary"]),
        ("B-PER O O", "B-PER I-PER I-PER", ["boundary"]),
        ("B-PER I-PER", "O O", ["missed"]),
        ("O O", "B-PER I-PER", ["spurious"]),
        ("B-PER I-PER", "B-LOC O", ["missed", "spurious"]),  # neither limits nor type
        ("B-PER I-PER I-PER", "B-PER B-PER I-PER", ["boundary", "spurious"]),  # a gold entity cut in two
        ("B-PER B-PER", "B-PER I-PER", ["boundary", "missed"]),  # two taken for one
        ("B-PER I-PER O", "O I-PER O", ["boundary"]),  # lenient: opens an entity
    ],
)
def test_each_rule(gold: str, predicted: str, expected: list[str]) -> None:
    assert kinds(gold, predicted) == expected


def test_the_pair_with_most_words_in_common_is_made() -> None:
    found = matches(["B-PER", "I-PER", "I-PER", "I-PER"], ["B-PER", "B-PER", "I-PER", "I-PER"])
    assert found[0].predicted == Entity("PER", 1, 3)
    assert found[1].predicted == Entity("PER", 0, 0)


def test_equal_words_are_matched_before_overlaps() -> None:
    found = matches(["B-LOC", "I-LOC", "B-PER"], ["B-PER", "I-PER", "B-PER"])
    assert [match.kind for match in found] == ["correct", "type"]


def test_sentences_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 gold tags, 2 predicted"):
        matches(["O"], ["O", "O"])


def test_every_entity_counts_once_and_correct_ones_are_seqevals() -> None:
    draw = stream(0, "tags")
    gold, predicted, total = [], [], ErrorCounts()
    for _ in range(300):
        one, other = ([TAGS[i] for i in draw.integers(len(TAGS), size=8)] for _ in range(2))
        other = [a if draw.random() < 0.6 else b for a, b in zip(one, other, strict=True)]
        found = matches(one, other)
        assert sorted(m.gold for m in found if m.gold) == sorted(entities(one))
        assert sorted(m.predicted for m in found if m.predicted) == sorted(entities(other))
        total += count(found)
        gold.append(one)
        predicted.append(other)
    assert 200 * total.correct / (total.gold + total.predicted) == pytest.approx(100 * f1_score(gold, predicted))
    assert all(getattr(total, kind) > 20 for kind in KINDS)
