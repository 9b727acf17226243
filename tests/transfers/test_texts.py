"""Sentences from text, CoNLL and JSON lines: words as they are, and a tag in the right place."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from metaprime.tasks.spans.settings import SpansConfig
from metaprime.transfers.texts import Input, notice_unspaced, read_input, split_words
from metaprime.types import MetaprimeError


def output(read: Input) -> list[str]:
    """The output where each word is tagged with its own length."""
    return list(read.written([[(word, f"T{len(word)}") for word in words] for words in read.sentences]))


def file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode("utf-8"))
    return str(folder / name)


def test_text_is_one_sentence_however_it_is_broken() -> None:
    assert read_input("Mali bono.\n Bono").sentences == [["Mali", "bono", ".", "Bono"]]
    assert output(read_input("Mali bono.")) == ["Mali\tT4", "bono\tT4", ".\tT1"]


@pytest.mark.parametrize(("tokens", "words"), [(True, ["U.S.", "(here)", "."]), (False, None)])
def test_words_that_are_cut_stay_whole(tokens: bool, words: list[str] | None) -> None:
    found = read_input("U.S. (here) .", tokens=tokens).sentences
    assert found == [words or ["U.S", ".", "(", "here", ")", "."]]


def test_a_file_of_text_has_a_sentence_on_each_line(tmp_path: Path) -> None:
    read = read_input(file(tmp_path, "a.txt", "\ufeffMali bono.\r\n\r\nL'atelier\r\n"))
    assert read.sentences == [["Mali", "bono", "."], ["L'atelier"]]
    assert output(read) == ["Mali\tT4", "bono\tT4", ".\tT1", "", "L'atelier\tT9"]


@pytest.mark.parametrize(
    ("text", "sentences", "added"),
    [
        ("U.S.\tO\nis\tO\n\n\na\tO\n", [["U.S.", "is"], ["a"]], ["\tT4", "\tT2", "", "", "\tT1"]),
        ("Ada B-PER\n\nnaps O\n", [["Ada"], ["naps"]], [" T3", "", " T4"]),
        ("Ada\nnaps\n", [["Ada", "naps"]], ["\tT3", "\tT4"]),
        ("-DOCSTART- O\n\n# O\nb O\n", [["b"]], ["", "", "", " T1"]),
        (
            "# text = du\n1-2\tdu\t_\n1\tde\tX\n2\tle\tX\n2.1\tnul\t_\n",
            [["de", "le"]],
            ["", "\t_", "\tT2", "\tT2", "\t_"],
        ),
        ("New York\tB-LOC\n7\tO\n", [["New York", "7"]], ["\tT8", "\tT1"]),
    ],
)
def test_columns_are_kept_and_get_one_more(
    tmp_path: Path, text: str, sentences: list[list[str]], added: list[str]
) -> None:
    read = read_input(file(tmp_path, "a.conll", text))
    assert read.sentences == sentences
    assert output(read) == [line + end for line, end in zip(text.removesuffix("\n").split("\n"), added, strict=True)]


def test_objects_keep_their_keys(tmp_path: Path) -> None:
    lines = [{"id": 7, "tokens": ["U.S.", "d'Anouk"]}, {"words": ["a\u2028b"], "gold": ["O"]}]
    read = read_input(file(tmp_path, "a", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)))
    assert read.sentences == [["U.S.", "d'Anouk"], ["a\u2028b"]]
    tags = [["T4", "T7"], ["T3"]]
    assert list(map(json.loads, output(read))) == [
        {**line, "predicted": each} for line, each in zip(lines, tags, strict=True)
    ]


def test_standard_input_and_the_form_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def standard(content: bytes, form: str | None = None) -> list[list[str]]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        return read_input("-", form).sentences

    assert standard(b"Mali bono\nBono\n") == [["Mali", "bono"], ["Bono"]]
    assert caplog.messages == []
    assert standard(b"Mali\tO\nBono\tO\n") == [["Mali", "Bono"]]
    assert caplog.messages == ["standard input is read as conll (--format text, conll or jsonl says otherwise)"]
    assert standard(b"Mali\tO\nBono\tO\n", "text") == [["Mali", "O"], ["Bono", "O"]]
    assert standard(b"Mali\nBono\n", "conll") == [["Mali", "Bono"]]


@pytest.mark.parametrize("given", ["no/such", "none.txt", "./none", "none.JSONL"])
def test_a_path_that_leads_nowhere_is_no_sentence(given: str) -> None:
    with pytest.raises(MetaprimeError, match=rf"{given}: no such file; .*standard input"):
        read_input(given)


@pytest.mark.parametrize("text", ["and/or not", "Mali", "3.14", "x" * 5000, "a\0b"])
def test_a_sentence_is_no_path(text: str) -> None:
    assert read_input(text, tokens=True).sentences == [text.split()]


def test_damaged_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"Mali\ncaf\xe9\n")
    cases = [
        (str(tmp_path / "latin"), None, r"latin, line 2: not UTF-8 \(byte 0xe9\)"),
        (str(tmp_path), None, r"is a folder"),
        (file(tmp_path, "e", "\n \n"), None, r"has no word"),
        (file(tmp_path, "j", '{"tokens": ["a"]}\n{"tokens": [1]}\n'), None, r"j, line 2: no JSON object with words"),
        (file(tmp_path, "k", '{"tokens": ["a"]}\n{"tok'), None, r"k, line 2: no JSON object with words"),
        (file(tmp_path, "c", "a\tO\n\tO\n"), None, r"c, line 2: the column of words is empty"),
        ("Mali", "xml", r"--format 'xml' is unknown: text, conll, jsonl"),
        (" ", None, r"the text has no word"),
    ]
    for given, form, message in cases:
        with pytest.raises(MetaprimeError, match=message):
            read_input(given, form)


def test_an_answer_for_each_sentence_has_no_column(tmp_path: Path) -> None:
    assert list(read_input("Mali bono").written(["LOC"])) == ["LOC"]
    with pytest.raises(MetaprimeError, match="one answer for each sentence"):
        list(read_input(file(tmp_path, "a.conll", "a\tO\n")).written(["LOC"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada naps.", ["Ada", "naps", "."]),
        ("  Ada\tnaps\n", ["Ada", "naps"]),
        ('"Ada" (b. 1815), naps!?', ['"', "Ada", '"', "(", "b", ".", "1815", ")", ",", "naps", "!", "?"]),
        ("O'Neill well-known 3.14", ["O'Neill", "well-known", "3.14"]),
        ("...", [".", ".", "."]),
        ("€5 «да»", ["€", "5", "«", "да", "»"]),
        ("वह हिन्दी में पढ़ती है।", ["वह", "हिन्दी", "में", "पढ़ती", "है", "।"]),
        ("مُحَمَّدٌ، هنا؟", ["مُحَمَّدٌ", "،", "هنا", "؟"]),
        ("กรุงเทพฯ ที่", ["กรุงเทพฯ", "ที่"]),
        ("e\u0301te\u0301.", ["e\u0301te\u0301", "."]),
        ("東京。", ["東京", "。"]),
        ("", []),
        (" \n", []),
    ],
)
def test_words_are_split_at_space_and_punctuation_in_every_script(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert "".join(words) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("李雷住在小河镇。", "李雷住在小河镇"),
        ("李雷住。", "李雷住"),
        ("わたしは東京にいます", "わたしは東京にいます"),
        ("สมชายอาศัยอยู่ในเชียงใหม่", "สมชายอาศัยอยู่ในเชียงใหม่"),
    ],
)
def test_a_sentence_that_is_one_word_is_said(text: str, first: str, caplog: pytest.LogCaptureFixture) -> None:
    notice_unspaced([split_words(text)])
    assert len(caplog.messages) == 1
    assert f"the first {first!r}, are in a script that is written without spaces" in caplog.messages[0]


@pytest.mark.parametrize(
    "text", ["東京。", "李雷 住 在 小河镇 。", "Donaudampfschifffahrt", "서울에서 삽니다", "สมชาย อยู่ ใน เชียงใหม่", "..."]
)
def test_words_are_no_notice(text: str, caplog: pytest.LogCaptureFixture) -> None:
    notice_unspaced([split_words(text)])
    assert caplog.messages == []


def test_a_line_of_json_has_spans_by_their_numbers(tmp_path: Path) -> None:
    line = {"text": "Her cat saw her", "span1_text": "her", "span1_index": 3, "span2_text": "cat", "more": 1}
    read = read_input(file(tmp_path, "a.jsonl", json.dumps(line)), task=SpansConfig())
    assert read.sentences == [["Her cat saw her", "3:4", "cat"]]
    assert [json.loads(one) for one in read.written(["true"])] == [{**line, "predicted": "true"}]
    wrong = json.dumps(line) + "\n" + json.dumps({**line, "span1_index": 1})
    with pytest.raises(MetaprimeError, match=r"b\.jsonl, line 2: span1_index and span1_text: 'her' does not stand at"):
        read_input(file(tmp_path, "b.jsonl", wrong), task=SpansConfig())
