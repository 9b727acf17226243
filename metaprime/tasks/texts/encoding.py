"""Encodes texts and pairs of texts as windows; a text that is too long is cut at its end.

Of a pair the longer text is cut first, as tokenizers do under `longest_first`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

from metaprime.data.rows import Example, Row, Window
from metaprime.data.subwords import Pieces, Subwords
from metaprime.tasks.task import Text
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)

Ids: TypeAlias = "Sequence[int]"
"""Sub-word ids of one text."""

Group: TypeAlias = "Callable[[Sequence[Ids]], list[Sequence[Ids]]]"
"""Returns the one or two texts of each window of an example, from all its texts."""

Values: TypeAlias = "tuple[int, Mapping[str, tuple[float, ...]]]"
"""Label id of a window, and what it has more."""


def one_window(texts: Sequence[Ids]) -> list[Sequence[Ids]]:
    """Returns all texts of an example as one window, which suits most tasks: `one_window([[7], [8]])` is `[[[7], [8]]]`."""
    return [texts]


def encode(
    examples: Sequence[Example], text: Text, values: Callable[[Example], Sequence[Values]], group: Group = one_window
) -> list[Row]:
    """Encodes each example as a row; logs how many were cut.

    Args:
        examples: texts as `words`.
        text: the encoder's tokenizer, and the limit on a window.
        values: returns label id and further values of each window of an example.
        group: returns the texts of each window, one or two.

    Raises:
        MetaprimeError: a window has no room for a sub-word of each text.

    Example: `encode(examples, text, lambda example: [(1, {})])[0].windows[0].labels` is `(1,)`.
    """
    rows, cut = [], 0
    for example, pieces in zip(examples, text.subwords.of(examples), strict=True):
        of_each = zip(group(texts_ids(pieces)), values(example), strict=True)
        windows, whole = zip(*(framed(texts, text, *own) for texts, own in of_each), strict=True)
        rows.append(Row(windows, example))
        cut += not all(whole)
    tell_cut(rows, cut, text)
    return rows


def tell_cut(rows: Sequence[Row], cut: int, text: Text) -> None:
    """Logs how many texts were cut: `tell_cut(rows, 0, text)` logs nothing.

    Args:
        rows: of one split.
        cut: number of those that are not whole.
        text: its limit on a window.
    """
    if cut:
        log.warning(
            "%s: %d of %d texts are longer than data.max_length = %d sub-words and were cut",
            *(rows[0].example.origin.rpartition(":")[0] or "text", cut, len(rows), text.lengths.longest),
        )


def texts_ids(pieces: Pieces) -> list[list[int]]:
    """Returns the sub-word ids of each text of an example: `texts_ids(text.subwords.of(examples)[0])`."""
    ids, ends = pieces.ids.tolist(), accumulate(pieces.lengths.tolist(), initial=0)
    return [ids[first:end] for first, end in pairwise(ends)]


def framed(texts: Sequence[Ids], text: Text, label: int, more: Mapping[str, tuple[float, ...]]) -> tuple[Window, bool]:
    """Returns the window of a text or a pair, and whether all of it fits.

    Args:
        texts: sub-word ids of one text, or two.
        text: the encoder's tokenizer, and the limit on a window.
        label: the window's label id.
        more: its further values.

    Raises:
        MetaprimeError: a window has no room for a sub-word of each text.

    Example: `framed([[7, 8]], text, 0, {})[0].input_ids` is such as `(101, 7, 8, 102)`.
    """
    subwords, is_pair = text.subwords, len(texts) == 2
    before, between, after = frame(subwords, len(texts))
    special = len(before) + len(between) + len(after)
    room = text.lengths.longest - special
    if room < len(texts):
        raise MetaprimeError(
            f"data.max_length = {text.lengths.longest} leaves no room for {'two texts' if is_pair else 'a text'} beside "
            f"{special} special tokens; raise it"
        )
    first, second = texts[0], texts[1] if is_pair else ()
    kept, also = longest_first(len(first), len(second), room) if is_pair else (min(len(first), room), 0)
    types: dict[str, tuple[float, ...]] = {}
    if is_pair and subwords.pair.typed:
        types["token_type_ids"] = (0,) * (len(before) + kept + len(between)) + (1,) * (also + len(after))
    inputs = (*before, *first[:kept], *between, *second[:also], *after)
    return Window(inputs, (), (), (label,), {**types, **more}), kept + also == len(first) + len(second)


def frame(subwords: Subwords, texts: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Returns the special tokens before, between and after a text or a pair: `frame(subwords, 2)`.

    Args:
        subwords: the encoder's tokenizer.
        texts: 1, or 2 for a pair.
    """
    if texts == 1:
        return subwords.before, (), subwords.after
    return subwords.pair.before, subwords.pair.between, subwords.pair.after


def length(texts: Sequence[Ids], text: Text) -> int:
    """Returns the sub-words of a whole window, special tokens included: `length([[7, 8]], text)` is such as 4.

    Args:
        texts: sub-word ids of one text, or two.
        text: the encoder's tokenizer.
    """
    return sum(map(len, texts)) + sum(map(len, frame(text.subwords, len(texts))))


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns how many sub-words of two texts are kept: the longer is cut until it is as long as the other.

    Args:
        first: sub-words of the first text.
        second: sub-words of the second text.
        room: largest sum.

    Example: `longest_first(10, 2, room=8)` is `(6, 2)`.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)
