"""CoNLL text: one word a line with its tag, a blank line between sentences; `DIR/<language>/<split>.conll`.

    token TAB tag          token tag          index TAB token TAB tag          token POS chunk tag
    index TAB token TAB tag TAB - TAB annotator                                (Universal NER)

A line with a tab is split at tabs alone, any other at ASCII spaces: other white space (U+00A0, U+2028) is data. What
the columns are is decided for the file as a whole. The tag is in the last column in which at least half of the lines
have `O` or `X-TYPE`; if there is none, in the last one. The token is in the first, unless that is an index: in most
sentences of three and more columns it counts 0, 1, 2 ... or 1, 2, 3 ... Then the lines of multiword ranges (`1-2`) and
empty nodes (`1.1`) are skipped, the words they stand for have lines of their own; and what stands behind the tag may
be missing. Otherwise all lines have as many columns as most of them.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from metaprime.data.readers import folders
from metaprime.data.reading import Problem, Reading, dropping, shown
from metaprime.data.rows import Example

EXTENSIONS = ("conll", "conllu", "txt", "tsv", "bio", "iob2")
TAG_LIKE = re.compile(r"O|[A-Z]-.+", re.DOTALL)
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
ABOUT = re.compile(rb"# [^ \t]+ = [^\t]*")


class ConllLine(NamedTuple):
    """A line's number, counted from 1, and its columns."""

    number: int
    columns: list[str]


class Block(NamedTuple):
    """The lines between two blank ones, and what is wrong with those that are not among them."""

    lines: list[ConllLine]
    problems: list[Problem]

    @property
    def counts(self) -> bool:
        """Whether the first column counts the words."""
        numbers = [line.columns[0] for line in self.lines if not NO_WORD.fullmatch(line.columns[0])]
        return bool(numbers) and any(numbers == [str(first + word) for word in range(len(numbers))] for first in (0, 1))


class Shape(NamedTuple):
    """The columns of a file: how many, from which line on, which is the tag, and whether the first is an index."""

    width: int
    first: int
    tag: int
    indexed: bool


def languages(root: str) -> list[str]:
    """Languages for which `root` has a file."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str) -> Reading:
    """One split with the tags as the file has them."""
    return parse(folders.locate(root, language, split, EXTENSIONS))


def parse(path: Path) -> Reading:
    """One file with the tags as it has them; `origin` is the line of a sentence's first word."""
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
    lines = block.lines
    if shape.indexed:
        lines = [line for line in lines if not NO_WORD.fullmatch(line.columns[0])]
    first, last = lines[0].number, lines[-1].number
    together = last - first + 1 == len(lines)
    return Example(
        tuple(line.columns[shape.indexed] for line in lines),
        tuple(line.columns[shape.tag] for line in lines),
        f"{path}:{first}" if together else f"{path}:lines {first}-{last}",
    )


def _shape(blocks: list[Block]) -> Shape:
    """What most lines have; two columns, where there is no line that could say."""
    rows = [line for block in blocks for line in block.lines]
    widths = Counter(len(line.columns) for line in rows)
    width = widths.most_common(1)[0][0] if rows else 2
    first = next((line.number for line in rows if len(line.columns) == width), 0)
    wide = [block for block in blocks if len(block.lines[0].columns) > 2]
    indexed = width > 2 and sum(block.counts for block in wide) * 2 > len(wide)
    for column in range(width - 1, indexed, -1):
        tags = sum(len(line.columns) > column and TAG_LIKE.fullmatch(line.columns[column]) is not None for line in rows)
        if tags * 2 >= len(rows):
            return Shape(width, first, column, indexed)
    return Shape(width, first, width - 1, indexed)


def _misshapen(path: Path, block: Block, shape: Shape) -> list[Problem]:
    """What is wrong with a block's lines, given the columns of the file."""
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
    if shape.indexed and block.lines and not block.problems and not problems and not block.counts:
        number, columns = block.lines[0]
        text = (
            "the first column counts the words in the other sentences but not in this one, which begins with "
            f"{shown(columns[0])}; number it from 0 or 1 without gaps, or remove that column everywhere"
        )
        problems.append(Problem("malformed line", f"{path}:{number}", text))
    return problems


def _blocks(path: Path) -> list[Block]:
    """The file cut at blank lines and -DOCSTART-, without comments."""
    lines = folders.contents(path).split(b"\n")  # bytes, and no splitlines(): U+2028 is data
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
    """Whether a line before a sentence is about it: `# id = 1`, or `#` and no tag at the end. `# O` is a word."""
    text = raw.rstrip(b" \t\r")
    last = re.split(rb"[\t ]", text)[-1].decode(errors="replace")
    return text.startswith(b"# ") and (ABOUT.fullmatch(text) is not None or not TAG_LIKE.fullmatch(last))


def _line(columns: list[str]) -> str:
    return shown((" " if all(columns) else "\t").join(columns))
