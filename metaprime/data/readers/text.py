"""Reads the lines of a text file: its encoding, byte order marks, and lines that are no text.

A file that begins with a byte order mark is read as the mark says, any other one by
`data.encoding`. Marks at the beginning of later lines, as joined files have them, are no part of
the text.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from metaprime.data.reading import Format, Problem
from metaprime.files import check_readable
from metaprime.types import MetaprimeError

MARK = "\ufeff"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and the encodings that they say."""

FEWEST_ENDS = 4
"""Fewest line ends by which UTF-16 differs from text with a zero byte in it."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file.

    Attributes:
        texts: each line without its end; bytes that are not in the encoding are replaced by U+FFFD.
        bad: problems of such lines, by the number of the line, counted from 1.
        problems: of the file as a whole: notices, or the reason why it has no lines.
    """

    texts: list[str]
    bad: dict[int, Problem]
    problems: list[Problem]


def contents(path: Path) -> bytes:
    """Returns the bytes of a file: `contents(Path("train.conll"))`.

    Raises:
        MetaprimeError: the file cannot be read.
    """
    check_readable(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise MetaprimeError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def read_lines(path: Path, form: Format) -> Lines:
    """Reads the lines of a file; only a line feed ends one: `read_lines(path, UNSTATED).texts`.

    Args:
        path: the file.
        form: names the encoding of a file without a byte order mark.

    Raises:
        MetaprimeError: the file cannot be read, or its encoding does not say the order of bytes.
    """
    data = contents(path)
    mark, encoding = next(
        ((mark, name) for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), (b"", form.encoding)
    )
    problems = []
    if mark and not encoding.startswith(codecs.lookup(form.encoding).name):
        text = f"read as {encoding}, as the byte order mark of the file says, and not by data.encoding {form.encoding}"
        problems.append(Problem("byte order mark", str(path), text))
    data = data.removeprefix(mark)
    if not mark and codecs.lookup(encoding).name in ("utf-16", "utf-32"):
        raise MetaprimeError(
            f"{path}: data.encoding {encoding} needs a byte order mark, which the file has not; "
            f"set it to {encoding}-le or {encoding}-be"
        )

    end = "\n".encode(encoding)
    if len(end) == 1 and _is_wide(data):
        wrong = (
            f"has a zero byte beside each of its line feeds, which no text in {encoding.upper()} has; data.encoding "
            "names the encoding of the file, e.g. utf-16-le, if it is known"
        )
        return Lines([], {}, [*problems, Problem("not text", str(path), wrong, dropped=True)])

    texts: list[str] = []
    bad: dict[int, Problem] = {}
    joined = 0
    for number, raw in enumerate(_split(data, end), start=1):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            text = raw.decode(encoding, errors="replace")
            bad[number] = _undecodable(error, encoding, f"{path}:{number}")
        if text.startswith(MARK):
            joined = joined or number
            text = text.lstrip(MARK)
        texts.append(text)
    if joined:
        wrong = "lines that begin with a byte order mark, as joined files have them: the marks are no part of the text"
        problems.append(Problem("byte order mark", f"{path}:{joined}", wrong))
    return Lines(texts, bad, problems)


def _split(data: bytes, end: bytes) -> list[bytes]:
    """Splits bytes at line ends that begin at a multiple of their width."""
    # Not splitlines(), which also splits at U+2028.
    if len(end) == 1:
        return data.split(end)
    lines, start, found = [], 0, data.find(end)
    while found >= 0:
        if found % len(end):
            found = data.find(end, found + 1)
            continue
        lines.append(data[start:found])
        start = found + len(end)
        found = data.find(end, start)
    return [*lines, data[start:]]


def _undecodable(error: UnicodeDecodeError, encoding: str, place: str) -> Problem:
    """Returns the problem of a line with a byte that its encoding does not have."""
    wrong = (
        f"byte 0x{error.object[error.start]:02x} is not {encoding.upper()} (byte {error.start + 1} of the line); "
        "data.encoding names the encoding of the file, if it is known"
    )
    return Problem("not UTF-8" if codecs.lookup(encoding).name == "utf-8" else "not in the encoding", place, wrong)


def _is_wide(data: bytes) -> bool:
    """Returns True if a zero byte is beside every line feed, as in UTF-16 and UTF-32."""
    ends = data.count(b"\n")
    return ends >= FEWEST_ENDS and ends in (data.count(b"\n\0"), data.count(b"\0\n"))
