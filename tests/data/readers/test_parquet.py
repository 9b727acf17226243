"""Parquet reading: text tags, named integer tags, and every file that is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data.readers import parquet
from metaprime.data.reading import Reading
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

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


def examine(folder: Path) -> Reading:
    return parquet.read(str(folder), "de", "train")


def read(folder: Path) -> list[Example]:
    reading = examine(folder)
    assert reading.problems == []
    return reading.sentences


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_tags_are_read_as_they_are(tmp_path: Path, kind: Any, text: Any) -> None:
    columns = {"id": [1, 2], "tokens": pa.array(TOKENS, kind(text)), "ner_tags": pa.array([["B-X", "O"], ["I-Y"]])}
    path = write(tmp_path, columns)
    assert read(tmp_path) == [
        Example(("Ada", "naps"), ("B-X", "O"), f"{path}:row 0"),
        Example(("2",), ("I-Y",), f"{path}:row 1"),
    ]
    assert parquet.languages(str(tmp_path)) == ["de"]


@pytest.mark.parametrize(
    "feature", [{"feature": CLASSES, "_type": "Sequence"}, {"feature": CLASSES, "_type": "List"}, [CLASSES]]
)
def test_integers_are_read_by_their_class_names(tmp_path: Path, feature: object) -> None:
    write(tmp_path, {"tokens": TOKENS, "ner_tags": [[1, 0], [0]]}, feature)
    assert [sentence.gold for sentence in read(tmp_path)] == [("B-PER", "O"), ("O",)]


@pytest.mark.parametrize("feature", [None, {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"}, [], "x"])
def test_integers_without_names_stay_numbers(tmp_path: Path, feature: object) -> None:
    write(tmp_path, {"tokens": TOKENS, "ner_tags": [[1, 0], [0]]}, feature)
    assert [sentence.gold for sentence in read(tmp_path)] == [("1", "0"), ("0",)]


def test_the_column_of_tags_may_be_called_tags(tmp_path: Path) -> None:
    write(tmp_path, {"tokens": TOKENS, "tags": [["O", "O"], ["B-X"]]})
    assert [sentence.gold for sentence in read(tmp_path)] == [("O", "O"), ("B-X",)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": TOKENS, "ner_tags": [["O", "O"], ["O"]]}, r"no column tokens, only words, ner_tags; rename the col"),
        ({"a": TOKENS}, r"no column tokens and ner_tags, only a; rename"),
        ({"tokens": ["a b"], "ner_tags": [["O", "O"]]}, r"column tokens is string; store a list<string>"),
        ({"tokens": [["a"]], "ner_tags": ["O"]}, r"column ner_tags is string; store a list<string>"),
        ({"tokens": [[1]], "ner_tags": [["O"]]}, r"column tokens is list<.*int64>; store a list<string>"),
        ({"tokens": [["a"]], "ner_tags": [[0.5]]}, r"column ner_tags is list<.*double>; store a list<string>"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write(tmp_path, columns)
    with pytest.raises(MetaprimeError, match=rf"train\.parquet.*{message}|{message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "tags", "kind", "text"),
    [
        (["a"], ["O", "O"], "lengths differ", "1 tokens but 2 tags; give each token one tag"),
        (None, ["O"], "missing value", "tokens is no list of text, or holds a null; remove the row or fill it"),
        (["a", None], ["O", "O"], "missing value", "tokens is no list of text, or holds a null"),
        (["a"], [None], "missing value", "ner_tags is no list of tags, or holds a null"),
        ([], [], "row without tokens", "a row without tokens is left out"),
    ],
)
def test_a_wrong_row_is_reported_and_the_others_kept(
    tmp_path: Path, tokens: Any, tags: Any, kind: str, text: str
) -> None:
    path = write(tmp_path, {"tokens": [["x"], tokens, ["y"]], "ner_tags": [["O"], tags, ["O"]]})
    reading = examine(tmp_path)
    assert [sentence.origin for sentence in reading.sentences] == [f"{path}:row 0", f"{path}:row 2"]
    (problem,) = reading.problems
    assert (problem.kind, problem.origin, problem.dropped) == (kind, f"{path}:row 1", True)
    assert problem.text.startswith(text)


@pytest.mark.parametrize("value", [-1, 2])
def test_a_number_without_a_name_is_reported(tmp_path: Path, value: int) -> None:
    write(tmp_path, {"tokens": [["a"]], "ner_tags": [[value]]}, [CLASSES])
    assert [problem.text for problem in examine(tmp_path).problems] == [
        f"ner_tags has {value}, but the file names 0 to 1; store names"
    ]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"tokens": TOKENS, "ner_tags": [["O", "O"], ["O"]]})
    for damaged in (b"", b"tokens\n", path.read_bytes()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(MetaprimeError, match=r"train\.parquet: not a readable parquet file .*write or download it"):
            read(tmp_path)
