"""Tables of sentences: layouts of Arrow, names of integers, wrong columns and rows with the reason."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from metaprime.data.readers import columns
from metaprime.data.reading import Format, Problem, Reading
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

TOKENS = [["Ada", "naps"], ["2"]]
CLASSES = {"names": ["O", "B-PER"], "_type": "ClassLabel"}


def named(table: dict[str, Any], feature: object) -> pa.Table:
    """A table with the metadata that `datasets` writes."""
    info = json.dumps({"info": {"features": {"ner_tags": feature}}})
    return pa.table(table).replace_schema_metadata({"huggingface": info})


def read(table: pa.Table) -> list[Example]:
    reading = columns.reading(table, "place")
    assert reading.problems == []
    return reading.sentences


def golds(table: pa.Table) -> list[tuple[str, ...]]:
    return [sentence.gold for sentence in read(table)]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["tokens", "ner_tags"], ("tokens", "ner_tags")),
        (["tags", "id", "tokens"], ("tokens", "tags")),
        (["tags", "ner_tags", "tokens"], ("tokens", "ner_tags")),
    ],
)
def test_ner_tags_go_before_tags_in_any_order(names: list[str], found: tuple[str, str]) -> None:
    assert columns.find_columns("place", names) == found


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["words", "ner_tags"],
            r"^place: no column tokens, only words, ner_tags; name the column with task\.words$",
        ),
        (["tokens", "labels"], r"^place: no column ner_tags, only tokens, labels; name the column with task\.tags$"),
        (["a"], r"^place: no column tokens and ner_tags, only a; name the columns with task\.words and task\.tags$"),
    ],
)
def test_a_missing_column_lists_those_there_are(names: list[str], message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        columns.find_columns("place", names)


@pytest.mark.parametrize("kind", [pa.ListArray, pa.LargeListArray, pa.ListViewArray])
@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_layout_of_lists_and_text_is_read(kind: Any, text: Any) -> None:
    values, starts = pa.array(["Ada", "naps", "2"], text), pa.array([0, 2, 3])
    if kind is pa.ListViewArray:
        rows = kind.from_arrays(starts[:2].cast(pa.int32()), pa.array([2, 1], pa.int32()), values)
    else:
        rows = kind.from_arrays(starts.cast(pa.int64() if kind is pa.LargeListArray else pa.int32()), values)
    assert read(pa.table({"tokens": rows, "ner_tags": rows})) == [
        Example(("Ada", "naps"), ("Ada", "naps"), "place:row 0"),
        Example(("2",), ("2",), "place:row 1"),
    ]


def test_random_rows_come_back_as_they_were() -> None:
    draw = random.Random(0)
    rows = [[draw.choice(("a", "\u2028", "\U0001f600", " ")) for _ in range(draw.randint(1, 9))] for _ in range(200)]
    tags = [[draw.choice(("O", "B-X", "?")) for _ in row] for row in rows]
    table = pa.table({"tokens": rows, "ner_tags": tags})
    assert [(list(s.words), list(s.gold), s.origin) for s in read(table)] == [
        (words, gold, f"place:row {number}") for number, (words, gold) in enumerate(zip(rows, tags, strict=True))
    ]


@pytest.mark.parametrize(
    "feature", [{"feature": CLASSES, "_type": "Sequence"}, {"feature": CLASSES, "_type": "List"}, [CLASSES]]
)
@pytest.mark.parametrize("width", [pa.int8(), pa.uint16(), pa.int64()])
def test_integers_of_any_width_are_read_by_their_class_names(feature: object, width: Any) -> None:
    tags = pa.array([[1, 0], [0]], pa.list_(width))
    assert golds(named({"tokens": TOKENS, "ner_tags": tags}, feature)) == [("B-PER", "O"), ("O",)]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"huggingface": "not JSON"},
        {"huggingface": "[" * 100_000},
        {"huggingface": "[]"},
        {"huggingface": '{"info": {"features": {"other": {}}}}'},
        {"huggingface": '{"info": {"features": {"ner_tags": [{"names": ["O", "B-X"], "_type": "Value"}]}}}'},
    ],
)
def test_integers_stay_numbers_whatever_else_the_metadata_hold(metadata: Any) -> None:
    table = pa.table({"tokens": TOKENS, "ner_tags": [[1, 0], [0]]}).replace_schema_metadata(metadata)
    assert golds(table) == [("1", "0"), ("0",)]


def test_names_of_classes_are_no_names_of_text() -> None:
    assert golds(named({"tokens": TOKENS, "ner_tags": [["1", "0"], ["0"]]}, [CLASSES])) == [("1", "0"), ("0",)]


def test_the_column_of_tags_may_be_called_tags() -> None:
    assert golds(pa.table({"tokens": TOKENS, "tags": [["O", "O"], ["B-X"]]})) == [("O", "O"), ("B-X",)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"words": TOKENS, "ner_tags": [["O", "O"], ["O"]]},
            r"no column tokens, only words, ner_tags; name the column",
        ),
        ({"a": TOKENS}, r"no column tokens and ner_tags, only a; name the columns"),
        ({"tokens": ["a b"], "ner_tags": [["O", "O"]]}, r"column tokens is string; store a list<string>"),
        ({"tokens": [["a"]], "ner_tags": ["O"]}, r"column ner_tags is string; store a list<string>"),
        ({"tokens": [[1]], "ner_tags": [["O"]]}, r"column tokens is list<.*int64>; store a list<string>"),
        ({"tokens": [["a"]], "ner_tags": [[0.5]]}, r"column ner_tags is list<.*double>; store a list<string>"),
    ],
)
def test_a_wrong_table_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(MetaprimeError, match=rf"^place: {message}"):
        columns.reading(pa.table(table), "place")


@pytest.mark.parametrize(
    ("tokens", "tags", "kind", "text"),
    [
        (["a"], ["O", "O"], "lengths differ", "1 tokens but 2 tags; give each token one tag"),
        (None, ["O"], "missing value", "tokens is not a list of strings, or holds a null; remove the row or fill it"),
        (["a", None], ["O", "O"], "missing value", "tokens is not a list of strings, or holds a null"),
        (["a"], [None], "missing value", "ner_tags is not a list of tags, or holds a null"),
        ([], [], "row without tokens", "a row without tokens is left out"),
    ],
)
def test_a_wrong_row_is_reported_and_the_others_kept(tokens: Any, tags: Any, kind: str, text: str) -> None:
    table = pa.table({"tokens": [["x"], tokens, ["y"]], "ner_tags": [["O"], tags, ["O"]]})
    reading = columns.reading(table, "place")
    assert [sentence.origin for sentence in reading.sentences] == ["place:row 0", "place:row 2"]
    (problem,) = reading.problems
    assert (problem.kind, problem.origin, problem.dropped) == (kind, "place:row 1", True)
    assert problem.text.startswith(text)


@pytest.mark.parametrize("value", [-1, 2])
def test_a_number_without_a_name_is_reported(value: int) -> None:
    table = named({"tokens": [["a"]], "ner_tags": [[value]]}, [CLASSES])
    assert [problem.text for problem in columns.reading(table, "place").problems] == [
        f"ner_tags has {value}, but the file names 0 to 1; store names"
    ]


def test_a_table_without_rows_is_an_empty_reading() -> None:
    schema = pa.schema([("tokens", pa.list_(pa.string())), ("ner_tags", pa.list_(pa.string()))])
    assert columns.reading(schema.empty_table(), "place") == Reading(place="place")


def test_a_sentence_may_mix_names_and_numbers() -> None:
    mixed = columns.sentence_of(["a", "b"], ["B-X", 1], origin="place", names=["O", "B-PER"])
    assert mixed == Example(("a", "b"), ("B-X", "B-PER"), "place")
    assert columns.sentence_of(["a", "b"], ["B-X", 1], origin="place") == Example(("a", "b"), ("B-X", "1"), "place")


@pytest.mark.parametrize(
    ("words", "tags", "kind", "text"),
    [
        (["a"], [True], "missing value", "ner_tags is not a list of tags"),
        ("a", ["O"], "missing value", "tokens is not a list of strings"),
        (("a",), ["O"], "missing value", "tokens is not a list of strings"),
        (["\ud800"], ["O"], "not UTF-8", "half a surrogate pair in"),
        (["a"], ["B-\udfff"], "not UTF-8", "half a surrogate pair in"),
    ],
)
def test_values_that_are_no_sentence_are_a_problem(words: Any, tags: Any, kind: str, text: str) -> None:
    problem = columns.sentence_of(words, tags, origin="place")
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.origin, problem.dropped) == (kind, "place", True)
    assert problem.text.startswith(text)


OTHER = ["id", "words", "ner", "pos"]


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (Format(words="words", tags="ner"), ("words", "ner")),
        (Format(words=2, tags=4), ("words", "pos")),
        (Format(words="words", tags=3), ("words", "ner")),
    ],
)
def test_keys_name_columns_or_their_numbers(form: Format, found: tuple[str, str]) -> None:
    assert columns.find_columns("place", OTHER, form) == found
    table = pa.table({"id": [1], "words": [["a"]], "ner": [["B-X"]], "pos": [["NOUN"]]})
    (sentence,) = columns.reading(table, "place", form).sentences
    assert sentence.gold == (("B-X",) if found[1] == "ner" else ("NOUN",))


@pytest.mark.parametrize("column", ["nr", 5])
def test_a_stated_column_that_there_is_not_lists_those_there_are(column: int | str) -> None:
    with pytest.raises(
        MetaprimeError, match=rf"^place: task\.tags is {column!r}, but the columns are id, words, ner, pos; correct"
    ):
        columns.find_columns("place", OTHER, Format(words="words", tags=column))


def test_messages_about_rows_name_the_stated_columns() -> None:
    table = named({"words": [["a"], None], "ner_tags": [[7], [0]]}, [CLASSES])
    texts = [problem.text for problem in columns.reading(table, "place", Format(words="words")).problems]
    assert texts == [
        "ner_tags has 7, but the file names 0 to 1; store names",
        "words is not a list of strings, or holds a null; remove the row or fill it",
    ]


def test_other_columns_that_could_hold_tags_are_told_unless_one_is_stated() -> None:
    table = pa.table({"id": [1], "tokens": [["a"]], "pos_tags": [[3]], "ner_tags": [["O"]], "tags": [["O"]]})
    (notice,) = columns.reading(table, "place").problems
    assert (notice.kind, notice.origin, notice.dropped) == ("chosen columns", "place", False)
    assert (
        notice.text
        == "tags are read from the column ner_tags, not from pos_tags, tags; task.tags chooses another column"
    )
    assert columns.reading(table, "place", Format(tags="ner_tags")).problems == []


def test_offsets_name_the_script_that_converts_them() -> None:
    with pytest.raises(
        MetaprimeError, match=r"only id, text, label; if label has .* data_scripts/offsets_to_jsonl\.py"
    ):
        columns.find_columns("place", ["id", "text", "label"])


@pytest.mark.parametrize("rows", [[["a"], None, ["b", None]], [], [["a"], [], ["b", "c"]]])
def test_whole_columns_are_converted_as_row_by_row(rows: list[Any]) -> None:
    table = pa.table(
        {"tokens": pa.array(rows, pa.list_(pa.string())), "ner_tags": pa.array(rows, pa.list_(pa.string()))}
    )
    chunks = pa.concat_tables([table, table.slice(1), table])
    reading = columns.reading(chunks, "place")
    assert len(reading.sentences) + len(reading.problems) == chunks.num_rows
    good = [row for row in chunks["tokens"].to_pylist() if row and None not in row]
    assert [list(sentence.words) for sentence in reading.sentences] == good
