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


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"tokens": [["x"], None, ["y"]], "tags": [["O"], ["O"], ["O", "B-X"]]})
    reading = examine(tmp_path)
    assert [(sentence.gold, sentence.origin) for sentence in reading.sentences] == [(("O",), f"{path}:row 0")]
    assert [(problem.kind, problem.origin) for problem in reading.problems] == [
        ("missing value", f"{path}:row 1"),
        ("lengths differ", f"{path}:row 2"),
    ]
    pq.write_table(pa.table({"a": TOKENS}), path)
    with pytest.raises(MetaprimeError, match=rf"^{path}: no column tokens and ner_tags, only a; rename"):
        read(tmp_path)
    pq.write_table(pa.table({"tokens": ["a"], "ner_tags": [["O"]]}), path)
    with pytest.raises(MetaprimeError, match=rf"^{path}: column tokens is string; store a list<string>"):
        read(tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"tokens": TOKENS, "ner_tags": [["O", "O"], ["O"]]})
    for damaged in (b"", b"tokens\n", path.read_bytes()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(MetaprimeError, match=r"train\.parquet: not a readable parquet file .*write or download it"):
            read(tmp_path)
