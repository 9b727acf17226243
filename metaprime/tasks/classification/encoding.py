"""Encodes texts and pairs of texts as rows of one window each; a text that is too long is cut at its end.

Of a pair the longer text is cut first, as tokenizers do under `longest_first`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from metaprime.data.rows import Example, Row, Window
from metaprime.data.subwords import Pieces
from metaprime.tasks.task import Text
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)


def encode(examples: Sequence[Example], text: Text, ids: Mapping[str, int]) -> list[Row]:
    """Encodes each example as a row of one window; logs how many were cut.

    Args:
        examples: one text, or two, as `words`; their class as `gold`.
        text: the encoder's tokenizer, and the limit on a window.
        ids: label id of each class.

    Raises:
        MetaprimeError: a window has no room for a sub-word of each text.

    Example: `encode(examples, text, {"negative": 0, "positive": 1})[0].windows[0].labels`.
    """
    rows, cut = [], 0
    for example, pieces in zip(examples, text.subwords.of(examples), strict=True):
        row, whole = _row(example, pieces, text, ids[example.gold])
        rows.append(row)
        cut += not whole
    if cut:
        log.warning(
            "%s: %d of %d texts are longer than data.max_length = %d sub-words and were cut at their end",
            *(examples[0].origin.rpartition(":")[0] or "text", cut, len(rows), text.lengths.longest),
        )
    return rows


def _row(example: Example, pieces: Pieces, text: Text, label: int) -> tuple[Row, bool]:
    """Encodes an example; returns whether all of it fits, too."""
    subwords, pair = text.subwords, text.subwords.pair if len(example.words) == 2 else None
    before, after = (pair.before, pair.after) if pair else (subwords.before, subwords.after)
    between = pair.between if pair else ()
    room = text.lengths.longest - len(before) - len(between) - len(after)
    if room < len(example.words):
        raise MetaprimeError(
            f"data.max_length = {text.lengths.longest} leaves no room for {'two texts' if pair else 'a text'} beside "
            f"{text.lengths.longest - room} special tokens; raise it"
        )
    ids, first = pieces.ids.tolist(), int(pieces.lengths[0])
    kept, more = longest_first(first, len(ids) - first, room) if pair else (min(first, room), 0)
    types: tuple[int, ...] = ()
    if pair and pair.typed:
        types = (0,) * (len(before) + kept + len(between)) + (1,) * (more + len(after))
    inputs = (*before, *ids[:kept], *between, *ids[first : first + more], *after)
    return Row((Window(inputs, (), (), (label,), types),), example), kept + more == len(ids)


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
