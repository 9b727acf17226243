"""Defines examples, windows and rows, and collates rows into padded batches.

Only the task knows the meaning of `Example.gold` and of labels. Shape suffixes: B windows, L
sub-words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from metaprime.types import IGNORE, Batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Example:
    """One sentence or text of a corpus.

    Attributes:
        words: the words of the text.
        gold: the right answer in the task's form, such as a tuple of one tag for each word, or a
            class.
        origin: `file:line`, for messages.

    Example: `Example(("Ada", "naps"), ("B-PER", "O"), "de/train.conll:1")`.
    """

    words: tuple[str, ...]
    gold: Any
    origin: str = ""


@dataclass(frozen=True)
class Lengths:
    """Limits on the length of windows.

    Attributes:
        longest: largest number of sub-words of a window, special tokens included.
        overlap: smallest share of a window that the next one repeats, in whole words.
        cut: keep only the first window of a long text.
    """

    longest: int
    overlap: float = 0.25
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of an encoded text that the encoder reads at once.

    Attributes:
        input_ids: L sub-word ids, special tokens included.
        words: numbers of the words that are labelled and predicted in this window. Windows overlap,
            but each word belongs to one of them: where it is farthest from an edge.
        starts: position in `input_ids` of the first sub-word of each of these words.
        labels: L label ids, IGNORE except at `starts`; or one id for the whole window.
        more: further values by the name that a batch has for them, L or one of each, such as
            `token_type_ids`: the text that each sub-word belongs to, 0 or 1.
    """

    input_ids: tuple[int, ...]
    words: tuple[int, ...]
    starts: tuple[int, ...]
    labels: tuple[int, ...]
    more: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One encoded example.

    A word that has no sub-words or was cut away is in no window. Scores use the gold answers of all
    words, so that such a word counts as missed.

    Attributes:
        windows: one, or several if the text is long.
        example: the text itself.
    """

    windows: tuple[Window, ...]
    example: Example


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    """Collates the windows of all rows, in order, into one batch padded at the right.

    Args:
        rows: examples with B windows in total.
        pad_id: id that fills up `input_ids`.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (B, L) int64, or `labels` (B, 1); and what
        windows have `more`, (B, L) or (B, 1), 0 where a window has none: int64, float32 if one is no
        whole number.

    Example: `collate(rows, tokenizer.pad_token_id)["input_ids"]`.
    """
    # Reading and checking corpora needs no torch.
    import torch

    windows = [window for row in rows for window in row.windows]

    def padded(values: list[tuple[Any, ...]], fill: int, kind: torch.dtype = torch.int64) -> torch.Tensor:
        """Stacks sequences into a tensor (B, L)."""
        longest = max(map(len, values))
        # One tensor of all: a tensor for each sequence takes several times as long.
        return torch.tensor([(*value, *[fill] * (longest - len(value))) for value in values], dtype=kind)

    def further(name: str) -> torch.Tensor:
        """Stacks what windows have more, 0 where one has none."""
        values = [window.more.get(name, ()) for window in windows]
        whole = all(isinstance(value, int) for own in values for value in own)
        return padded(values, 0, torch.int64 if whole else torch.float32)

    names = dict.fromkeys(name for window in windows for name in window.more)
    return {
        "input_ids": padded([window.input_ids for window in windows], pad_id),
        "attention_mask": padded([(1,) * len(window.input_ids) for window in windows], 0),
        "labels": padded([window.labels for window in windows], IGNORE),
        **{name: further(name) for name in names},
    }


def by_length(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Groups row numbers by length to save padding, `size` in a group: `by_length(rows, 64)`."""
    order = sorted(range(len(rows)), key=lambda index: longest_window(rows[index]))
    return [order[first : first + size] for first in range(0, len(order), size)]


def longest_window(row: Row) -> int:
    """Returns the number of sub-words of a row's longest window: `longest_window(row)`."""
    return max(len(window.input_ids) for window in row.windows)


def all_subwords(row: Row) -> int:
    """Returns the number of sub-words of all of a row's windows: `all_subwords(row)`."""
    return sum(len(window.input_ids) for window in row.windows)


def blank(row: Row, windows: int) -> Row:
    """Returns a row of windows without words: `blank(row, 2)` fills up a batch by two windows."""
    first = row.windows[0]
    return Row((Window(first.input_ids[:1], (), (), (IGNORE,)),) * windows, row.example)


def unlabelled(row: Row) -> Row:
    """Returns the row with every label IGNORE, which adds nothing to a loss: `unlabelled(row)`."""
    return Row(tuple(replace(window, labels=(IGNORE,) * len(window.labels)) for window in row.windows), row.example)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch with all tensors on a device.

    Args:
        batch: tensors of any shape `(...,)` by name.
        device: their new place.

    Example: `to_device(batch, torch.device("cuda"))`.
    """
    return {name: tensor.to(device) for name, tensor in batch.items()}
