"""Reads CoNLL text: one word and tag per line, blank lines between sentences.

    DIR/<language>/<split>.conll
    token TAB tag          token tag          index TAB token TAB tag          token POS chunk tag
    index TAB token TAB tag TAB - TAB annotator                                (Universal NER)
    index TAB token TAB outer tag TAB inner tag                                (GermEval)
    token TAB tag TAB number of the sentence, without blank lines

A line with a tab is split at tabs only, any other line at ASCII spaces; other white space (U+00A0,
U+2028) is data. The meaning of the columns is decided once for a file (`shapes.py`). In a file
without an index all lines must have as many columns as most of them; in one with an index columns
after the tag may be missing, and multiword ranges (`1-2`) and empty nodes (`1.1`) are skipped, since
their words have lines of their own.

A line before the first word of a sentence that begins with `#` and a space or tab is a comment, if
it reads `# key = value`, or has not the columns of the other lines with a tag where they have one:
`# O` is the word `#` in a file of two columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from metaprime.data.readers import folders
from metaprime.data.readers.shapes import (
    NO_WORD,
    TAG_LIKE,
    ConllLine,
    Shape,
    counts,
    counts_anew,
    numbering,
    sentence_numbers,
    shape_of,
    usual_width,
)
from metaprime.data.readers.text import Lines, read_lines
from metaprime.data.reading import UNSTATED, Corpus, Format, Problem, Reading, dropping, shown
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError, is_number

EXTENSIONS = ("conll", "conllu", "txt", "tsv", "bio", "iob2")
ABOUT = re.compile(r"# [^ \t]+ = [^\t]*")
PREFIX = re.compile(r"([a-z]{2,}(?:-[a-z]+)*):.+", re.DOTALL)
"""A word as WikiANN's archives have it: `nl:word`."""

FEWEST_WORDS = 10
"""Fewest words by which a prefix is known that is not the name of the language's folder."""

MOST = 0.95
"""Smallest share of words by which a prefix is known."""

LONGEST = 40
"""Most words of the one sentence of a file without blank lines that is taken for a sentence."""


@dataclass(frozen=True)
class Block:
    """The lines of one sentence that were split into columns, and the problems of the others.

    Attributes:
        lines: lines with words.
        problems: of lines that were not split.
        heads: lines before the first word that begin with `#`: comments, or words.
        document: True if a -DOCSTART- line, or nothing, is between this block and the one before.
    """

    lines: list[ConllLine] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    heads: list[ConllLine] = field(default_factory=list)
    document: bool = True


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags: `read("data", "de", "train").sentences`.

    Raises:
        MetaprimeError: the folder, language or split does not exist, or has not the stated columns.
    """
    return parse(folders.locate(root, language, split, EXTENSIONS), form)


def parse(path: Path, form: Format = UNSTATED) -> Reading:
    """Reads one file with its own tags; `origin` is the line of a sentence's first word.

    Args:
        path: the file.
        form: its encoding, columns and sentences, as far as they are stated.

    Raises:
        MetaprimeError: the file cannot be read, or has not the stated columns.

    Example: `parse(Path("train.conll")).problems`.
    """
    lines = read_lines(path, form)
    reading = Reading(place=str(path), problems=list(lines.problems))
    blocks, notice = _numbered(_blocks(path, lines), form, path)
    reading.problems.extend(notice)

    # Comments are distinguished from words by the columns of the other lines.
    bodies = [block.lines for block in blocks if block.lines]
    shape = shape_of(bodies or [block.heads for block in blocks if block.heads], form, str(path))
    reading.problems.extend(Problem("chosen columns", str(path), text) for text in shape.notices)
    tags = frozenset(shape.tag(line.columns) for body in bodies for line in body if len(line.columns) == shape.width)
    blocks = [_with_heads(block, shape, tags) for block in blocks]
    blocks = [block for block in blocks if block.lines or block.problems]
    endless = form.sentences == "auto" and not notice and all(block.document for block in blocks)

    sentences = []
    for block in blocks:
        problems = [*block.problems, *_misshapen(path, block, shape)]
        if not problems and endless and len(block.lines) > LONGEST:
            problems.append(_endless(path, block))
        if problems:
            problems.sort(key=lambda problem: int(problem.origin.rpartition(":")[2]))
            reading.problems.extend(dropping(problems, "error"))
        else:
            sentences.append(_sentence(path, block, shape))
    reading.sentences.extend(_without_prefix(sentences, reading, path.parent.name))
    return reading


def _sentence(path: Path, block: Block, shape: Shape) -> Example:
    """Builds the sentence of a block without problems."""
    lines = block.lines
    if shape.index is not None:
        lines = [line for line in lines if not NO_WORD.fullmatch(line.columns[shape.index])]
    first, last = lines[0].number, lines[-1].number
    # Without gaps the line of each word follows from the first one.
    consecutive = last - first + 1 == len(lines)
    return Example(
        tuple(line.columns[shape.words] for line in lines),
        tuple(shape.tag(line.columns) for line in lines),
        f"{path}:{first}" if consecutive else f"{path}:lines {first}-{last}",
    )


def _without_prefix(sentences: list[Example], reading: Reading, language: str) -> list[Example]:
    """Takes the language off words that begin with it, `nl:word`, if nearly all do, and says so."""
    found = Counter(match[1] if (match := PREFIX.fullmatch(word)) else "" for one in sentences for word in one.words)
    ((prefix, number),) = found.most_common(1) or [("", 0)]
    if not prefix or number < MOST * found.total() or (number < FEWEST_WORDS and prefix != language):
        return sentences
    text = f"{number} of {found.total()} words" if len(found) > 1 else "all words"
    text = f"{text} begin with {prefix}:, which is taken off, as the prefix of a language"
    reading.problems.append(Problem("language prefix", reading.place, text))
    return [replace(one, words=tuple(word.removeprefix(f"{prefix}:") for word in one.words)) for one in sentences]


def _misshapen(path: Path, block: Block, shape: Shape) -> list[Problem]:
    """Finds lines of a block that do not fit the columns of the file."""
    problems = []
    for number, columns in block.lines:
        ragged = shape.index is not None and len(columns) > max(shape.words, shape.tags)
        if len(columns) != shape.width and not ragged:
            text = (
                f"{len(columns)} columns in {_line(columns)}, but {shape.width} on line {shape.first} and most others; "
                "give all lines the same columns, split by tabs"
            )
            problems.append(Problem("column count", f"{path}:{number}", text))
        elif not columns[shape.words] or not columns[shape.tags]:
            text = f"{_line(columns)} has an empty column; each line needs a token and its tag, separated by a tab"
            problems.append(Problem("malformed line", f"{path}:{number}", text))

    # An index with gaps means a lost line. Other problems of the block would explain the gap.
    if shape.index is None or not block.lines or block.problems or problems or counts(block.lines, shape.index):
        return problems
    number, columns = block.lines[0]
    text = (
        f"the {'first' if shape.index == 0 else 'second'} column counts the words in the other sentences but not in "
        f"this one, which begins with {shown(columns[shape.index])}; number it from 0 or 1 without gaps, or remove that "
        "column everywhere"
    )
    return [Problem("malformed line", f"{path}:{number}", text)]


def _endless(path: Path, block: Block) -> Problem:
    """Returns the problem of a long sentence in a file without blank lines."""
    text = (
        f"one sentence of {len(block.lines)} words, as no blank line ends a sentence in this file; put one after each "
        "sentence, or name a column that numbers them, e.g. data.sentences: 3; data.sentences: blank_lines takes it "
        "as it is"
    )
    return Problem("no blank line", f"{path}:{block.lines[0].number}", text)


def _blocks(path: Path, lines: Lines) -> list[Block]:
    """Splits a file into sentences at blank lines and -DOCSTART-; skips comments of the form `# key = value`."""
    blocks, block = [], Block()
    for number, text in enumerate(lines.texts, start=1):
        if not text.strip(" \t\r") or text.startswith("-DOCSTART-"):
            # An empty block is still before the first word behind what ended the last one.
            if block.lines or block.problems or block.heads:
                blocks.append(block)
                block = Block(document=False)
            if text.startswith("-DOCSTART-"):
                block = replace(block, document=True)
            continue
        line = lines.bad.get(number) or _line_of(text, number, path)
        bare = text.rstrip(" \t\r")
        if not block.lines and not block.problems and bare.startswith(("# ", "#\t")):
            if isinstance(line, ConllLine) and not ABOUT.fullmatch(bare):
                block.heads.append(line)
            # What cannot be split is a comment too, unless it ends in a tag as a line with a word does.
            elif isinstance(line, Problem) and TAG_LIKE.fullmatch(re.split("[\t ]", bare)[-1]):
                block.problems.append(line)
        elif isinstance(line, Problem):
            block.problems.append(line)
        else:
            block.lines.append(line)
    return [*blocks, block]


def _numbered(blocks: list[Block], form: Format, path: Path) -> tuple[list[Block], list[Problem]]:
    """Splits blocks where the column that numbers sentences changes, and says so if the column was found."""
    column = None
    filled = [block for block in blocks if block.lines]
    width = usual_width([line for block in filled for line in block.lines])
    if is_number(form.sentences):
        column = int(form.sentences) - 1
        if filled and column >= width:
            text = f"data.sentences is {column + 1}, but it has {width} columns; correct data.sentences"
            raise MetaprimeError(f"{path}: {text}")
    elif form.sentences == "auto" and all(block.document for block in filled):
        column = numbering([block.lines for block in filled])
    if column is None:
        return blocks, []
    parts = [part for block in blocks for part in _parts(block, column, width)]
    if form.sentences != "auto":
        return parts, []
    anew = all(counts_anew([line.columns[column] for line in block.lines]) for block in filled)
    place = f"begins where column {column + 1} counts anew"
    if not anew:
        place = f"ends where the number in column {column + 1} changes"
    text = f"no blank line ends a sentence: one {place}; data.sentences chooses another column, or blank_lines"
    return parts, [Problem("chosen sentences", str(path), text)]


def _parts(block: Block, column: int, width: int) -> list[Block]:
    """Splits a block where the value of a column changes; an empty or missing one is that of the line before."""
    numbers = sentence_numbers([line.columns[column] if len(line.columns) == width else "" for line in block.lines])
    lines = iter(block.lines)
    parts = [Block([next(lines) for _ in group], document=False) for _, group in groupby(numbers)]
    if not parts:
        return [block]
    # Problems go with the last sentence that begins before them.
    for problem in block.problems:
        number = int(problem.origin.rpartition(":")[2])
        near = [part for part in parts if part.lines[0].number < number] or parts
        near[-1 if near is not parts else 0].problems.append(problem)
    parts[0] = replace(parts[0], heads=block.heads, document=block.document)
    return parts


def _with_heads(block: Block, shape: Shape, tags: frozenset[str]) -> Block:
    """Puts the words among the first lines of a block before its other words; the rest are comments."""
    words = next((place for place, line in enumerate(block.heads) if shape.fits(line.columns, tags)), None)
    return block if words is None else replace(block, lines=[*block.heads[words:], *block.lines])


def _line_of(text: str, number: int, path: Path) -> ConllLine | Problem:
    """Splits a line into columns, or returns the problem because of which it cannot be split."""
    text = text.removesuffix("\r")
    if "\r" in text:
        wrong = f"{shown(text)} has a carriage return in it; end lines with a line feed, and words without"
        return Problem("malformed line", f"{path}:{number}", wrong)
    if "\t" in text:
        columns = [column.strip(" ") for column in text.split("\t")]
    else:
        columns = [column for column in text.split(" ") if column]
    if len(columns) < 2:
        wrong = f"{shown(text)} has one column; each line needs a token and its tag, separated by a tab or by spaces"
        return Problem("malformed line", f"{path}:{number}", wrong)
    return ConllLine(number, columns)


def _line(columns: Sequence[str]) -> str:
    """Quotes a line for a message; tabs make an empty column visible."""
    return shown((" " if all(columns) else "\t").join(columns))


CORPUS = Corpus(read, languages, lambda root, language, split: [folders.locate(root, language, split, EXTENSIONS)])
