"""Parquet reading: text tags, named integer tags, and every file that is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_permissions import Forbid

from metaprime.data.readers import folders, parquet
from metaprime.data.reading import Format, Reading
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
    with pytest.raises(MetaprimeError, match=rf"^{path}: no column tokens and ner_tags, only a; name the columns"):
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


def shard(folder: Path, number: int, count: int, classes: list[str], split: str = "train") -> None:
    path = write(folder, {"tokens": [["Ada"]], "ner_tags": [[1]]}, [{"names": classes, "_type": "ClassLabel"}])
    path.rename(folder / f"{split}-{number:05d}-of-{count:05d}.parquet")
    path.parent.rmdir()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    shard(tmp_path, 0, 2, ["O", "B-PER"])
    shard(tmp_path, 1, 2, ["O", "B-LOC"])
    shard(tmp_path, 0, 1, ["O", "B-PER"], "dev")
    (tmp_path / "de").mkdir()
    for file in tmp_path.glob("*.parquet"):
        file.rename(tmp_path / "de" / file.name)
    return tmp_path


def test_shards_are_one_split_and_each_has_its_own_names(shards: Path) -> None:
    reading = examine(shards)
    first = shards / "de" / "train-00000-of-00002.parquet"
    assert [sentence.gold for sentence in reading.sentences] == [("B-PER",), ("B-LOC",)]
    assert reading.place == str(first)
    assert reading.sentences[0].origin == f"{first}:row 0"
    assert len(parquet.read(str(shards), "de", "validation").sentences) == 1
    assert folders.splits(str(shards), "de", parquet.EXTENSIONS) == ["dev", "train"]


def test_a_missing_shard_is_named(shards: Path) -> None:
    (shards / "de" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(MetaprimeError, match=r"split 'train' lacks train-00001-of-00002\.parquet; download what is"):
        examine(shards)


def test_shards_beside_another_file_of_the_split_are_refused(shards: Path) -> None:
    (shards / "de" / "train-00000-of-00001.parquet").touch()
    with pytest.raises(MetaprimeError, match=r"several files for split 'train': train-00000-of-00001\.parquet, train-"):
        examine(shards)


def test_other_columns_are_told_and_keys_name_them(tmp_path: Path) -> None:
    write(tmp_path, {"tokens": TOKENS, "pos_tags": [["N", "V"], ["N"]], "ner_tags": [["O", "O"], ["O"]]})
    (notice,) = examine(tmp_path).problems
    assert "from the column ner_tags, not from pos_tags; task.tags chooses another column" in notice.text
    chosen = parquet.read(str(tmp_path), "de", "train", Format(tags="pos_tags"))
    assert chosen.problems == []
    assert [sentence.gold for sentence in chosen.sentences] == [("N", "V"), ("N",)]


def test_integers_of_a_named_column_have_its_class_names(tmp_path: Path) -> None:
    path = write(tmp_path, {"words": TOKENS, "ner": [[1, 0], [0]]})
    info = json.dumps({"info": {"features": {"ner": {"feature": CLASSES, "_type": "List"}}}})
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": info}), path)
    reading = parquet.read(str(tmp_path), "de", "train", Format(words="words", tags="ner"))
    assert [sentence.gold for sentence in reading.sentences] == [("B-PER", "O"), ("O",)]


def test_a_file_without_permission_is_not_called_damaged(tmp_path: Path, forbid: Forbid) -> None:
    write(tmp_path, {"tokens": TOKENS, "ner_tags": [["B-PER", "O"], ["O"]]})
    forbid(tmp_path / "de" / "train.parquet")
    with pytest.raises(MetaprimeError, match=r"train\.parquet: permission denied: have its owner"):
        parquet.read(str(tmp_path), "de", "train")
