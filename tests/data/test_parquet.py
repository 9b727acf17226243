"""Parquet reading: text tags, named integer tags, and every file that is refused with its reason."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data import parquet
from metaprime.types import MetaprimeError, Sentence

TOKENS = [["Ada", "naps"], ["2"]]
CLASSES = {"names": ["O", "B-PER"], "_type": "ClassLabel"}


def write(folder: Path, columns: dict[str, Any], feature: object = None) -> Path:
    path = folder / "de" / "train.parquet"
    path.parent.mkdir()
    table = pa.table(columns)
    if feature is not None:
        info = json.dumps({"info": {"features": {"ner_tags": feature}}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)
    return path


def read(folder: Path) -> list[Sentence]:
    return parquet.read(str(folder), "de", "train")


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_tags_are_read_as_they_are(tmp_path: Path, kind: Any, text: Any) -> None:
    columns = {"id": [1, 2], "tokens": pa.array(TOKENS, kind(text)), "ner_tags": pa.array([["B-X", "O"], ["I-Y"]])}
    path = write(tmp_path, columns)
    assert read(tmp_path) == [
        Sentence(("Ada", "naps"), ("B-X", "O"), f"{path}:row 0"),
        Sentence(("2",), ("I-Y",), f"{path}:row 1"),
    ]
    assert parquet.languages(str(tmp_path)) == ["de"]


@pytest.mark.parametrize(
    "feature", [{"feature": CLASSES, "_type": "Sequence"}, {"feature": CLASSES, "_type": "List"}, [CLASSES]]
)
def test_integers_are_read_by_their_class_names(tmp_path: Path, feature: object) -> None:
    write(tmp_path, {"tokens": TOKENS, "ner_tags": [[1, 0], [0]]}, feature)
    assert [sentence.tags for sentence in read(tmp_path)] == [("B-PER", "O"), ("O",)]


@pytest.mark.parametrize("feature", [None, {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"}, [], "x"])
def test_integers_without_names_are_refused(tmp_path: Path, feature: object) -> None:
    write(tmp_path, {"tokens": TOKENS, "ner_tags": [[1, 0], [0]]}, feature)
    with pytest.raises(
        MetaprimeError, match=r"train\.parquet: column ner_tags is list<.*int64> and .*store a list<str"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": TOKENS, "ner_tags": [["O", "O"], ["O"]]}, r"no column tokens, only words, ner_tags; rename the col"),
        ({"a": TOKENS}, r"no column tokens and ner_tags, only a; rename"),
        ({"tokens": TOKENS, "ner_tags": [["O", "O"], ["O", "O"]]}, r"parquet:row 1: 1 tokens but 2 tags; give each"),
        ({"tokens": [["a"], None], "ner_tags": [["O"], ["O"]]}, r"parquet:row 1: tokens or ner_tags holds a null; rem"),
        ({"tokens": [["a", None]], "ner_tags": [["O", "O"]]}, r"parquet:row 0: tokens or ner_tags holds a null"),
        ({"tokens": ["a b"], "ner_tags": [["O", "O"]]}, r"column tokens is string; store a list<string>"),
        ({"tokens": [["a"]], "ner_tags": ["O"]}, r"column ner_tags is string and .*store a list<string>"),
        ({"tokens": [[1]], "ner_tags": [["O"]]}, r"column tokens is list<.*int64>; store a list<string>"),
        (
            {"tokens": pa.array([], pa.list_(pa.string())), "ner_tags": pa.array([], pa.list_(pa.string()))},
            "no sentence in it",
        ),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write(tmp_path, columns)
    with pytest.raises(MetaprimeError, match=rf"train\.parquet.*{message}|{message}"):
        read(tmp_path)


@pytest.mark.parametrize("value", [-1, 2])
def test_a_number_without_a_name_is_refused(tmp_path: Path, value: int) -> None:
    write(tmp_path, {"tokens": [["a"]], "ner_tags": [[value]]}, [CLASSES])
    with pytest.raises(MetaprimeError, match=rf"row 0: ner_tags has {value}, but the file names 0 to 1; store names"):
        read(tmp_path)


def test_rows_without_tokens_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, {"tokens": [["a"], [], ["b"], []], "ner_tags": [["O"], [], ["O"], []]})
    with caplog.at_level(logging.WARNING):
        assert [sentence.origin for sentence in read(tmp_path)] == [f"{path}:row 0", f"{path}:row 2"]
    assert caplog.messages == [f"{path}: 2 of 4 rows have no tokens and are left out"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"tokens": TOKENS, "ner_tags": [["O", "O"], ["O"]]})
    for damaged in (b"", b"tokens\n", path.read_bytes()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(MetaprimeError, match=r"train\.parquet: not a readable parquet file .*write or download it"):
            read(tmp_path)
