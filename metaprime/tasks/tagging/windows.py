"""Encodes tagged sentences as rows of windows, and shuffles their tags for a control.

A window has at most `data.max_length` sub-words; a word's label is on its first sub-word. A longer
sentence becomes several overlapping windows, cut between words. Each word belongs, in training and
at evaluation, to the window where it is farthest from an edge: no word counts twice, none is lost.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from metaprime.data.rows import Example, Lengths, Row, Window
from metaprime.data.subwords import Pieces, Subwords
from metaprime.rng import stream
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.types import IGNORE, MetaprimeError

LOST = "entities have a word that was cut away or has no sub-word and cannot be found"
UNREAD = "words were cut away or have no sub-word, and their class cannot be found"
"""What is said of the number of entities, or of words with a class, that belong to no window."""

log = logging.getLogger(__name__)


def encode(
    sentences: Sequence[Example],
    subwords: Subwords,
    labels: LabelSet,
    lengths: Lengths,
    pieces: Sequence[Pieces] | None = None,
) -> list[Row]:
    """Encodes each sentence as a row; logs long sentences and entities that cannot be found.

    Args:
        sentences: tagged in IOB2, or with a class for each word.
        subwords: the encoder's tokenizer.
        labels: gives the label ids of the tags.
        lengths: limits on the length of windows.
        pieces: sub-words of the sentences, if the caller has them.

    Raises:
        MetaprimeError: a window has no room for a word, or a tag is not one of the labels.

    Example: `encode(sentences, Subwords(tokenizer), labels, Lengths(128))[0].windows`.
    """
    special = len(subwords.before) + len(subwords.after)
    room = lengths.longest - special
    if room < 1:
        raise MetaprimeError(
            f"data.max_length = {lengths.longest} leaves no room for a word beside {special} special tokens; raise it"
        )

    known: dict[tuple[str, ...], list[int]] = {}
    rows, long, lost = [], 0, 0
    for sentence, own in zip(sentences, subwords.of(sentences) if pieces is None else pieces, strict=True):
        # Most sentences fit into one window, and each of their words has a sub-word.
        if len(own.ids) <= room and 0 not in (counts := own.lengths.tolist()):
            gold = tuple(sentence.gold)
            ids = known.get(gold) or known.setdefault(gold, list(map(labels.index, gold)))
            rows.append(Row((_whole(own.ids.tolist(), counts, ids, subwords),), sentence))
            continue
        spans = [(0, len(sentence.words))]
        if len(own.ids) > room:
            long += 1
            own = _shortened(own, room)
            spans = _spans(own.lengths, room, int(room * lengths.overlap))
        spans = spans[:1] if lengths.cut else spans
        rows.append(Row(_windows(sentence, own, spans, subwords, labels), sentence))
        lost += entities_lost(rows[-1]) if labels.spans else words_lost(rows[-1])

    if lost:
        log.warning(
            "%s: %d %s%s",
            *(_source(sentences), lost, LOST if labels.spans else UNREAD),
            "; data.long: windows cuts nothing away" if lengths.cut and long else "",
        )
    if long:
        log.log(
            logging.WARNING if lengths.cut else logging.INFO,
            "%s: %d of %d sentences are longer than data.max_length = %d sub-words and were %s",
            *(_source(sentences), long, len(rows), lengths.longest, "cut" if lengths.cut else "read in windows"),
        )
    return rows


def answered(row: Row) -> set[int]:
    """Returns the numbers of the words that belong to some window: `answered(row)`."""
    return set(itertools.chain.from_iterable(window.words for window in row.windows))


def words_lost(row: Row) -> int:
    """Counts words that belong to no window: `words_lost(row)`."""
    # A word belongs to one window at most.
    return len(row.example.words) - sum(len(window.words) for window in row.windows)


def entities_lost(row: Row) -> int:
    """Counts entities with at least one word that belongs to no window: `entities_lost(row)`."""
    if not words_lost(row):
        return 0
    present = answered(row)
    lost, tags = 0, row.example.gold
    word = 0
    # `end` is one past the last word of the entity, or of the word outside, that begins at `word`.
    while word < len(tags):
        end = word + 1
        while tags[word] != "O" and end < len(tags) and tags[end] == f"I-{tags[word][2:]}":
            end += 1
        lost += tags[word] != "O" and not present.issuperset(range(word, end))
        word = end
    return lost


def shuffled_tags(sentences: Sequence[Example], seed: int, language: str) -> list[Example]:
    """Permutes the tags of each sentence among its words, for a control.

    The result is not IOB2 and is not repaired, so that the frequencies of tags stay those of the
    data.

    Args:
        sentences: tagged in IOB2.
        seed: of the permutations.
        language: also part of their address.

    Example: `shuffled_tags(sentences, 0, "de")`.
    """
    return [
        replace(sentence, gold=tuple(sentence.gold[word] for word in order))
        for index, sentence in enumerate(sentences)
        for order in [stream(seed, "shuffled tags", language, index).permutation(len(sentence.gold))]
    ]


def _shortened(pieces: Pieces, room: int) -> Pieces:
    """Cuts words that are longer than a window to as many of their sub-words as fit."""
    if int(pieces.lengths.max()) <= room:
        return pieces
    parts = np.split(pieces.ids, np.cumsum(pieces.lengths)[:-1])
    return Pieces(np.concatenate([part[:room] for part in parts]), np.minimum(pieces.lengths, room))


def _spans(lengths: np.ndarray[tuple[int], np.dtype[np.int32]], room: int, overlap: int) -> list[tuple[int, int]]:
    """Divides the words of a sentence into overlapping windows.

    Args:
        lengths: number of sub-words of each of W words, `(W,)`.
        room: largest number of sub-words of a window, special tokens excluded.
        overlap: smallest number of sub-words that the next window repeats, in whole words if they
            fit.

    Returns:
        First word and last one plus 1 of each window. Every window takes as many words as fit; the
        last one is extended to the left.
    """
    edges = np.concatenate([[0], np.cumsum(lengths)])
    spans: list[tuple[int, int]] = []
    first, count = 0, len(lengths)
    while True:
        end = int(np.searchsorted(edges, edges[first] + room, side="right")) - 1
        if end >= count:
            first = int(np.searchsorted(edges, edges[count] - room, side="left"))
            return [*spans, (first, count)]
        spans.append((first, end))
        first = max(int(np.searchsorted(edges, edges[end] - overlap, side="left")), first + 1)


def _windows(
    sentence: Example, pieces: Pieces, spans: list[tuple[int, int]], subwords: Subwords, labels: LabelSet
) -> tuple[Window, ...]:
    """Builds the windows of a sentence; `edges` are the sub-words before each word."""
    edges = [0, *itertools.accumulate(pieces.lengths.tolist())]
    owners = _owners(edges, spans)
    windows = []
    for number, (first, end) in enumerate(spans):
        ids = (*subwords.before, *pieces.ids[edges[first] : edges[end]].tolist(), *subwords.after)
        shift = len(subwords.before) - edges[first]
        words = [w for w in range(first, end) if edges[w] < edges[w + 1] and owners[w] == number]
        starts = [edges[word] + shift for word in words]
        row_labels = [IGNORE] * len(ids)
        for word, start in zip(words, starts, strict=True):
            row_labels[start] = labels.index(sentence.gold[word])
        windows.append(Window(ids, tuple(words), tuple(starts), tuple(row_labels)))
    return tuple(windows)


def _whole(ids: list[int], lengths: list[int], known: list[int], subwords: Subwords) -> Window:
    """Builds the one window of a sentence whose words all have sub-words.

    Args:
        ids: the sub-words.
        lengths: number of sub-words of each word.
        known: label id of each word.
        subwords: gives the special tokens.
    """
    starts = tuple(itertools.accumulate(lengths[:-1], initial=len(subwords.before)))
    row_labels = [IGNORE] * (len(subwords.before) + len(ids) + len(subwords.after))
    for start, label in zip(starts, known, strict=True):
        row_labels[start] = label
    return Window((*subwords.before, *ids, *subwords.after), _numbers(len(starts)), starts, tuple(row_labels))


@lru_cache(maxsize=1024)
def _numbers(count: int) -> tuple[int, ...]:
    """Returns the numbers of the words of a sentence, one object for all sentences of a length."""
    return tuple(range(count))


def _owners(edges: list[int], spans: list[tuple[int, int]]) -> list[int]:
    """Returns for each word the window where its first sub-word is farthest from an edge.

    The beginning and end of the sentence are not edges: nothing is missing there.
    """
    # Most sentences have one window.
    if len(spans) == 1:
        return [0] * (len(edges) - 1)
    owners, distances = [0] * (len(edges) - 1), [-1.0] * (len(edges) - 1)
    for number, (first, end) in enumerate(spans):
        left = -np.inf if first == 0 else edges[first]
        right = np.inf if end == len(edges) - 1 else edges[end]
        for word in range(first, end):
            distance = min(edges[word] - left, right - 1 - edges[word])
            if distance > distances[word]:
                owners[word], distances[word] = number, distance
    return owners


def _source(sentences: Sequence[Example]) -> str:
    """Returns the file or source of the sentences, for messages."""
    return sentences[0].origin.rpartition(":")[0] or "text"
