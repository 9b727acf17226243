"""Findings about sentences: each test plants one thing and asks for it, and for nothing else."""

from __future__ import annotations

import pytest

from metaprime.data import audit
from metaprime.data.rows import Example


def said(text: str, tags: str = "", origin: str = "f:1") -> Example:
    words = tuple(text.split())
    return Example(words, tuple(tags.split()) if tags else ("O",) * len(words), origin)


def test_scripts_are_shares_of_the_letters_and_marks_are_none() -> None:
    assert audit.scripts([said("शहर , 12 ; cafe\u0301")]) == pytest.approx({"latin": 4 / 7, "devanagari": 3 / 7})


def test_duplicates_are_a_note_and_contradictions_a_problem() -> None:
    split = [said("a b", "B-X O", "f:1"), said("A B", "B-X O", "f:4"), said("c", "", "f:7"), said("C", "B-X", "f:9")]
    note, problem = audit.duplicates("aa/train", split)
    assert (note.severity, note.kind, note.count, note.examples) == (
        "note",
        "duplicates",
        2,
        ("f:1 = f:4", "f:7 = f:9"),
    )
    assert (problem.severity, problem.kind, problem.count) == ("problem", "contradictions", 2)
    assert problem.examples == ("f:7 = f:9",)
    assert audit.duplicates("aa/train", split[1:3]) == []


def test_texts_in_two_splits_matter_by_what_the_splits_are_for() -> None:
    splits = {
        "aa/train": [said("one", origin="at:1"), said("two", origin="at:2"), said("two", origin="at:3")],
        "aa/test": [said("ONE", origin="as:1")],
        "bb/test": [said("two", origin="bs:1"), said("three")],
    }
    found = {finding.where: finding for finding in audit.overlaps(splits)}
    assert {where: finding.severity for where, finding in found.items()} == {
        "aa/train & aa/test": "problem",
        "all splits": "note",
    }
    assert found["aa/train & aa/test"].examples == ("at:1 = as:1",)
    assert (found["all splits"].count, found["all splits"].examples) == (1, ("at:2 = bs:1",))
    strict = audit.overlaps(splits, apart=[("bb/test", "aa/train")])
    assert {finding.severity for finding in strict} == {"problem"}
    assert audit.overlaps({"aa/train": splits["aa/train"], "bb/test": [said("three")]}) == []


def test_too_small_counts_different_texts() -> None:
    split = [said("a"), said("A"), said("b")]
    assert audit.too_small("aa/train", split, 2, "one episode") == []
    (finding,) = audit.too_small("aa/train", split, 3, "one episode")
    assert (finding.severity, finding.count) == ("fatal", 2)
    assert finding.text == "2 different sentences, one episode takes 3"
