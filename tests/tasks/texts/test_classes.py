"""Texts and classes of every kind of table; each mistake is named with its place and a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data.reading import UNSTATED, Reading, settle
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.texts.classes import examine
from metaprime.types import MetaprimeError

CONFIG = ClassificationConfig(labels=("bad", "good"), label_map={"0": "bad", "true": "good"}, text="a")
PAIRS = CONFIG.model_copy(update={"pair": "b"})


def made(folder: Path, name: str, content: str) -> str:
    (folder / "en").mkdir(parents=True)
    (folder / "en" / name).write_text(content, "utf-8")
    return str(folder)


def read(source: str, config: ClassificationConfig = CONFIG, known: bool = True) -> Reading:
    return examine(source, "en", "train", config, known, UNSTATED)


def lines(*objects: Any) -> str:
    return "\n".join(map(json.dumps, objects)) + "\n"


@pytest.mark.parametrize(
    ("scheme", "name", "content"),
    [
        (
            "jsonl",
            "train.jsonl",
            lines({"a": "Well.", "b": "So, so", "label": 0}, {"a": "No", "b": "y", "label": True}),
        ),
        ("csv", "train.csv", 'a,b,label,x\nWell.,"So, so",0,\nNo,y,good,\n'),
        ("tsv", "train.tsv", "label\ta\tb\nbad\tWell.\tSo, so\ngood\tNo\ty\n"),
    ],
)
def test_every_kind_of_table_gives_the_same_examples(tmp_path: Path, scheme: str, name: str, content: str) -> None:
    root = made(tmp_path / "data", name, content)
    found = read(f"{scheme}:{root}", PAIRS)
    assert [(one.words, one.gold) for one in found.sentences] == [(("Well.", "So, so"), "bad"), (("No", "y"), "good")]
    assert [one.words for one in read(f"{scheme}:{root}").sentences] == [("Well.",), ("No",)]
    assert not found.problems


def test_a_class_label_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    feature = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    table = pa.table({"a": ["Well.", "No"], "label": [1, 0]}).replace_schema_metadata(
        {"huggingface": json.dumps(feature)}
    )
    pq.write_table(table, tmp_path / "en" / "train.parquet")
    assert [one.gold for one in read(f"parquet:{tmp_path}").sentences] == ["good", "bad"]


def test_synthetic_sentences_have_the_kind_of_their_subject() -> None:
    config = ClassificationConfig(labels=("person", "organisation", "thing"))
    found = examine("synthetic:", "qaa", "train", config, True, UNSTATED)
    assert len(found.sentences) == 1000
    assert {one.gold for one in found.sentences} == {"person", "organisation", "thing"}


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ({"a": "x", "label": "fine"}, "unmapped type", "class 'fine' is neither in task.labels ['bad', 'good']"),
        ({"a": "x", "label": "GOOD"}, "unmapped type", "e.g. task.label_map: {GOOD: good}"),
        ({"a": "x", "label": 0.5}, "missing value", "label is '0.5', which is no class"),
        ({"a": "x", "label": None}, "missing value", "label is missing; fill it or remove the row"),
        ({"a": " ", "label": 0}, "missing value", "a is empty; fill it or remove the row"),
        ({"a": ["x"], "label": 0}, "missing value", "not a text"),
        ({"a": "\ud800", "label": 0}, "not UTF-8", "half a surrogate pair"),
    ],
)
def test_a_mistake_is_named_and_the_row_left_out_if_asked(
    tmp_path: Path, values: dict[str, Any], kind: str, told: str
) -> None:
    root = made(tmp_path / "data", "train.jsonl", lines({"a": "x", "label": 0}, values))
    found = read(f"jsonl:{root}")
    (problem,) = found.problems
    assert (problem.kind, problem.origin) == (kind, f"{root}/en/train.jsonl:line 2")
    assert told in problem.text
    assert len(settle(read(f"jsonl:{root}", CONFIG.model_copy(update={"invalid": "drop"})), "drop")) == 1
    with pytest.raises(MetaprimeError, match=r"line 2.*\n.*task\.invalid: drop"):
        settle(found, "repair")


def test_an_empty_side_of_a_pair_is_named(tmp_path: Path) -> None:
    root = made(tmp_path / "data", "train.jsonl", lines({"a": "x", "b": "", "label": 0}))
    assert [problem.text for problem in read(f"jsonl:{root}", PAIRS).problems] == [
        "b is empty; fill it or remove the row"
    ]


def test_without_a_config_every_class_is_taken(tmp_path: Path) -> None:
    root = made(tmp_path / "data", "train.jsonl", lines({"a": "x", "label": "fine"}, {"a": "x", "label": 7}))
    assert [one.gold for one in read(f"jsonl:{root}", known=False).sentences] == ["fine", "7"]


@pytest.mark.parametrize("scheme", ["jsonl", "csv"])
def test_a_missing_column_is_refused_with_the_key_that_names_it(tmp_path: Path, scheme: str) -> None:
    content = {"jsonl": lines({"b": "x", "label": 0}), "csv": "b,label\nx,0\n"}[scheme]
    root = made(tmp_path / "data", f"train.{scheme}", content)
    with pytest.raises(MetaprimeError, match=r"no column 'a' \(task\.text\); it has b, label: set task\.text to one"):
        read(f"{scheme}:{root}")


def test_files_of_words_have_no_texts(tmp_path: Path) -> None:
    root = made(tmp_path / "data", "train.conll", "a\tO\n\n")
    with pytest.raises(MetaprimeError, match=r"sentences of words, not whole texts; use one of .*jsonl:.*csv:"):
        read(f"conll:{root}")


def test_without_classes_in_the_config_every_one_of_a_corpus_is_read(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "train.jsonl").write_text('{"text": "well", "label": "good"}\n', "utf-8")
    found = examine(f"jsonl:{tmp_path}", "en", "train", ClassificationConfig(), True, UNSTATED)
    assert ([one.gold for one in found.sentences], found.problems) == (["good"], [])
