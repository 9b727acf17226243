"""Sources: schemes, paths that are not there, labels applied with one notice."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data import sources
from metaprime.data.rows import Example
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.reading import examine, read
from metaprime.types import MetaprimeError

LABELS = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O"})
ALL = LabelSet(("PER", "ORG", "LOC", "MISC", "DATE"))
DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for language in ("de", "nl"):
        (tmp_path / "corpus" / language).mkdir(parents=True)
        (tmp_path / "corpus" / language / "train.conll").write_text("Ada I-PER\nnaps O\n\nhere O\nAix I-LOC\n", "utf-8")
    return tmp_path / "corpus"


def test_labels_are_applied_and_the_scheme_told_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = root / "de" / "train.conll"
    with caplog.at_level(logging.WARNING):
        sentences = read(f"conll:{root}", "de", "train", Rules(LABELS))
    assert sentences == [
        Example(("Ada", "naps"), ("B-PER", "O"), f"{path}:1"),
        Example(("here", "Aix"), ("O", "B-LOC"), f"{path}:4"),
    ]
    assert caplog.messages == [f"{path}: tags are in IO, converted to IOB2"]


def test_another_scheme_is_converted_with_a_notice(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = root / "de" / "test.conll"
    path.write_text("here O\nAda S-PER\n", "utf-8")
    with caplog.at_level(logging.WARNING):
        assert read(f"conll:{root}", "de", "test", Rules(LABELS))[0].gold == ("O", "B-PER")
    assert caplog.messages == [f"{path}: tags are in a scheme with the prefixes S, converted to IOB2"]


def test_valid_tags_are_no_news(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "de" / "test.conll").write_text("Ada B-PER\nX B-MISC\nY I-MISC\n", "utf-8")
    with caplog.at_level(logging.WARNING):
        assert read(f"conll:{root}", "de", "test", Rules(LABELS))[0].gold == ("B-PER", "O", "O")
    assert caplog.messages == []


def test_an_unknown_type_names_its_line(root: Path) -> None:
    (root / "de" / "test.conll").write_text("here O\n\nin O\n1871 B-DATE\n", "utf-8")
    with pytest.raises(MetaprimeError, match=r"test\.conll:4: type 'DATE' is neither.*label_map: \{DATE: O\}"):
        read(f"conll:{root}", "de", "test", Rules(LABELS))


MISTAKES = """Ada B-PER
naps O

in O
Aix I-LOC

1871 B-DATE

what
"""


def test_the_same_file_under_each_policy(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, path = f"conll:{root}", root / "de" / "test.conll"
    path.write_text(MISTAKES, "utf-8")
    for invalid, refused in (("repair", (7, 9)), ("error", (5, 7, 9))):
        with pytest.raises(MetaprimeError) as error:
            read(source, "de", "test", Rules(LABELS, invalid))
        assert [f"{path}:{line}: " in str(error.value) for line in (5, 7, 9)] == [line in refused for line in (5, 7, 9)]
        reading = examine(source, "de", "test", Rules(LABELS, invalid))
        assert sorted(p.origin for p in reading.problems) == [f"{path}:{line}" for line in (5, 7, 9)]
        assert sum(p.dropped for p in reading.problems) + len(reading.sentences) == 4
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        assert [s.words for s in read(source, "de", "test", Rules(LABELS, "drop"))] == [("Ada", "naps")]
    (message,) = caplog.messages
    assert message.startswith(
        f"{path}: 1 x malformed line, 1 x invalid tag sequence, 1 x unmapped type: 3 of 4 sentences"
    )


def test_numbers_are_named_by_the_config_in_every_format(root: Path) -> None:
    (root / "de" / "test.conll").write_text("Ada 1\nnaps 0\n", "utf-8")
    (root / "de" / "test.jsonl").write_text('{"tokens": ["Ada", "naps"], "tags": [1, 0]}\n', "utf-8")
    columns = {"tokens": [["Ada", "naps"]], "ner_tags": [[1, 0]]}
    pq.write_table(pa.table(columns), root / "de" / "test.parquet")
    for scheme in ("conll", "jsonl", "parquet"):
        (found,) = read(f"{scheme}:{root}", "de", "test", Rules(LABELS, tag_names=["O", "B-PER"]))
        assert found.gold == ("B-PER", "O")
        with pytest.raises(MetaprimeError, match=r"tag '1', but nothing says what numbers mean; .*task\.tag_names: \["):
            read(f"{scheme}:{root}", "de", "test", Rules(LABELS))


def test_a_split_without_a_sentence_is_refused(root: Path) -> None:
    (root / "de" / "test.conll").write_text("\n", "utf-8")
    assert examine(f"conll:{root}", "de", "test", Rules(LABELS)).sentences == []
    with pytest.raises(MetaprimeError, match=r"test\.conll: no sentence in it; give a file"):
        read(f"conll:{root}", "de", "test", Rules(LABELS))


def test_synthetic_text_comes_through_the_same_door() -> None:
    language = sources.languages("synthetic:")[0]
    sentences = read("synthetic:", language, "validation", Rules(LABELS))
    assert (
        {"O", "B-PER", "B-ORG", "B-LOC"} <= {tag for sentence in sentences for tag in sentence.gold} <= set(LABELS.tags)
    )


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real data in {DATA}")
@pytest.mark.parametrize(
    "split", ["dev", pytest.param("train", marks=pytest.mark.slow), pytest.param("test", marks=pytest.mark.slow)]
)
def test_every_real_language_is_read_and_every_row_accounted_for(split: str) -> None:
    read = []
    for corpus in ("wikiann", "wikineural", "masakhaner2"):
        source = f"parquet:{DATA / corpus}"
        for language in sources.languages(source):
            reading = examine(source, language, split, Rules(ALL))
            rows = pq.read_metadata(reading.place).num_rows
            assert len(reading.sentences) == rows > 400
            assert {p.kind for p in reading.problems} <= {"invalid tag sequence"}
            read.append(language)
    assert len(read) == len(set(read)) == 23
