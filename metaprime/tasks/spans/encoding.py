"""Encodes texts with two spans as windows, whose marks tell which sub-words belong to which span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from metaprime.data.rows import Example, Row, Window
from metaprime.data.subwords import Pieces
from metaprime.tasks.spans.stretches import span_of
from metaprime.tasks.task import Text
from metaprime.tasks.texts.encoding import tell_cut
from metaprime.types import MetaprimeError

SPAN_MARKS = "marks"
"""Name of a batch's marks (B, L): 1 in the first span, 2 in the second, 3 in both, else 0."""


def by_words(examples: Sequence[Example]) -> list[Example]:
    """Returns the texts cut into words, of which spans consist: `by_words(examples)[0].words`."""
    return [replace(example, words=tuple(example.words[0].split())) for example in examples]


def encode(examples: Sequence[Example], text: Text, ids: Mapping[str, int], whole_spans: bool) -> list[Row]:
    """Encodes each example as a row of one window; of a text that is too long, the part around the spans is kept.

    Args:
        examples: a text and two spans as `words`; their class as `gold`.
        text: the encoder's tokenizer, and the limit on a window.
        ids: label id of each class.
        whole_spans: whether all sub-words of a span are marked; False: its first one.

    Raises:
        MetaprimeError: the two spans do not fit in a window, or one has no sub-word.

    Example: `encode(examples, text, {"false": 0, "true": 1}, True)[0].windows[0].more["marks"]`.
    """
    rows, cut = [], 0
    for example, pieces in zip(examples, text.subwords.of(by_words(examples)), strict=True):
        window, whole = _window(example, pieces, text, ids[example.gold], whole_spans)
        rows.append(Row((window,), example))
        cut += not whole
    tell_cut(rows, cut, text)
    return rows


def _window(example: Example, pieces: Pieces, text: Text, label: int, whole_spans: bool) -> tuple[Window, bool]:
    """Returns the window of an example, and whether all of the text fits."""
    before, after = text.subwords.before, text.subwords.after
    places = _places(example, pieces)
    if any(first == end for first, end in places):
        raise MetaprimeError(
            f"{example.origin}: the tokenizer has no sub-word for the words of a span, such as marks that are not seen; remove "
            "the example"
        )
    start = kept_from(example, pieces, text)
    if start is None:
        raise MetaprimeError(
            f"{example.origin}: the two spans do not fit in data.max_length = {text.lengths.longest} sub-words; raise it, or "
            "remove the example"
        )
    kept = pieces.ids.tolist()[start : start + _room(text)]
    marks = [0] * len(kept)
    for bit, (first, end) in enumerate(places):
        for place in range(first, end if whole_spans else min(first + 1, end)):
            marks[place - start] |= 1 << bit
    # Special tokens belong to no span.
    marked = (0,) * len(before) + tuple(marks) + (0,) * len(after)
    window = Window((*before, *kept, *after), (), (), (label,), {SPAN_MARKS: marked})
    return window, len(kept) == len(pieces.ids)


def _room(text: Text) -> int:
    """Returns the largest number of a text's sub-words in a window."""
    return text.lengths.longest - len(text.subwords.before) - len(text.subwords.after)


def _places(example: Example, pieces: Pieces) -> list[tuple[int, int]]:
    """Returns the first sub-word of each span, and its last plus 1."""
    ends = list(accumulate(pieces.lengths.tolist(), initial=0))
    return [(ends[first], ends[end]) for first, end in map(span_of, example.words[1:])]


def kept_from(example: Example, pieces: Pieces, text: Text) -> int | None:
    """Returns the first sub-word of a text that is kept; None if its spans do not fit in a window.

    Args:
        example: a text and two spans.
        pieces: the sub-words of its words.
        text: the encoder's tokenizer, and the limit on a window.

    Example: `kept_from(example, text.subwords.of(by_words([example]))[0], text)` is 0 for a short text.
    """
    return first_kept(_places(example, pieces), len(pieces.ids), _room(text))


def first_kept(places: Sequence[tuple[int, int]], total: int, room: int) -> int | None:
    """Returns the first sub-word of the part of a text that is kept, with the spans in its middle.

    Args:
        places: first sub-word of each span, and its last plus 1.
        total: sub-words of the text.
        room: largest number of them in a window.

    Returns:
        Its number; None if the spans do not fit.

    Example: `first_kept([(8, 9), (10, 12)], total=20, room=8)` is 6.
    """
    first, end = min(place for place, _ in places), max(place for _, place in places)
    if end - first > room:
        return None
    return max(0, min(first - (room - (end - first)) // 2, total - room))
