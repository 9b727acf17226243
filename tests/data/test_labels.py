"""Labels: ids, mapping by name, repair to IOB2, and messages that say where and what to do."""

from __future__ import annotations

import pytest

from metaprime.data.labels import LabelSet, repair, where
from metaprime.types import MetaprimeError, Sentence

LABELS = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O", "GPE": "LOC"})


def sentence(*tags: str, origin: str = "de/train.conll:40") -> Sentence:
    return Sentence(tuple(f"w{index}" for index in range(len(tags))), tags, origin)


def test_a_tags_place_is_its_id() -> None:
    assert LABELS.tags == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
    assert [LABELS.index(tag) for tag in LABELS.tags] == list(range(7))
    with pytest.raises(MetaprimeError, match=r"'B-GPE' is none of .*add its type to data\.labels"):
        LABELS.index("B-GPE")


def test_types_map_by_name_with_their_prefixes() -> None:
    applied = LABELS.apply(sentence("B-GPE", "I-GPE", "B-MISC", "I-MISC", "O", "B-PER"))
    assert applied.sentence.tags == ("B-LOC", "I-LOC", "O", "O", "O", "B-PER")
    assert applied.repaired == applied.converted == ()
    assert applied.sentence.words == ("w0", "w1", "w2", "w3", "w4", "w5")
    assert applied.sentence.origin == "de/train.conll:40"


def test_mapping_is_one_step_and_may_rename_a_known_type() -> None:
    swapped = LabelSet(("PER", "ORG"), {"PER": "ORG", "ORG": "PER"})
    assert swapped.apply(sentence("B-PER", "B-ORG")).sentence.tags == ("B-ORG", "B-PER")


@pytest.mark.parametrize(
    ("raw", "mended", "at"),
    [
        (("I-PER", "I-PER"), ("B-PER", "I-PER"), (0,)),
        (("B-PER", "I-LOC", "I-LOC"), ("B-PER", "B-LOC", "I-LOC"), (1,)),
        (("O", "I-ORG", "O", "I-ORG"), ("O", "B-ORG", "O", "B-ORG"), (1, 3)),
        (("B-ORG", "I-ORG", "B-ORG"), ("B-ORG", "I-ORG", "B-ORG"), ()),
        ((), (), ()),
    ],
)
def test_an_entity_opens_with_b(raw: tuple[str, ...], mended: tuple[str, ...], at: tuple[int, ...]) -> None:
    assert repair(raw) == (mended, at)
    assert LABELS.apply(sentence(*raw))[:2] == (sentence(*mended), at)


def test_repair_sees_mapped_types() -> None:
    assert LABELS.apply(sentence("B-LOC", "I-GPE")) == (sentence("B-LOC", "I-LOC"), (), ())
    assert LABELS.apply(sentence("B-MISC", "I-PER")) == (sentence("O", "B-PER"), (1,), ())


def test_other_schemes_become_iob2() -> None:
    bioes = LABELS.apply(sentence("B-PER", "I-PER", "E-PER", "S-LOC", "O", "S-MISC"))
    assert bioes == (sentence("B-PER", "I-PER", "I-PER", "B-LOC", "O", "O"), (), (2, 3))
    bilou = LABELS.apply(sentence("U-PER", "B-ORG", "L-ORG"))
    assert bilou == (sentence("B-PER", "B-ORG", "I-ORG"), (), (0, 2))


def test_an_unknown_type_names_its_line_and_the_remedy() -> None:
    with pytest.raises(MetaprimeError) as error:
        LABELS.apply(sentence("O", "O", "B-DATE"))
    assert str(error.value) == (
        "de/train.conll:42: tag 'B-DATE' (type DATE) is neither in data.labels ['PER', 'ORG', 'LOC'] nor in "
        "data.label_map; add e.g. data.label_map: {DATE: O}"
    )


@pytest.mark.parametrize("tag", ["PER", "b-PER", "B-", "-", "", "o", "X-PER", "B_PER"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(MetaprimeError, match=r"train\.conll:41: tag '.*' is neither O nor .*must be the last column"):
        LABELS.apply(sentence("O", tag))


def test_where_reads_well_for_every_origin() -> None:
    assert where(sentence(origin="C:/a:b/x.txt:7"), 2) == "C:/a:b/x.txt:9"
    assert where(sentence(origin="de/x.parquet:row 7"), 2) == "de/x.parquet:row 7, word 3"
    assert where(sentence(origin=""), 0) == "sentence, word 1"


@pytest.mark.parametrize(
    ("types", "mapping", "message"),
    [
        ((), {}, r"data\.labels is empty; list the entity types"),
        (("PER", "PER"), {}, r"data\.labels names 'PER' twice; keep one"),
        (("PER", "O"), {}, r"data\.labels: 'O' is no entity type; list types"),
        (("PER", ""), {}, r"data\.labels: '' is no entity type"),
        (("PER SON",), {}, r"data\.labels: 'PER SON' is no entity type"),
        (("PER",), {"GPE": "LOC"}, r"maps 'GPE' to 'LOC', which is neither in data\.labels \['PER'\] nor O; choose"),
        (("PER",), {"O": "PER"}, r"data\.label_map maps 'O'.*remove that key"),
    ],
)
def test_a_wrong_label_set_is_refused(types: tuple[str, ...], mapping: dict[str, str], message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        LabelSet(types, mapping)
