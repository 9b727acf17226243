"""Lines of text: encodings, byte order marks, and bytes that are no text."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from toy_permissions import Forbid

from metaprime.data.readers.text import Lines, read_lines
from metaprime.data.reading import UNSTATED, Format
from metaprime.types import MetaprimeError

TEXT = "Öl\tO\nЮрий\tB-PER\r\n\n日本\tB-LOC\u2028\n"
LINES = TEXT.split("\n")
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def lines_of(folder: Path, data: bytes, encoding: str = "utf-8") -> Lines:
    (folder / "x").write_bytes(data)
    return read_lines(folder / "x", Format(encoding=encoding))


def test_a_file_is_read_as_its_mark_says(tmp_path: Path) -> None:
    assert lines_of(tmp_path, codecs.BOM_UTF8 + TEXT.encode()) == Lines(LINES, {}, [])
    for encoding in WIDE:
        found = lines_of(tmp_path, f"\ufeff{TEXT}".encode(encoding))
        assert (found.texts, found.bad) == (LINES, {})
        assert [(problem.kind, problem.text) for problem in found.problems] == [
            (
                "byte order mark",
                f"read as {encoding}, as the byte order mark of the file says, and not by data.encoding utf-8",
            )
        ]
    assert "not by data.encoding cp1251" in lines_of(tmp_path, b"\xef\xbb\xbfa", "cp1251").problems[0].text
    for stated in ("utf-16-le", "UTF-16"):
        assert lines_of(tmp_path, f"\ufeff{TEXT}".encode("utf-16-le"), stated).problems == []


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "gb18030", *WIDE])
def test_a_file_without_a_mark_is_read_as_stated(tmp_path: Path, encoding: str) -> None:
    assert lines_of(tmp_path, TEXT.encode(encoding), encoding) == Lines(LINES, {}, [])


def test_a_line_feed_of_two_bytes_begins_at_an_even_one(tmp_path: Path) -> None:
    text = "\u0a00\u000a\u0a0d\u000a\u0d0a\u0a00"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert lines_of(tmp_path, text.encode(encoding), encoding).texts == text.split("\n")


@pytest.mark.parametrize(
    ("data", "encoding", "kind", "said"),
    [
        (b"a\nJos\xe9\n", "utf-8", "not UTF-8", "byte 0xe9 is not UTF-8 (byte 4 of the line); "),
        (b"a\n\x98b\n", "cp1251", "not in the encoding", "byte 0x98 is not CP1251 (byte 1 of the line); "),
        (b"a\0\n\0\0\xd8b\0\n\0", "utf-16-le", "not in the encoding", "is not UTF-16-LE (byte 1 of the line); "),
    ],
)
def test_a_byte_that_is_not_in_the_encoding_is_named_and_no_cause_guessed(
    tmp_path: Path, data: bytes, encoding: str, kind: str, said: str
) -> None:
    found = lines_of(tmp_path, data, encoding)
    assert (found.texts[0], list(found.bad)) == ("a", [2])
    problem = found.bad[2]
    assert (problem.kind, problem.origin, problem.dropped) == (kind, f"{tmp_path / 'x'}:2", False)
    assert problem.text.endswith(f"{said}data.encoding names the encoding of the file, if it is known")
    assert "iconv" not in problem.text


def test_marks_of_joined_files_are_no_text_wherever_a_line_begins(tmp_path: Path) -> None:
    found = lines_of(tmp_path, "\ufeff\ufeffa\n\nb\n\ufeffc\ufeff\n\ufeff".encode())
    assert found.texts == ["a", "", "b", "c\ufeff", ""]
    assert [(problem.kind, problem.origin) for problem in found.problems] == [
        ("byte order mark", f"{tmp_path / 'x'}:1")
    ]
    found = lines_of(tmp_path, "\ufeffa\n\ufeffb".encode("utf-16-be"))
    assert found.texts == ["a", "b"]
    assert found.problems[1].origin == f"{tmp_path / 'x'}:2"


@pytest.mark.parametrize("encoding", WIDE)
def test_zero_bytes_beside_line_feeds_are_named_without_a_mark(tmp_path: Path, encoding: str) -> None:
    found = lines_of(tmp_path, "a\tO\nb\tO\n\nc\tO\n".encode(encoding))
    assert found.texts == []
    (problem,) = found.problems
    assert (problem.kind, problem.dropped) == ("not text", True)
    assert "has a zero byte beside each of its line feeds" in problem.text
    assert "data.encoding names the encoding" in problem.text


def test_a_zero_byte_in_a_word_is_data(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b"\0a\n\0\nb\nc\nd\n").texts == ["\0a", "\0", "b", "c", "d", ""]


def test_an_encoding_without_the_order_of_bytes_needs_a_mark(tmp_path: Path) -> None:
    assert lines_of(tmp_path, "\ufeffa".encode("utf-16-be"), "utf-16").texts == ["a"]
    with pytest.raises(
        MetaprimeError, match=r"x: data\.encoding utf-16 needs a byte order mark.*set it to utf-16-le or"
    ):
        lines_of(tmp_path, b"a\0", "utf-16")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, forbid: Forbid) -> None:
    with pytest.raises(MetaprimeError, match=r"nowhere: cannot be read \(No such file or directory\); check the path"):
        read_lines(tmp_path / "nowhere", UNSTATED)
    (tmp_path / "x").write_bytes(b"a")
    forbid(tmp_path / "x")
    with pytest.raises(MetaprimeError, match=r"x: permission denied: have its owner"):
        read_lines(tmp_path / "x", UNSTATED)
