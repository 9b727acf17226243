"""Spans: their words are found whatever their case, marks and possessive."""

from __future__ import annotations

import pytest

from metaprime.tasks.spans.stretches import bare_words, span_of, span_text, stretch


@pytest.mark.parametrize(
    ("first", "wanted", "found"),
    [
        (0, ["the", "cat"], (0, 2)),
        ("4", ["HER"], (4, 5)),
        (5, ["her"], "'her' does not stand at word 5 of 6, but 'slept.'; correct the number"),
        (True, ["her"], "'True' is no number of a word; count words from 0"),
    ],
)
def test_a_span_stands_at_its_number(first: object, wanted: list[str], found: object) -> None:
    assert stretch(["The", "cat's", "owner", "fed", "her,", "slept."], first, wanted) == found


def test_a_span_is_kept_as_two_numbers() -> None:
    assert span_of(span_text((3, 5))) == (3, 5)
    assert bare_words(["Ada's", "cat.", "..."]) == ["ada", "cat", "..."]
