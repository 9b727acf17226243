"""Reads texts with two spans and their class from the columns of a table.

A span is a stretch of the words between spaces, kept in an example as `first:end`.
"""

from __future__ import annotations

from collections.abc import Sequence

from metaprime.data.reading import Problem, TableRow
from metaprime.data.rows import Example
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.spans.stretches import Span, bare_words, span_of, span_text, stretch
from metaprime.tasks.texts.classes import class_of
from metaprime.tasks.texts.reading import examiner, text_problems
from metaprime.types import MetaprimeError


def _example(row: TableRow, config: SpansConfig, known: bool) -> Example | list[Problem]:
    """Returns the example of a row: its text, its two spans and their class."""
    gold = class_of(row, config.label, config.labels, config.classes if known and config.labels else None)
    problems = text_problems(row, config.texts) + ([gold] if isinstance(gold, Problem) else [])
    if problems:
        return problems
    text, spans = row.values[config.text], []
    for index, name in ((config.first, config.first_text), (config.second, config.second_text)):
        span = stretch(text.split(), row.values[index], row.values[name].split())
        if isinstance(span, str):
            problems.append(Problem("not a span", row.origin, f"{index} and {name}: {span}"))
        else:
            spans.append(span)
    return problems or Example((text, *map(span_text, spans)), gold, row.origin)


examine = examiner(_example)
"""Reads one split of texts with two spans with all its problems (`texts.reading.examiner`)."""


def texts_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns a text and two spans of it, which are given as their words.

    Args:
        texts: the text, and the words of each span, which occur in it once, or from `first:end`; any other number
            is the words of a text with its first and last one as spans.

    Raises:
        MetaprimeError: the words of a span do not occur in the text, or more than once.

    Example: `texts_of(["Ada fed her cat", "Ada", "her"])` is `("Ada fed her cat", "0:1", "2:3")`.
    """
    if len(texts) != 3:
        whole = " ".join(texts)
        last = len(whole.split())
        return whole, span_text((0, 1)), span_text((last - 1, last))
    text, *spans = texts
    return text, *(span_text(_only(text.split(), span)) for span in spans)


def _only(words: Sequence[str], given: str) -> Span:
    """Returns the only place of some words."""
    numbers = given.split(":")
    if len(numbers) == 2 and all(map(str.isdecimal, numbers)) and int(numbers[0]) < int(numbers[1]) <= len(words):
        return span_of(given)
    wanted, bare = bare_words(given.split()), bare_words(words)
    size = len(wanted)
    places = [first for first in range(len(bare) - size + 1) if bare[first : first + size] == wanted]
    if len(places) != 1:
        times = f"{len(places)} times" if places else "nowhere"
        raise MetaprimeError(
            f"the span {given!r} occurs {times} in the text: give words that occur once, or the numbers of the first word and of "
            "the one after the last, counted from 0, such as 3:5"
        )
    return places[0], places[0] + size
