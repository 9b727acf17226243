"""The script that turns character offsets into words with tags: shapes, cut words, and mistakes with their place."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaprime.data.readers import jsonl

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "offsets_to_jsonl.py"
Convert = Callable[..., list[tuple[str, str]]]


def script_main(*arguments: str) -> int:
    spec = importlib.util.spec_from_file_location("offsets_to_jsonl", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.main(arguments))


def write(folder: Path, *items: Any, name: str = "train.jsonl") -> Path:
    path = folder / "in" / "de" / name
    path.parent.mkdir(parents=True)
    text = json.dumps(items) if name.endswith(".json") else "\n".join(map(json.dumps, items))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """`convert({"text": ...})`: the words and tags that the reader finds in what the script wrote."""

    def run(*items: Any, name: str = "train.jsonl") -> list[tuple[str, str]]:
        write(tmp_path, *items, name=name)
        assert script_main(str(tmp_path / "in"), str(tmp_path / "out")) == 0
        reading = jsonl.read(str(tmp_path / "out"), "de", "train")
        assert reading.problems == []
        return [(" ".join(sentence.words), " ".join(sentence.gold)) for sentence in reading.sentences]

    return run


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
@pytest.mark.parametrize(
    "item",
    [
        {"text": "Ada Byron naps (here).", "label": [[0, 9, "PER"]]},
        {"id": 1, "data": "Ada Byron naps (here).", "labels": [[0, 10, "PER"]]},
        {"text": "Ada Byron naps (here).", "entities": [{"start_offset": 0, "end_offset": 9, "label": "PER"}]},
        {"text": "Ada Byron naps (here).", "spans": [{"start": 0, "end": 9, "label": "PER", "token_start": 0}]},
    ],
)
def test_every_shape_has_the_same_words_and_tags(convert: Convert, item: Any, name: str) -> None:
    assert convert(item, name=name) == [("Ada Byron naps ( here ) .", "B-PER I-PER O O O O O")]


def test_marks_of_scripts_are_no_punctuation(convert: Convert) -> None:
    assert convert({"text": "दिल्ली में।", "label": [[0, 6, "LOC"]]}) == [("दिल्ली में ।", "B-LOC O O")]


def test_an_offset_inside_a_word_cuts_it_and_overlaps_keep_the_longer(
    convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = {"text": "a Berlin-based Ada", "label": [[2, 8, "LOC"]]}
    nested = {"text": "Bank of Spain", "label": [[8, 13, "LOC"], [0, 13, "ORG"]]}
    assert convert(cut, nested, {"text": " ", "label": []}) == [
        ("a Berlin -based Ada", "O B-LOC O O"),
        ("Bank of Spain", "B-ORG I-ORG I-ORG"),
    ]
    assert "2 sentences, 1 words cut, 1 overlapping entities left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"text": "Ada", "label": [[0, 4, "PER"]]}, "de/train.jsonl:1: the entity [0, 4, 'PER'] is not in the text"),
        ({"text": "Ada", "label": [[0, "PER"]]}, "is not an entity: write [start, end, type]"),
        ({"text": "Ada"}, "no text (text, data, sentence) with a list of entities (label, labels, entities, spans)"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], item: Any, message: str
) -> None:
    write(tmp_path, item)
    assert script_main(str(tmp_path / "in"), str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script_main(str(tmp_path), str(tmp_path / "out")) == 2
    assert "no file <language>/<split>.jsonl in it" in capsys.readouterr().err
