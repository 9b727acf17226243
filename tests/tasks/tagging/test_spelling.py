"""Spellings: the same entities however their tags are written, and what is left alone."""

from __future__ import annotations

import pytest

from metaprime.data.reading import Reading
from metaprime.data.rows import Example
from metaprime.tasks.tagging.labels import LabelSet, Rules, labelled
from metaprime.tasks.tagging.schemes import SchemeName
from metaprime.tasks.tagging.spelling import spelling

LABELS = LabelSet(("PER", "LOC"), {"Misc": "O"})
GOLD = ("B-PER", "I-PER", "O", "B-LOC")


def read(*tags: str, labels: LabelSet | None = LABELS, scheme: SchemeName = "auto") -> Reading:
    sentence = Example(tuple(map(str, range(len(tags)))), tags, "x:1")
    return labelled(Reading([sentence], place="x"), Rules(labels, scheme=scheme))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("b-per i-per o b-loc", "tags are written b-loc, read as B-LOC"),
        ("b_per i_per o b_loc", "tags are written b_loc, read as B-LOC"),
        ("B_PER I_PER O B_LOC", "tags are written B_LOC, read as B-LOC"),
        ("B/PER I/PER O B/LOC", "tags are written B/LOC, read as B-LOC"),
        ("PER-B PER-I O LOC-B", "tags are written LOC-B, read as B-LOC"),
        ("PER_B PER_I O LOC_B", "tags are written LOC_B, read as B-LOC"),
        (
            "PER PER O LOC",
            "tags such as LOC have no prefix: words in a row with one type are read as one entity; "
            "task.scheme names another scheme",
        ),
    ],
)
def test_the_same_entities_in_every_spelling(tags: str, said: str) -> None:
    found = read(*tags.split())
    assert found.sentences[0].gold == GOLD
    assert [(p.kind, p.origin, p.text, p.dropped) for p in found.problems] == [("other scheme", "x", said, False)]


def test_a_spelling_and_a_scheme_are_two_notices() -> None:
    found = read("I_PER", "O", "I_LOC", "B_LOC")
    assert found.sentences[0].gold == ("B-PER", "O", "B-LOC", "B-LOC")
    assert [p.text for p in found.problems] == [
        "tags are written B_LOC, read as B-LOC",
        "tags are in IOB1, converted to IOB2",
    ]
    assert read("s-per", "o", "b-loc", "e-loc").sentences[0].gold == ("B-PER", "O", "B-LOC", "I-LOC")


@pytest.mark.parametrize(("outside", "tags"), [("O", "B I O B"), ("o", "b i o b"), ("O", "B- I- O B-")])
def test_tags_without_a_type_are_of_the_one_type_of_the_run(outside: str, tags: str) -> None:
    for labels, name in ((LabelSet(("AIM",)), "AIM"), (None, "ENTITY")):
        found = read(*tags.split(), labels=labels)
        assert found.sentences[0].gold == (f"B-{name}", f"I-{name}", "O", f"B-{name}")
        assert [p.text for p in found.problems] == [
            f"tags such as {tags.split()[0]} have no type, and are read as those of {name}"
        ]
    several = read(*tags.split())
    assert several.sentences == []
    assert "correct it, or name the one type that it stands for, e.g. task.labels: [PER]" in several.problems[0].text
    assert {p.kind for p in several.problems} == {"unknown tag"}


def test_types_of_lower_case_are_those_of_the_run_if_one_is_meant() -> None:
    assert read("b-per", "b-misc", labels=LABELS).sentences[0].gold == ("B-PER", "O")
    assert read("b-per", "i-per", labels=None).sentences[0].gold == ("B-per", "I-per")
    both = LabelSet(("PER", "Per"))
    assert [p.kind for p in read("b-per", "i-per", labels=both).problems] == ["other scheme"] + ["unmapped type"] * 2
    # Upper-case prefixes leave no doubt about the types.
    assert [p.kind for p in read("B_per", "I_per").problems] == ["other scheme"] + ["unmapped type"] * 2


def test_a_bare_type_that_the_run_does_not_know_is_named() -> None:
    found = read("person-artist", "person-artist", "O")
    assert [p.text for p in found.problems if p.kind == "unmapped type"] == [
        "type 'person-artist' is neither in task.labels ['PER', 'LOC'] nor in task.label_map; "
        "add e.g. task.label_map: {person-artist: O}"
    ] * 2


def test_stated_schemes_are_taken_without_a_notice() -> None:
    bare = read("B-PER", "B-PER", "o", labels=None, scheme="bare")
    assert (bare.sentences[0].gold, bare.problems) == (("B-B-PER", "I-B-PER", "O"), [])
    for scheme in ("IO", "IOB1"):
        inside = read("I-PER", "O", "I-LOC", scheme=scheme)
        assert (inside.sentences[0].gold, inside.problems) == (("B-PER", "O", "B-LOC"), [])
    for scheme in ("IOB2", "BIOES"):
        wrong = read("I-PER", "O", "I-LOC", scheme=scheme)
        assert [p.kind for p in wrong.problems] == ["invalid tag sequence"] * 2
        assert [p.kind for p in read("PER", "PER", "O", scheme=scheme).problems] == ["unknown tag"] * 2


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER b-per b-per O",
        "PER PER LOC",
        "O O O",
        "O PER",
        "O 1 2 1",
        "O - - O",
        "B_PER I-PER O",
        "b_per i/per",
        "e-mail e-mail",
        "",
    ],
)
def test_what_is_written_as_it_should_be_or_in_no_known_way_is_left_alone(tags: str) -> None:
    assert spelling([tags.split()], "auto", ("PER",)) is None


def test_a_file_without_entities_in_lower_case() -> None:
    assert read("o", "o").sentences[0].gold == ("O", "O")
