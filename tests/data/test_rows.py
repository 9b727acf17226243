"""Rows: padded batches against a loop, groups by length, and rows that add nothing to a loss."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.functional import cross_entropy

from metaprime.data.rows import Example, Row, Window, blank, by_length, collate, longest_window, to_device, unlabelled
from metaprime.types import IGNORE

EXAMPLE = Example(("a", "b"), ("O", "O"), "x:1")


def window(length: int, first: int = 1) -> Window:
    """A window of numbered sub-words, the second of which is the first word's."""
    labels = tuple(number % 3 if number == 1 else IGNORE for number in range(length))
    return Window(tuple(range(first, first + length)), (0,), (1,), labels)


def rows_of(*lengths: tuple[int, ...]) -> list[Row]:
    """Rows by the lengths of their windows."""
    return [
        Row(tuple(window(length, 10 * number + 1) for length in each), EXAMPLE) for number, each in enumerate(lengths)
    ]


def test_collate_pads_to_the_longest() -> None:
    rows = [
        Row((Window((2, 4, 3), (0,), (1,), (IGNORE, 1, IGNORE)),), Example(("Ada",), ("B-PER",))),
        Row(
            (Window((2, 7, 8, 9, 3), (0, 1), (1, 2), (IGNORE, 0, 3, IGNORE, IGNORE)),),
            Example(("in", "Berlin"), ("O", "B-LOC")),
        ),
    ]
    batch = collate(rows, pad_id=7)
    expected = {
        "input_ids": [[2, 4, 3, 7, 7], [2, 7, 8, 9, 3]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "labels": [[IGNORE, 1, IGNORE, IGNORE, IGNORE], [IGNORE, 0, 3, IGNORE, IGNORE]],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_collate_is_a_loop_over_all_windows() -> None:
    draw = random.Random(0)
    rows = rows_of(*(tuple(draw.randint(2, 9) for _ in range(draw.randint(1, 3))) for _ in range(20)))
    batch = collate(rows, pad_id=0)
    windows = [one for row in rows for one in row.windows]
    width = max(len(one.input_ids) for one in windows)
    for place, one in enumerate(windows):
        rest = width - len(one.input_ids)
        assert batch["input_ids"][place].tolist() == [*one.input_ids, *[0] * rest]
        assert batch["attention_mask"][place].tolist() == [1] * len(one.input_ids) + [0] * rest
        assert batch["labels"][place].tolist() == [*one.labels, *[IGNORE] * rest]
    assert {tensor.shape for tensor in batch.values()} == {(len(windows), width)}


def test_a_label_for_a_whole_window_is_a_column() -> None:
    rows = [Row((Window((2, 4, 3), (), (), (label,)),), EXAMPLE) for label in (1, 0)]
    assert collate(rows, 0)["labels"].tolist() == [[1], [0]]


def test_nothing_cannot_be_collated() -> None:
    with pytest.raises(ValueError, match="empty"):
        collate([], 0)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_groups_hold_every_row_once_and_like_beside_like(size: int) -> None:
    draw = random.Random(size)
    rows = rows_of(*(tuple(draw.randint(2, 30) for _ in range(draw.randint(1, 3))) for _ in range(23)))
    groups = by_length(rows, size)
    assert sorted(index for group in groups for index in group) == list(range(23))
    assert [len(group) for group in groups] == [size] * (23 // size) + [23 % size] * (23 % size > 0)
    lengths = [longest_window(rows[index]) for group in groups for index in group]
    assert lengths == sorted(max(len(one.input_ids) for one in row.windows) for row in rows)


def test_rows_of_equal_length_keep_their_order() -> None:
    assert by_length(rows_of((3,), (2,), (3,), (2,)), 2) == [[1, 3], [0, 2]]
    assert by_length([], 4) == []


def test_the_longest_window_need_not_be_the_first() -> None:
    assert [longest_window(row) for row in rows_of((2, 5, 3), (4,))] == [5, 4]


def test_a_blank_row_is_seen_by_the_encoder_and_by_nobody_else() -> None:
    (row,) = rows_of((4, 3))
    filler = blank(row, 3)
    assert filler == Row((Window((1,), (), (), (IGNORE,)),) * 3, EXAMPLE)
    batch = collate([row, filler], 0)
    # Attention over no position at all would not be a number.
    assert batch["attention_mask"].sum(-1).tolist() == [4, 3, 1, 1, 1]
    assert (batch["labels"][2:] == IGNORE).all()
    assert blank(row, 0).windows == ()


def test_an_unlabelled_row_adds_nothing_to_a_loss() -> None:
    (row,) = rows_of((4, 3))
    without = unlabelled(row)
    assert [one.labels for one in without.windows] == [(IGNORE,) * 4, (IGNORE,) * 3]
    assert [one.input_ids for one in without.windows] == [one.input_ids for one in row.windows]
    assert (without.example, [one.words for one in without.windows]) == (EXAMPLE, [(0,), (0,)])
    logits = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))

    def total(rows: list[Row]) -> torch.Tensor:
        labels = collate(rows, 0)["labels"].flatten()
        return cross_entropy(logits[: 2 * len(rows)].flatten(0, 1), labels, ignore_index=IGNORE, reduction="sum")

    assert torch.equal(total([row, without]), total([row]))
    assert total([row, row]) > total([row])


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate(rows_of((3,), (2,)), 0)
    moved = to_device(batch, torch.device("meta"))
    assert {name: (tensor.device.type, tensor.shape) for name, tensor in moved.items()} == {
        name: ("meta", tensor.shape) for name, tensor in batch.items()
    }
    assert {tensor.device.type for tensor in batch.values()} == {"cpu"}
