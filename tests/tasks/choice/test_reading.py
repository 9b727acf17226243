"""Choices: answers in every spelling, questions spelled out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.data.reading import UNSTATED, Reading, settle
from metaprime.tasks.choice.reading import examine, texts_of
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.types import MetaprimeError

CONFIG = ChoiceConfig(choices=("a", "b", "c"))
ASKED = ChoiceConfig(
    question="question", questions={"cause": "What was the cause?", "effect": "What happened?"}, text="premise"
)


def read(folder: Path, config: ChoiceConfig, *rows: dict[str, Any]) -> Reading:
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return examine(f"jsonl:{folder}", "en", "train", config, True, UNSTATED)


def test_answers_are_numbers_or_columns_and_the_question_is_spelled_out(tmp_path: Path) -> None:
    row = {"premise": "It rained.", "choice1": "We stayed.", "choice2": "It was hot."}
    asked = {"cause": "It rained. What was the cause?", "effect": "It rained. What happened?"}
    answers = (0, "1", "choice1")
    rows = [{**row, "question": question, "label": answer} for question in asked for answer in answers]
    found = read(tmp_path / "a", ASKED, *rows)
    assert [one.words for one in found.sentences[::3]] == [
        (text, "We stayed.", "It was hot.") for text in asked.values()
    ]
    assert [one.gold for one in found.sentences[:3]] == ["choice1", "choice2", "choice1"]
    plain = ASKED.model_copy(update={"questions": {}})
    (example,) = read(tmp_path / "b", plain, {**row, "question": "Why?", "label": 1}).sentences
    assert example.words[0] == "It rained. Why?"
    mapped = ASKED.model_copy(update={"label_map": {"first": "choice2"}})
    (example,) = read(tmp_path / "c", mapped, {**row, "question": "cause", "label": "first"}).sentences
    assert example.gold == "choice2"


def test_each_mistake_is_named(tmp_path: Path) -> None:
    row = {"premise": "It rained.", "choice1": "We stayed.", "choice2": "It was hot.", "question": "cause", "label": 0}
    found = read(tmp_path, ASKED, {**row, "label": 2}, {**row, "question": "why"}, {**row, "choice2": " "}, row)
    assert len(found.sentences) == 1
    with pytest.raises(
        MetaprimeError, match=r"line 1: label is '2', none of 0, 1, choice1, choice2; correct it, or map"
    ):
        settle(found, "repair")
    texts = [problem.text for problem in found.problems]
    assert texts[1] == "question is 'why', none of cause, effect; add it to task.questions"
    assert texts[2] == "choice2 is empty; fill it or remove the row"
    assert len(settle(found, "drop")) == 1
    with pytest.raises(MetaprimeError, match=r"no column 'choice2' \(task.choices\[1\]\)"):
        read(tmp_path / "d", ChoiceConfig(text="premise"), {"premise": "x", "choice1": "y", "label": 0})


def test_texts_to_predict() -> None:
    assert texts_of(["It rained.", "cause", "x", "y"], ASKED) == ("It rained. What was the cause?", "x", "y")
    assert texts_of(["a", "b", "c", "d"], CONFIG) == ("a", "b", "c", "d")
    assert texts_of(["a", "b"], CONFIG) == ("a", "a", "a", "b")
    with pytest.raises(MetaprimeError, match="question is 'why': give one of cause, effect"):
        texts_of(["It rained.", "why", "x", "y"], ASKED)
