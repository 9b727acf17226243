"""Spans: found by their number and words; what is not there is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.data.reading import UNSTATED, Reading, settle
from metaprime.tasks.spans.reading import examine, texts_of
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.types import MetaprimeError

CONFIG = SpansConfig()
IDS = {"false": 0, "true": 1}


def read(folder: Path, *rows: dict[str, Any]) -> Reading:
    (folder / "wsc").mkdir(parents=True)
    (folder / "wsc" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return examine(f"jsonl:{folder}", "wsc", "train", CONFIG, True, UNSTATED)


def row(text: str, first: Any, words: str, second: Any, others: str, label: Any = True) -> dict[str, Any]:
    return {
        "text": text,
        "span1_index": first,
        "span1_text": words,
        "span2_index": second,
        "span2_text": others,
        "label": label,
    }


def test_spans_are_found_whatever_their_case_marks_and_possessive(tmp_path: Path) -> None:
    found = read(tmp_path, row("The cat's owner fed her, then  slept .", 0, "the cat", 4, "her"))
    assert [(one.words, one.gold) for one in found.sentences] == [
        (("The cat's owner fed her, then  slept .", "0:2", "4:5"), "true")
    ]


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (1, "'Ada' does not stand at word 1 of 4, but 'fed'; correct the number"),
        (9, "'Ada' does not stand at word 9 of 4, but nothing; correct the number"),
        (-4, "'Ada' does not stand at word -4 of 4, but nothing; correct the number"),
        ("first", "'first' is no number of a word; count words from 0"),
        (None, "'None' is no number of a word; count words from 0"),
    ],
)
def test_a_span_that_is_not_there_is_named(tmp_path: Path, first: object, told: str) -> None:
    found = read(tmp_path, row("Ada fed her cat", first, "Ada", 2, "her"))
    assert [(problem.kind, problem.text) for problem in found.problems] == [
        ("not a span", f"span1_index and span1_text: {told}")
    ]
    with pytest.raises(MetaprimeError, match=r"train\.jsonl:line 1: span1_index and span1_text"):
        settle(found, "repair")


def test_a_key_of_a_key_is_written_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "wsc").mkdir()
    value = row("Ada fed her cat", 0, "Ada", 2, "her", label=False)
    nested = {"text": value.pop("text"), "label": value.pop("label"), "target": value}
    (tmp_path / "wsc" / "train.jsonl").write_text(json.dumps(nested) + "\n", "utf-8")
    names = {"first": "span1_index", "first_text": "span1_text", "second": "span2_index", "second_text": "span2_text"}
    config = CONFIG.model_copy(update={key: f"target.{name}" for key, name in names.items()})
    (one,) = examine(f"jsonl:{tmp_path}", "wsc", "train", config, True, UNSTATED).sentences
    assert (one.words, one.gold) == (("Ada fed her cat", "0:1", "2:3"), "false")
    other = config.model_copy(update={"second": "target.place"})
    with pytest.raises(MetaprimeError, match=r"no column 'target\.place' \(task\.second\)"):
        examine(f"jsonl:{tmp_path}", "wsc", "train", other, True, UNSTATED)


def test_numbers_may_be_text_as_in_a_csv_file(tmp_path: Path) -> None:
    found = read(tmp_path, row("Ada fed her cat", "0", "Ada", " 2 ", "her"))
    assert [one.words[1:] for one in found.sentences] == [("0:1", "2:3")]


def test_spans_to_predict_are_words_that_occur_once_or_numbers() -> None:
    assert texts_of(["Ada fed her cat", "her cat", "ada"]) == ("Ada fed her cat", "2:4", "0:1")
    assert texts_of(["her cat saw her", "0:1", "3:4"]) == ("her cat saw her", "0:1", "3:4")
    assert texts_of(["any", "four", "words", "here"]) == ("any four words here", "0:1", "3:4")
    for words, told in (("her", "occurs 2 times"), ("dog", "occurs nowhere"), ("3:9", "occurs nowhere")):
        with pytest.raises(MetaprimeError, match=rf"the span '{words}' {told} in the text: give words that occur once"):
            texts_of(["her cat saw her", words, "cat"])


def test_in_an_object_to_predict_a_number_tells_the_place() -> None:
    words = {"text": "Her cat saw her", "span1_text": "her", "span2_text": "cat"}
    assert CONFIG.texts_in(words) == ["Her cat saw her", "her", "cat"]
    assert CONFIG.texts_in({**words, "span1_index": 3}) == ["Her cat saw her", "3:4", "cat"]
    nested = CONFIG.model_copy(update={"first": "target.place", "first_text": "target.words"})
    given = {**words, "target": {"place": 3, "words": "her"}}
    assert nested.texts_in(given) == ["Her cat saw her", "3:4", "cat"]
    with pytest.raises(
        MetaprimeError, match="span1_index and span1_text: 'her' does not stand at word 2 of 4, but 'saw'"
    ):
        CONFIG.texts_in({**words, "span1_index": 2})
    with pytest.raises(LookupError):
        CONFIG.texts_in({"text": "Her cat saw her"})
