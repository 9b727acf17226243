"""Words to sub-words and back: rows with one label per word, on its first sub-word; padding; the shuffled control.

Shape suffixes: B sentences, L sub-words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from metaprime.data.labels import LabelSet
from metaprime.streams import stream
from metaprime.types import IGNORE, Batch, MetaprimeError, Row, Sentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000
"""Sentences per call of the tokenizer."""

log = logging.getLogger(__name__)


def encode(
    sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerBase, labels: LabelSet, max_length: int
) -> list[Row]:
    """Rows of at most `max_length` sub-words, special tokens included; logs what had to be cut away."""
    _check(tokenizer, max_length)
    rows, cut = [], 0
    for begin in range(0, len(sentences), CHUNK):
        chunk = sentences[begin : begin + CHUNK]
        encoded = tokenizer(
            [list(sentence.words) for sentence in chunk],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
        )
        for index, sentence in enumerate(chunk):
            rows.append(_row(encoded["input_ids"][index], encoded.word_ids(index), sentence, labels))
            cut += bool(encoded.encodings[index].overflowing)
    lost = sum(entities_lost(row) for row in rows)
    if cut or lost:
        log.warning(
            "%s: %d of %d sentences are longer than data.max_length = %d sub-words and were cut; %d entities have a "
            "word that was cut or has no sub-word and cannot be found; raise data.max_length to keep what was cut",
            *(sentences[0].origin.rpartition(":")[0] or "text", cut, len(rows), max_length, lost),
        )
    return rows


def entities_lost(row: Row) -> int:
    """Entities with at least one word that starts nowhere in the row."""
    lost, tags = 0, row.sentence.tags
    word = 0
    while word < len(tags):
        end = word + 1
        while tags[word] != "O" and end < len(tags) and tags[end] == f"I-{tags[word][2:]}":
            end += 1
        lost += tags[word] != "O" and -1 in row.starts[word:end]
        word = end
    return lost


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Batch of (B, L) tensors, padded at the right to the longest row."""

    def padded(values: list[tuple[int, ...]], fill: int) -> torch.Tensor:
        tensors = [torch.tensor(value, dtype=torch.int64) for value in values]
        return pad_sequence(tensors, batch_first=True, padding_value=fill)

    return {
        "input_ids": padded([row.input_ids for row in rows], pad_id),
        "attention_mask": padded([(1,) * len(row.input_ids) for row in rows], 0),
        "labels": padded([row.labels for row in rows], IGNORE),
    }


def shuffled_tags(sentences: Sequence[Sentence], seed: int, language: str) -> list[Sentence]:
    """The control: each sentence keeps its words and its tags, but which word has which tag is drawn anew.

    The tags are then noise, not IOB2, and are not repaired: their frequencies stay those of the data.
    """
    return [
        replace(sentence, tags=tuple(sentence.tags[word] for word in order))
        for index, sentence in enumerate(sentences)
        for order in [stream(seed, "shuffled tags", language, index).permutation(len(sentence.tags))]
    ]


def _check(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    if not tokenizer.is_fast:
        raise MetaprimeError(
            f"{type(tokenizer).__name__} is a slow tokenizer, which does not say which sub-word belongs to which word; "
            "choose an encoder.name that ships a fast one (tokenizer.json)"
        )
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise MetaprimeError(
            f"data.max_length = {max_length} leaves no room for a word beside {special} special tokens; raise it"
        )


def _row(ids: list[int], word_ids: list[int | None], sentence: Sentence, labels: LabelSet) -> Row:
    starts = [-1] * len(sentence.words)
    row_labels = [IGNORE] * len(ids)
    for position, word in enumerate(word_ids):
        if word is not None and starts[word] < 0:
            starts[word] = position
            row_labels[position] = labels.index(sentence.tags[word])
    return Row(tuple(ids), tuple(starts), tuple(row_labels), sentence)
