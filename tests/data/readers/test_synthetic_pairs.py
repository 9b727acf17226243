"""Synthetic pairs: a sentence, and others that say the same, follow from it, or contradict it."""

from __future__ import annotations

from collections import Counter

import pytest

from metaprime.data.readers import synthetic
from metaprime.data.reading import UNSTATED, TableRow
from metaprime.data.sources import read_records
from metaprime.types import MetaprimeError

COLUMNS = {name: name for name in sorted(synthetic.PAIRS)}


def rows(language: str = "qaa", split: str = "train", seed: str = "") -> list[TableRow]:
    return read_records(f"synthetic:{seed}", language, split, COLUMNS, UNSTATED).rows


def words(text: str) -> list[str]:
    return text.casefold().split()[:-1]


@pytest.mark.parametrize("language", ["qaa", "qaf", "qal", "qat"])
def test_the_relation_is_what_the_sentences_say(language: str) -> None:
    for row in rows(language):
        first, second = words(row.values["first"]), words(row.values["second"])
        relation = row.values["relation"]
        if relation == "same":
            assert Counter(first) == Counter(second)
        elif relation == "entailed":
            # The adjunct is left out, at one end.
            assert len(second) < len(first)
            assert second in (first[: len(second)], first[-len(second) :])
        else:
            assert Counter(first) != Counter(second)
        assert row.values["likeness"] == synthetic.LIKENESS[relation]
        right, wrong = ("choice1", "choice2") if row.values["right"] == "choice1" else ("choice2", "choice1")
        followed, other = words(row.values[right]), words(row.values[wrong])
        assert followed in (first[: len(followed)], first[-len(followed) :])
        assert followed != other


def test_relations_and_places_are_even_and_splits_are_apart() -> None:
    train = rows()
    assert len(train) == synthetic.SPLITS["train"]
    for column, kinds in (("relation", 3), ("right", 2)):
        counts = Counter(row.values[column] for row in train)
        assert len(counts) == kinds
        assert min(counts.values()) > 0.8 * len(train) / kinds
    assert rows() == rows()
    assert rows(seed="1") != rows() != rows("qab")
    texts = {row.values["first"] for row in train}
    assert len(texts & {row.values["first"] for row in rows(split="test")}) < 0.02 * len(texts)


def test_columns_of_both_kinds_do_not_mix() -> None:
    with pytest.raises(MetaprimeError, match="no column 'text'"):
        read_records("synthetic:", "qaa", "train", {"task.text": "text", "task.pair": "second"}, UNSTATED)
    known = read_records("synthetic:", "qaa", "train", {"task.text": "text", "task.label": "label"}, UNSTATED).rows
    assert known[0].origin == "synthetic:0/qaa/train:sentence 1"
