"""Defines examples, windows and rows: text as an encoder works on it; collates rows to padded batches.

Nothing here knows what a label means: `Example.gold` is the task's affair. Shape suffixes: B windows, L sub-words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from metaprime.types import IGNORE, Batch


@dataclass(frozen=True, slots=True)
class Example:
    """One sentence or text as its corpus gives it.

    Attributes:
        words: its words.
        gold: the right answer, in the form that the task has: a tuple with a tag for each word, a class.
        origin: `file:line`, for messages.
    """

    words: tuple[str, ...]
    gold: Any
    origin: str = ""


@dataclass(frozen=True)
class Lengths:
    """How long texts are read.

    Attributes:
        longest: sub-words of a window, special tokens included.
        overlap: share of a window that the next one repeats at least, in whole words.
        cut: whether only the first window of a long text is kept.
    """

    longest: int
    overlap: float = 0.25
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of an encoded text, as much as the encoder takes at once.

    Attributes:
        input_ids: L sub-word ids with the tokenizer's special tokens.
        words: the words it answers for, by their number in the text. Windows overlap, but each word is
            answered for by one: where it is farthest from an edge.
        starts: the position of the first sub-word of each of these words in `input_ids`.
        labels: L label ids, IGNORE wherever none of these words starts; or one id for the whole window.
    """

    input_ids: tuple[int, ...]
    words: tuple[int, ...]
    starts: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One encoded example: its windows, one unless it is long.

    A word without sub-words, or cut away, is in no window. Gold answers are always scored whole, so that
    such a word counts as missed.
    """

    windows: tuple[Window, ...]
    example: Example


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Collates the windows of all rows, in their order, to one batch that is padded at the right.

    Args:
        rows: B windows in all.
        pad_id: id that fills up `input_ids`.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (B, L) int64.
    """
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
    """Returns row numbers in groups of `size`, short rows with short ones, so that little of a batch is padding."""
    order = sorted(range(len(rows)), key=lambda index: longest_window(rows[index]))
    return [order[first : first + size] for first in range(0, len(order), size)]


def longest_window(row: Row) -> int:
    """Returns the sub-words of a row's longest window."""
    return max(len(window.input_ids) for window in row.windows)


def blank(row: Row, windows: int) -> Row:
    """Returns a row of windows that answer for nothing: it fills a batch up to its neighbours' number of windows."""
    first = row.windows[0]
    return Row((Window(first.input_ids[:1], (), (), (IGNORE,)),) * windows, row.example)


def unlabelled(row: Row) -> Row:
    """Returns the row without labels, so that it adds nothing to a loss."""
    return Row(tuple(replace(window, labels=(IGNORE,) * len(window.labels)) for window in row.windows), row.example)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch with its tensors on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}
