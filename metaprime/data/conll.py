"""CoNLL text: one word a line with its tag, a blank line between sentences; `DIR/<language>/<split>.conll`.

    token TAB tag          token tag          index TAB token TAB tag          token POS chunk tag

A line with a tab is split at tabs alone, any other at ASCII spaces: other white space (U+00A0, U+2028) is data.
The last column is the tag. The first is the token, unless it is an index: among the sentences of three and more
columns most count 0, 1, 2 ... or 1, 2, 3 ... in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metaprime.data import layout
from metaprime.types import MetaprimeError, Sentence

EXTENSIONS = ("conll", "conllu", "txt", "tsv", "bio", "iob2")
TAG = re.compile(r"O|[A-Z]-.+")


class Block(NamedTuple):
    """The lines of one sentence: the number of the first, counted from 1, and the columns of each."""

    line: int
    rows: list[list[str]]

    @property
    def counts(self) -> bool:
        """Whether the first of three and more columns counts the words."""
        numbers = [row[0] for row in self.rows]
        return any(numbers == [str(first + word) for word in range(len(numbers))] for first in (0, 1))


def languages(root: str) -> list[str]:
    """Languages for which `root` has a file."""
    return layout.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str) -> list[Sentence]:
    """Sentences of one split with the tags as the file has them."""
    return parse(layout.locate(root, language, split, EXTENSIONS))


def parse(path: Path) -> list[Sentence]:
    """Sentences of one file with the tags as the file has them; `origin` is the line of a sentence's first word."""
    blocks = list(_blocks(path))
    if not blocks:
        raise MetaprimeError(f"{path}: no sentence in it; give a file with one word and its tag on each line")
    wide = [block for block in blocks if len(block.rows[0]) > 2]
    indexed = sum(block.counts for block in wide) * 2 > len(wide)
    return [_sentence(path, block, indexed=indexed and len(block.rows[0]) > 2) for block in blocks]


def _sentence(path: Path, block: Block, *, indexed: bool) -> Sentence:
    if indexed and not block.counts:
        raise MetaprimeError(
            f"{path}:{block.line}: the first column counts the words in the other sentences but not in this one, which "
            f"begins with {block.rows[0][0]!r}; number it from 0 or 1 without gaps, or remove that column everywhere"
        )
    word = 1 if indexed else 0
    return Sentence(
        tuple(row[word] for row in block.rows), tuple(row[-1] for row in block.rows), f"{path}:{block.line}"
    )


def _blocks(path: Path) -> Iterator[Block]:
    rows: list[list[str]] = []
    number = 0
    for number, line in enumerate(_text(path).split("\n"), start=1):  # not splitlines(): U+2028 is data
        line = line.removesuffix("\r")
        if not line.strip(" \t") or line.startswith("-DOCSTART-"):
            if rows:
                yield Block(number - len(rows), rows)
            rows = []
            continue
        columns = _columns(line)
        if not rows and line.startswith("# ") and not TAG.fullmatch(columns[-1]):
            continue  # a comment before the sentence
        if len(columns) < 2 or not all(columns):
            raise MetaprimeError(
                f"{path}:{number}: {line!r} has {'one column' if len(columns) < 2 else 'an empty column'}; "
                "each line needs a token and its tag, separated by a tab or by spaces"
            )
        if rows and len(columns) != len(rows[0]):
            raise MetaprimeError(
                f"{path}:{number}: {len(columns)} columns in {line!r}, but {len(rows[0])} on line "
                f"{number - len(rows)}, where the sentence begins; give all its lines the same columns, split by tabs"
            )
        rows.append(columns)
    if rows:
        yield Block(number + 1 - len(rows), rows)


def _columns(line: str) -> list[str]:
    if "\t" in line:
        return [column.strip(" ") for column in line.split("\t")]
    return [column for column in line.split(" ") if column]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MetaprimeError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:  # its `object` is the data without a BOM
        line = error.object[: error.start].count(b"\n") + 1
        raise MetaprimeError(
            f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8; convert the file, e.g. "
            f"iconv -f latin1 -t utf-8 {path.name} > {path.stem}.utf8{path.suffix}"
        ) from error
