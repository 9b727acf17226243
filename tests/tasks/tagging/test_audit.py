"""Facts and findings about tagged sentences."""

from __future__ import annotations

from metaprime.data.rows import Example, Lengths, Row, Window
from metaprime.tasks.tagging import audit
from metaprime.tasks.tagging.task import TaggingConfig


def said(text: str, tags: str = "", origin: str = "f:1") -> Example:
    words = tuple(text.split())
    return Example(words, tuple(tags.split()) if tags else ("O",) * len(words), origin)


def test_facts_count_what_is_there() -> None:
    found = audit.facts([said("Ada met Bob Lee", "B-PER O B-PER I-PER"), said("Ωμέγα за"), said("一 2")])
    assert found == {
        "sentences": 3,
        "words": 8,
        "longest_words": 4,
        "entities": {"PER": 2},
        "inside_entities": 3 / 8,
        "without_entity": 2,
        "scripts": {"latin": 12 / 20, "greek": 5 / 20, "cyrillic": 2 / 20, "cjk": 1 / 20},
    }
    assert audit.facts([])["inside_entities"] == 0


def test_a_split_without_entities_or_without_a_type() -> None:
    both, every = TaggingConfig(labels=("PER", "LOC")), TaggingConfig(labels=("PER", "LOC", "ORG"))
    assert audit.labels("aa/train", [said("a b", "B-PER I-LOC")], both) == []
    assert [f.severity for f in audit.labels("aa/train", [said("a b")], both)] == ["fatal"]
    assert audit.labels("aa/train", [], both) == []
    assert audit.labels("aa/train", [said("a", "B-PER")]) == []
    (finding,) = audit.labels("aa/train", [said("a", "B-PER")], every)
    assert (finding.severity, finding.text) == ("problem", "no entity of type LOC, ORG")


def test_what_the_encoder_cannot_see() -> None:
    whole = Row((Window((1, 2), (0, 1), (0, 1), (0, 0)),), said("a b", "B-PER I-PER"))
    cut = Row((Window((1,), (0,), (0,), (0,)),), said("a b", "B-PER I-PER", "f:8"))
    long = Row(cut.windows * 2, said("a"))
    assert audit.unseen("aa/train", [whole], Lengths(9), pieces=200, unknown=0) == []
    found = audit.unseen("aa/train", [whole, cut, long], Lengths(9), pieces=200, unknown=3)
    assert [(f.severity, f.kind, f.count) for f in found] == [
        ("note", "long sentences", 1),
        ("problem", "entities lost", 1),
        ("problem", "unknown", 3),
    ]
    assert found[1].examples == ("f:8",)
    assert audit.unseen("aa/train", [whole], Lengths(9), pieces=300, unknown=3)[0].severity == "note"
