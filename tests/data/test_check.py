"""Findings about sentences: each test plants one thing and asks for it, and for nothing else."""

from __future__ import annotations

import pytest

from metaprime.data import check
from metaprime.data.encoding import Lengths
from metaprime.types import Row, Sentence, Window


def said(text: str, tags: str = "", origin: str = "f:1") -> Sentence:
    words = tuple(text.split())
    return Sentence(words, tuple(tags.split()) if tags else ("O",) * len(words), origin)


def test_facts_count_what_is_there() -> None:
    found = check.facts([said("Ada met Bob Lee", "B-PER O B-PER I-PER"), said("Ωμέγα за"), said("一 2")])
    assert found == {
        "sentences": 3,
        "words": 8,
        "longest_words": 4,
        "entities": {"PER": 2},
        "inside_entities": 3 / 8,
        "without_entity": 2,
        "scripts": {"latin": 12 / 20, "greek": 5 / 20, "cyrillic": 2 / 20, "cjk": 1 / 20},
    }
    assert check.facts([])["inside_entities"] == 0


def test_scripts_are_shares_of_the_letters_and_marks_are_none() -> None:
    assert check.scripts([said("शहर , 12 ; cafe\u0301")]) == pytest.approx({"latin": 4 / 7, "devanagari": 3 / 7})


def test_duplicates_are_a_note_and_contradictions_a_problem() -> None:
    split = [said("a b", "B-X O", "f:1"), said("A B", "B-X O", "f:4"), said("c", "", "f:7"), said("C", "B-X", "f:9")]
    note, problem = check.duplicates("aa/train", split)
    assert (note.severity, note.kind, note.count, note.examples) == (
        "note",
        "duplicates",
        2,
        ("f:1 = f:4", "f:7 = f:9"),
    )
    assert (problem.severity, problem.kind, problem.count) == ("problem", "contradictions", 2)
    assert problem.examples == ("f:7 = f:9",)
    assert check.duplicates("aa/train", split[1:3]) == []


def test_texts_in_two_splits_matter_by_what_the_splits_are_for() -> None:
    splits = {
        "aa/train": [said("one", origin="at:1"), said("two", origin="at:2"), said("two", origin="at:3")],
        "aa/test": [said("ONE", origin="as:1")],
        "bb/test": [said("two", origin="bs:1"), said("three")],
    }
    found = {finding.where: finding for finding in check.overlaps(splits)}
    assert {where: finding.severity for where, finding in found.items()} == {
        "aa/train & aa/test": "problem",
        "all splits": "note",
    }
    assert found["aa/train & aa/test"].examples == ("at:1 = as:1",)
    assert (found["all splits"].count, found["all splits"].examples) == (1, ("at:2 = bs:1",))
    strict = check.overlaps(splits, apart=[("bb/test", "aa/train")])
    assert {finding.severity for finding in strict} == {"problem"}
    assert check.overlaps({"aa/train": splits["aa/train"], "bb/test": [said("three")]}) == []


def test_too_small_counts_different_texts() -> None:
    split = [said("a"), said("A"), said("b")]
    assert check.too_small("aa/train", split, 2, "one episode") == []
    (finding,) = check.too_small("aa/train", split, 3, "one episode")
    assert (finding.severity, finding.count) == ("fatal", 2)
    assert finding.text == "2 different sentences, one episode takes 3"


def test_a_split_without_entities_or_without_a_type() -> None:
    assert check.unlabelled("aa/train", [said("a b", "B-PER I-LOC")], ("PER", "LOC")) == []
    assert [f.severity for f in check.unlabelled("aa/train", [said("a b")], ("PER",))] == ["fatal"]
    assert check.unlabelled("aa/train", [], ("PER",)) == []
    (finding,) = check.unlabelled("aa/train", [said("a", "B-PER")], ("PER", "LOC", "ORG"))
    assert (finding.severity, finding.text) == ("problem", "no entity of type LOC, ORG")


def test_what_the_encoder_cannot_see() -> None:
    whole = Row((Window((1, 2), (0, 1), (0, 1), (0, 0)),), said("a b", "B-PER I-PER"))
    cut = Row((Window((1,), (0,), (0,), (0,)),), said("a b", "B-PER I-PER", "f:8"))
    long = Row(cut.windows * 2, said("a"))
    assert check.lengths("aa/train", [whole], Lengths(9), pieces=200, unknown=0) == []
    found = check.lengths("aa/train", [whole, cut, long], Lengths(9), pieces=200, unknown=3)
    assert [(f.severity, f.kind, f.count) for f in found] == [
        ("note", "long sentences", 1),
        ("problem", "entities lost", 1),
        ("problem", "unknown", 3),
    ]
    assert found[1].examples == ("f:8",)
    assert check.lengths("aa/train", [whole], Lengths(9), pieces=300, unknown=3)[0].severity == "note"
