"""Labels: ids, mapping by name, repair to IOB2, and messages that say where and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metaprime.data.reading import Policy, Reading
from metaprime.data.rows import Example
from metaprime.tasks.tagging.labels import LabelSet, Rules, labelled, where
from metaprime.types import MetaprimeError

LABELS = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O", "GPE": "LOC"})


def sentence(*tags: str, origin: str = "de/train.conll:40") -> Example:
    return Example(tuple(f"w{index}" for index in range(len(tags))), tags, origin)


def test_a_tags_place_is_its_id() -> None:
    assert LABELS.tags == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
    assert [LABELS.index(tag) for tag in LABELS.tags] == list(range(7))
    with pytest.raises(MetaprimeError, match=r"'B-GPE' is not one of .*add its type to task\.labels"):
        LABELS.index("B-GPE")


def apply(*tags: str, invalid: Policy = "repair", labels: LabelSet | None = LABELS) -> Reading:
    return labelled(Reading([sentence(*tags)], place="de/train.conll"), Rules(labels, invalid))


def tags_of(reading: Reading) -> list[tuple[str, ...]]:
    return [sentence.gold for sentence in reading.sentences]


def test_types_map_by_name_with_their_prefixes() -> None:
    found = apply("B-GPE", "I-GPE", "B-MISC", "I-MISC", "O", "B-PER")
    assert found.sentences == [replace(sentence(*"012345"), gold=("B-LOC", "I-LOC", "O", "O", "O", "B-PER"))]
    assert found.problems == []


def test_mapping_is_one_step_and_may_rename_a_known_type() -> None:
    swapped = LabelSet(("PER", "ORG"), {"PER": "ORG", "ORG": "PER"})
    assert tags_of(apply("B-PER", "B-ORG", labels=swapped)) == [("B-ORG", "B-PER")]


def test_without_labels_every_type_is_taken() -> None:
    assert tags_of(apply("B-GPE", "I-GPE", "O", "S-DATE", labels=None)) == [("B-GPE", "I-GPE", "O", "B-DATE")]


def test_neighbours_of_different_types_stay_two_entities_when_their_types_become_one() -> None:
    assert tags_of(apply("B-LOC", "B-GPE", "I-GPE")) == [("B-LOC", "B-LOC", "I-LOC")]
    assert tags_of(apply("B-LOC", "I-GPE")) == [("B-LOC", "B-LOC")]


def test_a_sequence_within_a_dropped_type_is_nobodys_problem() -> None:
    found = apply("B-PER", "I-MISC", "I-PER", invalid="error")
    assert [problem.origin for problem in found.problems] == ["de/train.conll:42"]
    assert apply("B-PER", "I-MISC").problems == []


def test_an_invalid_sequence_is_mended_or_costs_the_sentence() -> None:
    for invalid, tags, dropped in (
        ("repair", [("B-PER", "O", "B-LOC")], False),
        ("drop", [], True),
        ("error", [], True),
    ):
        found = apply("B-PER", "O", "I-LOC", invalid=invalid)
        assert tags_of(found) == tags
        assert [(p.kind, p.origin, p.dropped) for p in found.problems] == [
            ("invalid tag sequence", "de/train.conll:42", dropped)
        ]


def test_of_several_problems_in_a_sentence_one_costs_it() -> None:
    found = apply("B-PER", "I-LOC", "DATE", "B-DATE")
    assert [(p.kind, p.dropped) for p in found.problems] == [
        ("unknown tag", True),
        ("unmapped type", False),
        ("invalid tag sequence", False),
    ]


def test_a_scheme_is_named_once_and_costs_nothing() -> None:
    text = Reading([sentence("I-PER", "B-PER"), sentence("O", "I-LOC")], place="x.conll")
    found = labelled(text, Rules(LABELS, "error"))
    assert tags_of(found) == [("B-PER", "B-PER"), ("O", "B-LOC")]
    assert [(p.kind, p.origin, p.text, p.dropped) for p in found.problems] == [
        ("other scheme", "x.conll", "tags are in IOB1, converted to IOB2", False)
    ]


def test_an_unknown_type_names_its_line_and_the_remedy() -> None:
    found = apply("O", "O", "B-DATE")
    assert [(p.origin, p.text) for p in found.problems] == [
        (
            "de/train.conll:42",
            "type 'DATE' is neither in task.labels ['PER', 'ORG', 'LOC'] nor in task.label_map; "
            "add e.g. task.label_map: {DATE: O}",
        )
    ]


def test_a_type_in_another_case_is_not_taken_but_the_remedy_is_named() -> None:
    (problem,) = apply("B-Per").problems
    assert problem.text.endswith("; add e.g. task.label_map: {Per: PER}")


def test_a_type_called_o_is_not_outside_unless_somebody_says_so() -> None:
    assert [p.kind for p in apply("B-O", "O").problems] == ["unmapped type"]
    assert tags_of(apply("B-O", "O", labels=LabelSet(("PER",), {"O": "O"}))) == [("O", "O")]


@pytest.mark.parametrize("tag", ["PER", "b-PER", "B-", "-", "", "o", "X-PER", "B_PER"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    found = apply("O", tag)
    assert [(p.kind, p.origin) for p in found.problems] == [("unknown tag", "de/train.conll:41")]
    assert "is neither O nor PREFIX-TYPE such as B-PER; correct it" in found.problems[0].text


def test_numbers_mean_what_tag_names_says() -> None:
    numbers = Reading([sentence("1", "2", "0"), sentence("3", "-1")], place="x")
    found = labelled(numbers, Rules(LABELS, "repair", ["O", "B-PER", "I-PER"]))
    assert tags_of(found) == [("B-PER", "I-PER", "O")]
    assert [p.text for p in found.problems] == [
        f"tag '{number}', but task.tag_names names 0 to 2; list the tags in their order, e.g. "
        "task.tag_names: [O, B-PER, I-PER]"
        for number in (3, -1)
    ]
    assert "tag '1', but nothing says what numbers mean" in labelled(numbers, Rules(LABELS, "repair")).problems[0].text


def test_where_reads_well_for_every_origin() -> None:
    assert where(sentence(origin="C:/a:b/x.txt:7"), 2) == "C:/a:b/x.txt:9"
    assert where(sentence(origin="de/x.parquet:row 7"), 2) == "de/x.parquet:row 7, word 3"
    assert where(sentence(origin=""), 0) == "sentence, word 1"


@pytest.mark.parametrize(
    ("types", "mapping", "message"),
    [
        ((), {}, r"task\.labels is empty; list the entity types"),
        (("PER", "PER"), {}, r"task\.labels names 'PER' twice; keep one"),
        (("PER", "O"), {}, r"task\.labels: 'O' is not an entity type; list types"),
        (("PER", ""), {}, r"task\.labels: '' is not an entity type"),
        (("PER SON",), {}, r"task\.labels: 'PER SON' is not an entity type"),
        (("PER",), {"GPE": "LOC"}, r"maps 'GPE' to 'LOC', which is neither in task\.labels \['PER'\] nor O; choose"),
        (("PER",), {"O": "PER"}, r"task\.label_map maps 'O'.*remove that key"),
    ],
)
def test_a_wrong_label_set_is_refused(types: tuple[str, ...], mapping: dict[str, str], message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        LabelSet(types, mapping)


def test_of_sentences_with_equal_tags_each_is_kept_and_each_problem_is_its_own() -> None:
    labels = LabelSet(("PER",), {"MISC": "O"})
    golds = [("B-PER", "B-MISC"), ("B-PER", "B-LOC"), ("I-PER", "O")]
    sentences = [Example((f"a{n}", "b"), gold, f"f:{10 * n}") for n, gold in enumerate([*golds, *golds])]
    found = labelled(Reading(sentences), Rules(labels))
    assert [(s.words[0], s.gold) for s in found.sentences] == [
        *(("a0", ("B-PER", "O")), ("a2", ("B-PER", "O")), ("a3", ("B-PER", "O")), ("a5", ("B-PER", "O"))),
    ]
    assert [(p.kind, p.origin) for p in found.problems] == [
        *(("unmapped type", "f:11"), ("invalid tag sequence", "f:20")),
        *(("unmapped type", "f:41"), ("invalid tag sequence", "f:50")),
    ]
