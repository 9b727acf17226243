"""Infers the columns of a CoNLL file: index, words, tags, and the number of the sentence.

    tags      of the columns in which at least half of the lines have a tag, the first that does not
              hold chunks (B-NP); without such a column the values of a key in one of them
              (`name=B-PER|SpaceAfter=No`), else the last column; of the words' classes, where tags mark no
              spans, the fourth of the ten columns of CoNLL-U, else the last one
    sentence  a column of numbers that is the same on all lines of each sentence; where the file has no
              blank lines, one whose numbers stay for several lines and only grow
    index     the first other column, if it counts 0, 1, 2 ... or 1, 2, 3 ... in most sentences of three
              or more columns
    words     the first column that is none of these

`task.words` and `task.tags` overrule this. What could be meant in another way is stated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from metaprime.data.reading import Format
from metaprime.types import MetaprimeError, is_number

NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
"""Index of a multiword range or an empty node, whose words have lines of their own."""

TAG_LIKE = re.compile(r"O|[A-Z]-.+", re.DOTALL)
OTHER_TAGS = re.compile(r"o|[bismelu][-_/:].+|[BISMELU][_/:].+|[BI]|.*[^\W\d].*[-_/:][BISMELU]", re.DOTALL)
"""Tags, and other spellings of tags, that a column is known by."""

CHUNKS = frozenset(
    (
        *("NP", "VP", "PP", "ADJP", "ADVP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"),
        *("NC", "VC", "PC", "AC", "ADJC", "ADVC", "CONJC"),
    )
)
"""Types of syntactic chunks, which are not what is tagged where another column holds tags too."""

DENSE, ENOUGH = 0.2, 20
"""Largest share of O in a column of chunks that has other types, and fewest lines by which it is known."""

CONLL_U, UPOS_COLUMN = 10, 3
"""Number of columns of CoNLL-U, and that of them which holds the universal part of speech, counted from 0."""

NUMBER = re.compile(r"(\D*?)([0-9]+)(?:\.0+)?")
"""Number of a sentence: `7`, `7.0`, `sentence 7`."""


class ConllLine(NamedTuple):
    """The number of a line, counted from 1, and its columns."""

    number: int
    columns: list[str]


@dataclass(frozen=True)
class Shape:
    """Columns of a file, each counted from 0.

    Attributes:
        width: number of columns.
        first: number of the first line with that many.
        words: column of the words.
        tags: column of the tags.
        key: the key whose values are the tags in that column; empty: the whole column.
        index: column that counts the words of a sentence; None: there is none.
        notices: sentences about what could be meant in another way.
    """

    width: int
    first: int
    words: int
    tags: int
    key: str = ""
    index: int | None = None
    notices: tuple[str, ...] = ()

    def tag(self, columns: Sequence[str]) -> str:
        """Returns the tag of a line: `shape.tag(["Ada", "name=B-PER"])` is `B-PER` with the key `name`."""
        value = columns[self.tags]
        return _items(value).get(self.key, "O") if self.key else value

    def fits(self, columns: Sequence[str], tags: frozenset[str]) -> bool:
        """Returns True if a line has these columns and a tag: `shape.fits(["#", "O"], frozenset())`.

        Args:
            columns: of the line.
            tags: what other lines have in the column of tags.
        """
        if len(columns) != self.width or not columns[self.words]:
            return False
        tag = self.tag(columns)
        return tag in tags or TAG_LIKE.fullmatch(tag) is not None


def shape_of(blocks: Sequence[Sequence[ConllLine]], form: Format, place: str) -> Shape:
    """Infers the columns of a file from most of its lines; two columns if it has no line.

    Args:
        blocks: lines of each sentence.
        form: states the columns of words and tags, or leaves them to be found.
        place: the file, for the error.

    Raises:
        MetaprimeError: a stated column is not a number, or the file has fewer columns.

    Example: `shape_of([[ConllLine(1, ["Ada", "B-PER"])]], UNSTATED, "x").tags` is 1.
    """
    rows = [line for block in blocks for line in block]
    width = usual_width(rows)
    first = next((line.number for line in rows if len(line.columns) == width), 0)
    words, tags = (_stated(key, column, width, place) for key, column in (("words", form.words), ("tags", form.tags)))

    # Columns that are neither words nor tags.
    numbers = next((column for column in (0, 1) if width > 2 and _same_in_each(blocks, column)), None)
    at = 1 if numbers == 0 else 0
    wide = [block for block in blocks if len(block[0].columns) > 2]
    counting = width > at + 1 and width > 2 and sum(counts(block, at) for block in wide) * 2 > len(wide)
    index = at if counting else None
    taken = {column for column in (numbers, index, words) if column is not None and column != tags}

    notices = []
    free = [column for column in range(width) if column not in taken]
    key = ""
    if tags is None:
        find = _tags if form.spans else _classes
        tags, key, notice = find(rows, free, is_first_word=words is None)
        notices += [notice] if notice else []
    elif form.spans:
        key = _key(rows, tags)
    if words is None:
        left = [column for column in range(width) if column not in {numbers, index, tags}]
        words = left[0] if left else int(index is not None)
        if numbers is not None and numbers < words:
            text = f"column {words + 1} is read as the words, as column {numbers + 1} numbers the sentences"
            notices.append(f"{text}; task.words chooses another")
    if words == tags:
        raise MetaprimeError(f"{place}: task.words and task.tags both name column {words + 1}; correct one of them")
    return Shape(width, first, words, tags, key, index, tuple(notices))


def usual_width(rows: Sequence[ConllLine]) -> int:
    """Returns the number of columns of most lines, 2 without a line: `usual_width(rows)`."""
    return Counter(len(line.columns) for line in rows).most_common(1)[0][0] if rows else 2


def counts(block: Sequence[ConllLine], column: int) -> bool:
    """Returns True if a column counts the words of a sentence from 0 or 1: `counts(lines, 0)`."""
    numbers = [
        line.columns[column]
        for line in block
        if len(line.columns) > column and not NO_WORD.fullmatch(line.columns[column])
    ]
    return bool(numbers) and any(numbers == [str(first + word) for word in range(len(numbers))] for first in (0, 1))


def numbering(blocks: Sequence[Sequence[ConllLine]]) -> int | None:
    """Returns the column that numbers the sentences of a file without blank lines: `numbering(documents)`.

    Its numbers grow, or count words and begin anew; sentences have two words or more on average.

    Args:
        blocks: lines of each document.
    """
    rows = [line for block in blocks for line in block]
    width = usual_width(rows)
    for column in range(width):
        values = [[line.columns[column] for line in block if len(line.columns) == width] for block in blocks]
        numbers = [[int(match[2]) for value in own if (match := NUMBER.fullmatch(value))] for own in values]
        # An empty number is that of the line before.
        if any(
            len(own) < sum(map(bool, given)) or not all(given[:1]) for own, given in zip(numbers, values, strict=True)
        ):
            continue
        grow = all(before <= after for own in numbers for before, after in pairwise(own))
        if not grow and not all(counts_anew(own) for own in values):
            continue
        found = sum(len(set(sentence_numbers(own))) for own in values)
        if len(blocks) < found <= len(rows) / 2:
            return column
    return None


def sentence_numbers(values: Sequence[str]) -> list[int]:
    """Returns the number of each line's sentence, counted from 0: `sentence_numbers(["7", "7", "8"])` is 0, 0, 1.

    Args:
        values: a column that numbers sentences, or words within each; empty where nothing changes.
    """
    anew = counts_anew(values)
    numbers, before = [], values[0] if values else ""
    number = 0
    for place, value in enumerate(values):
        new = value == values[0] if anew else value not in ("", before)
        number += place > 0 and new
        before = value or before
        numbers.append(number)
    return numbers


def counts_anew(values: Sequence[str]) -> bool:
    """Returns True if a column counts words and begins anew: `counts_anew(["1", "2", "3", "1"])`."""
    if not values or values[0] not in ("0", "1") or not all(map(str.isdecimal, values)):
        return False
    numbers = list(map(int, values))
    times = numbers.count(numbers[0])
    steps = all(after in (before + 1, numbers[0]) for before, after in pairwise(numbers))
    return steps and times > 1 and 2 * times <= len(numbers)


def _stated(key: str, column: int | str | None, width: int, place: str) -> int | None:
    """Returns a column that the config states, counted from 0."""
    if column is None:
        return None
    if not is_number(column) or int(column) > width:
        have = f"its columns have numbers, 1 to {width}" if isinstance(column, str) else f"it has {width} columns"
        raise MetaprimeError(f"{place}: task.{key} is {column!r}, but {have}; correct task.{key}")
    return int(column) - 1


def _same_in_each(blocks: Sequence[Sequence[ConllLine]], column: int) -> bool:
    """Returns True if a column has a number that is the same on all lines of each sentence."""
    several = sum(len(block) > 1 for block in blocks)
    # The number may be on the first line only.
    values = ({line.columns[column] for line in block if len(line.columns) > column} - {""} for block in blocks)
    return several * 2 > len(blocks) and all(
        len(found) == 1 and NUMBER.fullmatch(next(iter(found))) is not None for found in values
    )


def _tags(rows: Sequence[ConllLine], free: Sequence[int], is_first_word: bool) -> tuple[int, str, str]:
    """Returns the column of the tags, the key in it, and a notice if another one could be meant."""
    later = free[1:] if is_first_word else free
    choices = [column for column in later if _share(rows, column, _is_tag) >= 0.5]
    if not choices and is_first_word and len(free) > 1 and _share(rows, free[0], _is_tag) >= 0.5:
        choices = [free[0]]
    entities = [column for column in choices if not _holds_chunks(rows, column)]
    if choices:
        tags = (entities or choices)[0 if entities else -1]
        others = [column + 1 for column in choices if column != tags]
        if not others and tags in later:
            return tags, "", ""
        text = f"column {tags + 1} is read as the tags"
        if others:
            text += f", though column {' and '.join(map(str, others))} could be too"
        return tags, "", f"{text}; task.tags chooses another"

    # No whole column: the value of a key, or the last one as in files of two columns.
    for column in later:
        if key := _key(rows, column):
            text = f"the values of {key}= in column {column + 1} are read as the tags, and a word without it has O"
            return column, key, f"{text}; task.tags chooses another column"
    last = free[-1] if free else 1
    notice = (
        f"no column looks like tags: the last one, column {last + 1}, is read as the tags; task.tags chooses another"
    )
    return last, "", notice if len(free) > 2 and rows else ""


def _classes(rows: Sequence[ConllLine], free: Sequence[int], is_first_word: bool) -> tuple[int, str, str]:
    """Returns the column of the words' classes, and a notice if another one could be meant."""
    if usual_width(rows) == CONLL_U and UPOS_COLUMN in free:
        return UPOS_COLUMN, "", ""
    last = free[-1] if free else 1
    notice = f"the last column, {last + 1}, is read as the classes; task.tags chooses another"
    return last, "", notice if len(free) > 1 + is_first_word and rows else ""


def _is_tag(value: str) -> bool:
    """Returns True for a tag in any spelling."""
    return TAG_LIKE.fullmatch(value) is not None or OTHER_TAGS.fullmatch(value) is not None


def _share(rows: Sequence[ConllLine], column: int, holds: Callable[[str], bool]) -> float:
    """Returns the share of lines whose value in a column has a property."""
    values = Counter(line.columns[column] for line in rows if len(line.columns) > column)
    return sum(number for value, number in values.items() if holds(value)) / max(len(rows), 1)


def _holds_chunks(rows: Sequence[ConllLine], column: int) -> bool:
    """Returns True if most tags of a column have the types of chunks, or hardly any word is outside."""
    tags = [line.columns[column] for line in rows if len(line.columns) > column]
    inside = [tag for tag in tags if tag not in ("O", "o")]
    chunks = sum(tag[2:].upper() in CHUNKS for tag in inside)
    dense = len(tags) >= ENOUGH and len(tags) - len(inside) <= DENSE * len(tags)
    return chunks > 0.9 * len(inside) > 0 or dense


def _key(rows: Sequence[ConllLine], column: int) -> str:
    """Returns the key of `key=value|key=value` in a column whose values are tags; empty: there is none."""
    found: dict[str, list[str]] = {}
    for line in rows:
        if len(line.columns) > column:
            for key, value in _items(line.columns[column]).items():
                found.setdefault(key, []).append(value)
    return next((key for key, values in found.items() if all(TAG_LIKE.fullmatch(value) for value in values)), "")


def _items(value: str) -> dict[str, str]:
    """Splits `key=value|key=value`; what is not such an item is left out."""
    return dict(item.split("=", 1) for item in value.split("|") if "=" in item)
