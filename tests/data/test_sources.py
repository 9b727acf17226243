"""Sources: each scheme reaches its reader, and what is not there is refused with what is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data import sources
from metaprime.data.readers import synthetic
from metaprime.data.sources import CORPORA, read_raw
from metaprime.types import MetaprimeError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two languages and one sentence in each."""
    for language, word in (("de", "Ada"), ("nl", "Ida")):
        (tmp_path / "corpus" / language).mkdir(parents=True)
        (tmp_path / "corpus" / language / "train.conll").write_text(f"{word} B-PER\n", "utf-8")
    return tmp_path / "corpus"


@pytest.mark.parametrize("scheme", ["conll", "jsonl", "parquet", "hub"])
def test_each_scheme_reads_its_own_format_with_raw_tags(tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "de"
    folder.mkdir()
    if scheme == "conll":
        (folder / "test.conll").write_text("Ada X-PER\n\nbroken\n", "utf-8")
    elif scheme == "jsonl":
        (folder / "test.jsonl").write_text('{"tokens": ["Ada"], "tags": ["X-PER"]}\n{}\n', "utf-8")
    else:
        table = {"tokens": [["Ada"], None], "ner_tags": [["X-PER"], ["O"]]}
        pq.write_table(pa.table(table), folder / "test.parquet")
    source = f"{scheme}:{folder if scheme == 'hub' else tmp_path}"
    language = "default" if scheme == "hub" else "de"
    assert sources.languages(source) == [language]
    reading = read_raw(source, language, "test")
    assert [(sentence.words, sentence.gold) for sentence in reading.sentences] == [(("Ada",), ("X-PER",))]
    assert [problem.dropped for problem in reading.problems] == [True]


def test_synthetic_text_is_a_reading_without_problems() -> None:
    reading = read_raw("synthetic:3", "qaa", "validation")
    assert reading.sentences == synthetic.read("3", "qaa", "validation")
    assert (reading.problems, reading.place) == ([], "synthetic:3 qaa/validation")
    assert sources.languages("synthetic:3") == list(synthetic.LANGUAGES)


def test_a_root_may_have_a_colon(tmp_path: Path) -> None:
    (tmp_path / "a:b" / "de").mkdir(parents=True)
    (tmp_path / "a:b" / "de" / "train.conll").write_text("Ada O\n", "utf-8")
    assert read_raw(f"conll:{tmp_path / 'a:b'}", "de", "train").sentences[0].words == ("Ada",)


@pytest.mark.parametrize("scheme", sorted(CORPORA))
def test_the_scheme_is_not_a_name_without_its_colon(scheme: str) -> None:
    for ask in (sources.languages, lambda source: read_raw(source, "de", "train")):
        with pytest.raises(MetaprimeError, match=rf"^the source '{scheme}' does not begin .*mean {scheme}:\?"):
            ask(scheme)


@pytest.mark.parametrize("source", ["conl:data", "conll", "", ":x", "C:/data"])
def test_an_unknown_scheme_lists_the_known(source: str) -> None:
    with pytest.raises(MetaprimeError) as error:
        read_raw(source, "de", "train")
    assert f"the source {source!r}" in str(error.value)
    assert "write one of synthetic:, parquet:, conll:, jsonl:, csv:, tsv:, hub:" in str(error.value)
    assert ("did you mean conll:?" in str(error.value)) == source.startswith("conl")


def test_the_empty_root_is_refused() -> None:
    with pytest.raises(MetaprimeError, match="the source names no folder; write it after the colon"):
        sources.languages("conll:")


def test_what_is_not_there_is_listed(root: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"corpsu: no such folder \(.*: corpus\); correct the path$"):
        read_raw(f"conll:{root.parent / 'corpsu'}", "de", "train")
    with pytest.raises(MetaprimeError, match=r"fr: no such language; .*corpus has de, nl; use one"):
        read_raw(f"conll:{root}", "fr", "train")
    with pytest.raises(MetaprimeError, match=r"dev\.conll: no such split; the folder has train\.conll; use one of"):
        read_raw(f"conll:{root}", "de", "dev")
    with pytest.raises(MetaprimeError, match=r"train\.parquet: no such split; the folder has none; use one of these"):
        read_raw(f"parquet:{root}", "de", "train")


@pytest.mark.parametrize("scheme", ["conll", "parquet", "jsonl", "hub"])
@pytest.mark.parametrize("name", ["..", "../corpus/de", "de/../nl", "/etc", "a\\b", "", "."])
def test_names_stay_inside_the_corpus(root: Path, scheme: str, name: str) -> None:
    with pytest.raises(MetaprimeError, match=r"language '.*' is not a plain name; give one without path separators"):
        read_raw(f"{scheme}:{root}", name, "train")
    with pytest.raises(MetaprimeError, match=r"split '.*' is not a plain name; give one without path separators"):
        read_raw(f"{scheme}:{root}", "de", name)


def test_languages_of_a_source(root: Path) -> None:
    assert sources.languages(f"conll:{root}") == ["de", "nl"]
    assert len(sources.languages("synthetic:")) > 1
