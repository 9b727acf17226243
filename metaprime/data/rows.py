"""Sentences, windows and rows: text as the encoder works on it; collating rows to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence

from metaprime.types import IGNORE, Batch


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as its corpus gives it, tags mapped and in IOB2. `origin` is `file:line`, for messages."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of an encoded sentence, as much as the encoder takes at once.

    Attributes:
        input_ids: L sub-word ids with the tokenizer's special tokens.
        words: the words it answers for, by their number in the sentence. Windows overlap, but each word is answered for
            by one: where it is farthest from an edge.
        starts: the position of the first sub-word of each of these words in `input_ids`.
        labels: L label ids, IGNORE wherever none of these words starts.
    """

    input_ids: tuple[int, ...]
    words: tuple[int, ...]
    starts: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One encoded sentence: its windows, one unless it is long. A word without sub-words, or cut away, is in none of
    them; gold tags are always scored whole, so that it counts as missed.
    """

    windows: tuple[Window, ...]
    sentence: Sentence


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Batch of (B, L) tensors: the windows of all rows in their order, padded at the right to the longest."""
    windows = [window for row in rows for window in row.windows]

    def padded(values: list[tuple[int, ...]], fill: int) -> torch.Tensor:
        tensors = [torch.tensor(value, dtype=torch.int64) for value in values]
        return pad_sequence(tensors, batch_first=True, padding_value=fill)

    return {
        "input_ids": padded([window.input_ids for window in windows], pad_id),
        "attention_mask": padded([(1,) * len(window.input_ids) for window in windows], 0),
        "labels": padded([window.labels for window in windows], IGNORE),
    }


def by_length(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Row numbers in groups of `size`, short sentences with short ones: little of a batch is then padding."""
    order = sorted(range(len(rows)), key=lambda index: max(len(window.input_ids) for window in rows[index].windows))
    return [order[first : first + size] for first in range(0, len(order), size)]


def blank(row: Row, windows: int) -> Row:
    """A row of so many windows that answer for nothing: it fills a batch up to its neighbours' number of windows."""
    first = row.windows[0]
    return Row((Window(first.input_ids[:1], (), (), (IGNORE,)),) * windows, row.sentence)


def unlabelled(row: Row) -> Row:
    """The row without labels: no loss comes of it."""
    return Row(tuple(replace(window, labels=(IGNORE,) * len(window.labels)) for window in row.windows), row.sentence)


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}
