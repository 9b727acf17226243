"""Tables with commas and tabs: quotes, line ends, ragged rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.data.readers.separated import CSV, parsed
from metaprime.data.reading import UNSTATED
from metaprime.types import MetaprimeError

NAMES = {"task.text": "text", "task.label": "label"}


def rows(path: Path, content: bytes) -> list[tuple[str, str, str]]:
    path.write_bytes(content)
    found = parsed(path, NAMES)
    assert not found.problems
    return [(row.values["text"], row.values["label"], row.origin.rpartition(":")[2]) for row in found.rows]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_quotes_of_a_csv_are_marks(tmp_path: Path, end: bytes) -> None:
    content = end.join([b"label,text", b'1,"a, ""b"""', b'0,"two', b'lines"', b""])
    found = rows(tmp_path / "train.csv", content)
    assert found == [('a, "b"', "1", "line 2"), (f"two{end.decode()}lines", "0", "line 4")]


def test_quotes_of_a_tsv_are_text(tmp_path: Path) -> None:
    found = rows(tmp_path / "train.tsv", b'text\tlabel\n"Well" he\t1\nhis " end\t0\n')
    assert found == [('"Well" he', "1", "line 2"), ('his " end', "0", "line 3")]


def test_a_long_text_is_whole(tmp_path: Path) -> None:
    assert len(rows(tmp_path / "train.csv", b"text,label\n" + b"a" * 200_000 + b",1\n")[0][0]) == 200_000


def test_a_ragged_row_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1,2\nb,0\n")
    found = parsed(tmp_path / "train.csv", NAMES)
    assert [problem.kind for problem in found.problems] == ["column count"]
    assert found.problems[0].origin.endswith("train.csv:2")
    assert [row.values["text"] for row in found.rows] == ["b"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('text,label\n"a,1\n', r"train\.csv:2: .*put a field with a quote or a comma in it in double quotes"),
        ("text;label\na;1\n", r"no column 'text' \(task\.text\); it has text;label: set task\.text"),
        ("", r"no column 'text' \(task\.text\); it has none"),
        ("text,label,text\na,1,b\n", r"the first line names 'text' twice; rename one"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(MetaprimeError, match=told):
        parsed(tmp_path / "train.csv", NAMES)


def test_bytes_that_are_not_in_the_encoding_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"text,label\n\xff,1\n")
    with pytest.raises(MetaprimeError, match=r"train\.csv:.*UTF-8"):
        parsed(tmp_path / "train.csv", NAMES)


def test_it_holds_no_tagged_sentences() -> None:
    with pytest.raises(MetaprimeError, match=r"csv:DIR: a table of texts.*task\.name: classification"):
        CSV.read("DIR", "en", "train", UNSTATED)
