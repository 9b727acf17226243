"""Reads CoNLL text: one word and tag per line, blank lines between sentences.

    DIR/<language>/<split>.conll
    token TAB tag          token tag          index TAB token TAB tag          token POS chunk tag
    index TAB token TAB tag TAB - TAB annotator                                (Universal NER)

A line with a tab is split at tabs only, any other line at ASCII spaces; other white space (U+00A0,
U+2028) is data. The meaning of the columns is decided once for a file:

    tag      the last column in which at least half of the lines have `O` or `X-TYPE`, else the last
    index    the first column, if it counts 0, 1, 2 ... or 1, 2, 3 ... in most sentences of three or
             more columns; multiword ranges (`1-2`) and empty nodes (`1.1`) are then skipped, since
             their words have lines of their own, and columns after the tag may be missing
    token    the first column, or the one after the index

In a file without an index all lines must have as many columns as most of them.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from metaprime.data.readers import folders
from metaprime.data.reading import UNSTATED, Corpus, Format, Problem, Reading, dropping, shown
from metaprime.data.rows import Example

EXTENSIONS = ("conll", "conllu", "txt", "tsv", "bio", "iob2")
TAG_LIKE = re.compile(r"O|[A-Z]-.+", re.DOTALL)
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
ABOUT = re.compile(rb"# [^ \t]+ = [^\t]*")


class ConllLine(NamedTuple):
    """The number of a line, counted from 1, and its columns."""

    number: int
    columns: list[str]


class Block(NamedTuple):
    """The lines of one sentence that were split into columns, and the problems of the others."""

    lines: list[ConllLine]
    problems: list[Problem]

    @property
    def counts(self) -> bool:
        """True if the first column counts the words from 0 or 1."""
        numbers = [line.columns[0] for line in self.lines if not NO_WORD.fullmatch(line.columns[0])]
        return bool(numbers) and any(numbers == [str(first + word) for word in range(len(numbers))] for first in (0, 1))


class Shape(NamedTuple):
    """Columns of a file.

    Attributes:
        width: number of columns.
        first: number of the first line with that many.
        tag: number of the column of tags.
        indexed: True if the first column is an index; a number too, that of the column of tokens.
    """

    width: int
    first: int
    tag: int
    indexed: bool


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags: `read("data", "de", "train").sentences`.

    Raises:
        MetaprimeError: the folder, language or split does not exist.
    """
    return parse(folders.locate(root, language, split, EXTENSIONS))


def parse(path: Path) -> Reading:
    """Reads one file with its own tags; `origin` is the line of a sentence's first word.

    Raises:
        MetaprimeError: the file cannot be read.

    Example: `parse(Path("train.conll")).problems`.
    """
    reading = Reading(place=str(path))
    blocks = _blocks(path)
    shape = _shape([block for block in blocks if block.lines])
    for block in blocks:
        problems = [*block.problems, *_misshapen(path, block, shape)]
        if problems:
            problems.sort(key=lambda problem: int(problem.origin.rpartition(":")[2]))
            reading.problems.extend(dropping(problems, "error"))
        else:
            reading.sentences.append(_sentence(path, block, shape))
    return reading


def _sentence(path: Path, block: Block, shape: Shape) -> Example:
    """Builds the sentence of a block without problems."""
    lines = block.lines
    if shape.indexed:
        lines = [line for line in lines if not NO_WORD.fullmatch(line.columns[0])]
    first, last = lines[0].number, lines[-1].number
    # Without gaps the line of each word follows from the first one.
    consecutive = last - first + 1 == len(lines)
    return Example(
        tuple(line.columns[shape.indexed] for line in lines),
        tuple(line.columns[shape.tag] for line in lines),
        f"{path}:{first}" if consecutive else f"{path}:lines {first}-{last}",
    )


def _shape(blocks: list[Block]) -> Shape:
    """Infers the columns of a file from most of its lines; two columns if it has no line."""
    rows = [line for block in blocks for line in block.lines]
    widths = Counter(len(line.columns) for line in rows)
    width = widths.most_common(1)[0][0] if rows else 2
    first = next((line.number for line in rows if len(line.columns) == width), 0)
    wide = [block for block in blocks if len(block.lines[0].columns) > 2]
    indexed = width > 2 and sum(block.counts for block in wide) * 2 > len(wide)

    # The tag is in the last column in which at least half of the lines have one.
    for column in range(width - 1, indexed, -1):
        tags = sum(len(line.columns) > column and TAG_LIKE.fullmatch(line.columns[column]) is not None for line in rows)
        if tags * 2 >= len(rows):
            return Shape(width, first, column, indexed)
    return Shape(width, first, width - 1, indexed)


def _misshapen(path: Path, block: Block, shape: Shape) -> list[Problem]:
    """Finds lines of a block that do not fit the columns of the file."""
    problems = []
    for number, columns in block.lines:
        ragged = shape.indexed and len(columns) > shape.tag
        if len(columns) != shape.width and not ragged:
            text = (
                f"{len(columns)} columns in {_line(columns)}, but {shape.width} on line {shape.first} and most others; "
                "give all lines the same columns, split by tabs"
            )
            problems.append(Problem("column count", f"{path}:{number}", text))
        elif not columns[shape.indexed] or not columns[shape.tag]:
            text = f"{_line(columns)} has an empty column; each line needs a token and its tag, separated by a tab"
            problems.append(Problem("malformed line", f"{path}:{number}", text))

    # An index with gaps means a lost line. Other problems of the block would explain the gap.
    if shape.indexed and block.lines and not block.problems and not problems and not block.counts:
        number, columns = block.lines[0]
        text = (
            "the first column counts the words in the other sentences but not in this one, which begins with "
            f"{shown(columns[0])}; number it from 0 or 1 without gaps, or remove that column everywhere"
        )
        problems.append(Problem("malformed line", f"{path}:{number}", text))
    return problems


def _blocks(path: Path) -> list[Block]:
    """Splits a file into sentences at blank lines and -DOCSTART-; skips comments."""
    # Not splitlines(), which also splits at U+2028.
    lines = folders.contents(path).split(b"\n")
    blocks, block = [], Block([], [])
    for number, raw in enumerate(lines, start=1):
        if not raw.strip(b" \t\r") or raw.startswith(b"-DOCSTART-"):
            blocks.append(block)
            block = Block([], [])
            continue
        if not block.lines and not block.problems and _is_comment(raw):
            continue
        line = _line_of(raw, number, path)
        if isinstance(line, Problem):
            block.problems.append(line)
        else:
            block.lines.append(line)
    return [block for block in [*blocks, block] if block.lines or block.problems]


def _line_of(raw: bytes, number: int, path: Path) -> ConllLine | Problem:
    """Splits a line into columns, or returns the problem because of which it cannot be split."""
    try:
        text = raw.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        remedy = f"iconv -f latin1 -t utf-8 {path.name} > {path.stem}.utf8{path.suffix}"
        wrong = f"byte 0x{raw[error.start]:02x} is not UTF-8; convert the file, e.g. {remedy}"
        return Problem("not UTF-8", f"{path}:{number}", wrong)
    if "\r" in text:
        wrong = f"{shown(text)} has a carriage return in it; end lines with a line feed, e.g. tr '\\r' '\\n'"
        return Problem("malformed line", f"{path}:{number}", wrong)
    if "\t" in text:
        columns = [column.strip(" ") for column in text.split("\t")]
    else:
        columns = [column for column in text.split(" ") if column]
    if len(columns) < 2:
        wrong = f"{shown(text)} has one column; each line needs a token and its tag, separated by a tab or by spaces"
        return Problem("malformed line", f"{path}:{number}", wrong)
    return ConllLine(number, columns)


def _is_comment(raw: bytes) -> bool:
    """Returns True if a line before a sentence is a comment: `# id = 1`, or `# ...` without a tag.

    `# O` is the word `#` with its tag.
    """
    text = raw.rstrip(b" \t\r")
    last = re.split(rb"[\t ]", text)[-1].decode(errors="replace")
    return text.startswith(b"# ") and (ABOUT.fullmatch(text) is not None or not TAG_LIKE.fullmatch(last))


def _line(columns: list[str]) -> str:
    """Quotes a line for a message; tabs make an empty column visible."""
    return shown((" " if all(columns) else "\t").join(columns))


CORPUS = Corpus(read, languages)
