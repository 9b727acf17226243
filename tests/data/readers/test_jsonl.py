"""JSON lines: what is read, and each mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.data.readers import jsonl
from metaprime.data.reading import Format, Reading
from metaprime.data.rows import Example

GOOD = '{"tokens": ["Ada"], "ner_tags": ["B-PER"]}'


def examine(folder: Path, text: str | bytes, name: str = "train.jsonl") -> Reading:
    path = folder / "de" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return jsonl.read(str(folder), "de", "train")


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "de-train.jsonl"])
def test_lines_are_sentences(tmp_path: Path, name: str) -> None:
    text = '\ufeff{"id": 7, "tokens": ["a\u2028b", "\u0085"], "ner_tags": ["B-X", "O"]}\r\n \t\r\n{"tags": [3], "tokens": ["c"]}'
    path = tmp_path / "de" / name
    assert examine(tmp_path, text, name) == Reading(
        [
            Example(("a\u2028b", "\u0085"), ("B-X", "O"), f"{path}:line 1"),
            Example(("c",), ("3",), f"{path}:line 3"),
        ],
        [],
        str(path),
    )
    assert jsonl.languages(str(tmp_path)) == ["de"]


def test_ner_tags_go_before_other_tags(tmp_path: Path) -> None:
    text = '{"tags": ["NOUN"], "ner_tags": ["O"], "tokens": ["c"]}'
    assert examine(tmp_path, text).sentences[0].gold == ("O",)


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ('{"tokens": ["a"]', "not JSON", "is not JSON (Expecting ',' delimiter"),
        ("[" * 100_000, "not JSON", "each line needs one object with tokens and ner_tags"),
        ('{"tokens": ["a"], "tokens": ["b"], "ner_tags": ["O"]}', "not JSON", "duplicate key 'tokens'"),
        ('{"tokens": ["a"], "ner_tags": [NaN]}', "not JSON", "NaN is not a JSON value"),
        ('{"tokens": ["a"], "ner_tags": [-Infinity]}', "not JSON", "-Infinity is not a JSON value"),
        ('{"tokens": ["a"], "ner_tags": [' + "9" * 5000 + "]}", "not JSON", "is not JSON (Exceeds the limit"),
        ('{"tokens": ["a\rb"], "ner_tags": ["O"]}', "not JSON", "Invalid control character"),
        ("[1, 2]", "missing value", "'[1, 2]' has no tokens and ner_tags; each line needs one object with both"),
        (
            '{"tokens": ["a"], "labels": ["O"]}',
            "missing value",
            "has no column ner_tags, only tokens, labels; name the",
        ),
        ('{"tokens": ["a"], "ner_tags": null}', "missing value", "ner_tags is not a list of tags, or holds a null"),
        ('{"tokens": "a", "ner_tags": ["O"]}', "missing value", "tokens is not a list of strings"),
        ('{"tokens": [["a"]], "ner_tags": ["O"]}', "missing value", "tokens is not a list of strings, or holds a null"),
        ('{"tokens": ["a"], "ner_tags": [true]}', "missing value", "ner_tags is not a list of tags, or holds a null"),
        ('{"tokens": ["a"], "ner_tags": [1.0]}', "missing value", "ner_tags is not a list of tags, or holds a null"),
        ('{"tokens": ["a"], "ner_tags": []}', "lengths differ", "1 tokens but 0 tags; give each token one tag"),
        ('{"tokens": [], "ner_tags": []}', "row without tokens", "a row without tokens is left out"),
        ('{"tokens": ["\\ud800"], "ner_tags": ["O"]}', "not UTF-8", "half a surrogate pair in"),
        ('{"tokens": ["a"], "ner_tags": ["B-\\ud800"]}', "not UTF-8", "half a surrogate pair in"),
        (
            b'{"tokens": ["\xe9"], "ner_tags": ["O"]}',
            "not UTF-8",
            "byte 0xe9 is not UTF-8 (byte 14 of the line); data.encoding",
        ),
    ],
)
def test_a_mistake_names_its_line_and_costs_one_sentence(
    tmp_path: Path, line: str | bytes, kind: str, text: str
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    reading = examine(tmp_path, b"\n".join([GOOD.encode(), raw, GOOD.encode()]))
    assert len(reading.sentences) == 2
    (problem,) = reading.problems
    assert (problem.kind, problem.origin, problem.dropped) == (kind, f"{tmp_path / 'de' / 'train.jsonl'}:2", True)
    assert text in problem.text
    assert len(problem.text) < 400


def test_keys_name_other_keys_of_a_line(tmp_path: Path) -> None:
    text = '{"words": ["a"], "ner": ["B-X"], "pos": ["NOUN"]}'
    path = tmp_path / "de" / "train.jsonl"
    examine(tmp_path, text)
    for form in (Format(words="words", tags="ner"), Format(words=1, tags=2)):
        reading = jsonl.read(str(tmp_path), "de", "train", form)
        assert reading == Reading([Example(("a",), ("B-X",), f"{path}:line 1")], [], str(path))
    (problem,) = examine(tmp_path, text).problems
    assert problem.text.endswith("only words, ner, pos; name the columns with task.words and task.tags")


def test_other_lists_as_long_as_the_tags_are_told(tmp_path: Path) -> None:
    text = '{"tokens": ["a"], "pos": ["NOUN"], "ner_tags": ["O"], "id": 1, "spans": [[0]], "more": ["x", "y"]}'
    (notice,) = examine(tmp_path, f"{text}\n{text}").problems
    assert notice.kind == "chosen columns"
    assert notice.text == "tags are read from the column ner_tags, not from pos; task.tags chooses another column"


def test_offsets_name_the_script_that_converts_them(tmp_path: Path) -> None:
    (problem,) = examine(tmp_path, '{"text": "Ada naps.", "label": [[0, 3, "PER"]]}').problems
    assert problem.kind == "missing value"
    assert "only text, label; if label has character offsets in text, convert" in problem.text
    assert "data_scripts/offsets_to_jsonl.py" in problem.text


def test_shards_are_one_split(tmp_path: Path) -> None:
    examine(tmp_path, GOOD)
    (tmp_path / "de" / "train.jsonl").rename(tmp_path / "de" / "train-00000-of-00002.jsonl")
    reading = examine(tmp_path, GOOD, "train-00001-of-00002.jsonl")
    assert [Path(sentence.origin).name for sentence in reading.sentences] == [
        "train-00000-of-00002.jsonl:line 1",
        "train-00001-of-00002.jsonl:line 1",
    ]
