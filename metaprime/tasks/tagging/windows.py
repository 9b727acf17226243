"""Sentences to rows: windows of at most `data.max_length` sub-words, one label per word on its first sub-word; padding;
the shuffled control.

A sentence that is too long becomes several windows that overlap, cut between words. Each word is answered for, in
training and at evaluation, by the one window where it is farthest from an edge: no word counts twice, none is lost.

Shape suffixes: B windows, L sub-words.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metaprime.data.rows import Example, Lengths, Row, Window
from metaprime.data.subwords import Pieces, Subwords
from metaprime.rng import stream
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.types import IGNORE, MetaprimeError

log = logging.getLogger(__name__)


def encode(sentences: Sequence[Example], subwords: Subwords, labels: LabelSet, lengths: Lengths) -> list[Row]:
    """One row for each sentence; logs what cannot be found in them.

    Raises:
        MetaprimeError: a window has no room for a word, or a tag is none of the labels.
    """
    special = len(subwords.before) + len(subwords.after)
    room = lengths.longest - special
    if room < 1:
        raise MetaprimeError(
            f"data.max_length = {lengths.longest} leaves no room for a word beside {special} special tokens; raise it"
        )
    rows, long = [], 0
    for sentence, pieces in zip(sentences, subwords.of(sentences), strict=True):
        spans = [(0, len(sentence.words))]
        if len(pieces.ids) > room:
            long += 1
            pieces = _shortened(pieces, room)
            spans = _spans(pieces.lengths, room, int(room * lengths.overlap))
        spans = spans[:1] if lengths.cut else spans
        rows.append(Row(_windows(sentence, pieces, spans, subwords, labels), sentence))
    if lost := sum(entities_lost(row) for row in rows):
        log.warning(
            "%s: %d entities have a word that was cut away or has no sub-word and cannot be found%s",
            *(_source(sentences), lost, "; data.long: windows cuts nothing away" if lengths.cut and long else ""),
        )
    if long:
        log.log(
            logging.WARNING if lengths.cut else logging.INFO,
            "%s: %d of %d sentences are longer than data.max_length = %d sub-words and were %s",
            *(_source(sentences), long, len(rows), lengths.longest, "cut" if lengths.cut else "read in windows"),
        )
    return rows


def answered(row: Row) -> set[int]:
    """The words that some window answers for."""
    return {word for window in row.windows for word in window.words}


def entities_lost(row: Row) -> int:
    """Entities with at least one word that no window answers for."""
    found = answered(row)
    if len(found) == len(row.example.words):
        return 0
    lost, tags = 0, row.example.gold
    word = 0
    while word < len(tags):
        end = word + 1
        while tags[word] != "O" and end < len(tags) and tags[end] == f"I-{tags[word][2:]}":
            end += 1
        lost += tags[word] != "O" and not found.issuperset(range(word, end))
        word = end
    return lost


def shuffled_tags(sentences: Sequence[Example], seed: int, language: str) -> list[Example]:
    """The control: each sentence keeps its words and its tags, but which word has which tag is drawn anew.

    The tags are then noise, not IOB2, and are not repaired: their frequencies stay those of the data.
    """
    return [
        replace(sentence, gold=tuple(sentence.gold[word] for word in order))
        for index, sentence in enumerate(sentences)
        for order in [stream(seed, "shuffled tags", language, index).permutation(len(sentence.gold))]
    ]


def _shortened(pieces: Pieces, room: int) -> Pieces:
    """A word longer than a window keeps its first sub-words: the one that carries its label, and as many as fit."""
    if int(pieces.lengths.max()) <= room:
        return pieces
    parts = np.split(pieces.ids, np.cumsum(pieces.lengths)[:-1])
    return Pieces(np.concatenate([part[:room] for part in parts]), np.minimum(pieces.lengths, room))


def _spans(lengths: np.ndarray[tuple[int], np.dtype[np.int32]], room: int, overlap: int) -> list[tuple[int, int]]:
    """First and last word (exclusive) of each window: as many words as fit, the last one filled from its left."""
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
    edges = [0, *itertools.accumulate(pieces.lengths.tolist())]
    owners = _owners(edges, spans)
    made = []
    for number, (first, end) in enumerate(spans):
        ids = (*subwords.before, *pieces.ids[edges[first] : edges[end]].tolist(), *subwords.after)
        shift = len(subwords.before) - edges[first]
        words = [w for w in range(first, end) if edges[w] < edges[w + 1] and owners[w] == number]
        starts = [edges[word] + shift for word in words]
        row_labels = [IGNORE] * len(ids)
        for word, start in zip(words, starts, strict=True):
            row_labels[start] = labels.index(sentence.gold[word])
        made.append(Window(ids, tuple(words), tuple(starts), tuple(row_labels)))
    return tuple(made)


def _owners(edges: list[int], spans: list[tuple[int, int]]) -> list[int]:
    """For each word the window where its first sub-word is farthest from an edge; the sentence's own ends are none."""
    if len(spans) == 1:  # as most have
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
    return sentences[0].origin.rpartition(":")[0] or "text"
