"""Encodes each sentence once for head tuning, where the output of the encoder never changes.

encoded = encode_once(model, task, backbone, rows)
batch = with_encoded(task.collate(chosen), [encoded[index] for index in ...])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from metaprime.data.rows import Row, by_length
from metaprime.models.task_model import TaskModel
from metaprime.tasks import Task
from metaprime.types import HIDDEN, Batch, Params, strip_prefix

WINDOWS = 64
"""Windows of one pass of the encoder."""


def moves_head_alone(model: TaskModel, values: Params) -> bool:
    """Returns True if training these values leaves the encoder's output unchanged.

    Args:
        model: encoder, adapter and head.
        values: values to train by full name, such as `head.weight` (C, D).
    """
    return not len(model.adapter) and all(name.startswith("head.") for name in values)


@torch.no_grad()
def encode_once(model: TaskModel, task: Task, backbone: Params, rows: Sequence[Row]) -> list[list[torch.Tensor]]:
    """Returns the output of the encoder for each row.

    Args:
        model: its backbone is run.
        task: collates the rows.
        backbone: theta by full name, in shapes such as (D, D).
        rows: rows to encode.

    Returns:
        For each row a list with the output (L, D) of each window, without padding.
    """
    device = next(iter(backbone.values())).device
    theta = strip_prefix("backbone", backbone)
    encoded: list[list[torch.Tensor]] = [[] for _ in rows]
    for chosen in by_length(rows, WINDOWS):
        batch = task.collate([rows[index] for index in chosen])
        pieces = zip(*(tensor.to(device).split(WINDOWS) for tensor in batch.values()), strict=True)
        named = (model.inputs(dict(zip(batch, piece, strict=True))) for piece in pieces)
        read = (functional_call(model.backbone, theta, (), inputs) for inputs in named)
        states_LD = (window for output in read for window in output.last_hidden_state)
        for index in chosen:
            encoded[index] = [next(states_LD)[: len(window.input_ids)].clone() for window in rows[index].windows]
    return encoded


def with_encoded(batch: Batch, encoded: Sequence[Sequence[torch.Tensor]]) -> Batch:
    """Returns a batch with the encoder's output, so that the encoder is not run again.

    Args:
        batch: collated rows, tensors (B, L).
        encoded: for each row the outputs (L, D) of its windows, as `encode_once` returns them.

    Returns:
        The batch with `HIDDEN` (B, L, D), zero at padding.
    """
    windows = [states_LD for row in encoded for states_LD in row]
    return {**batch, HIDDEN: pad_sequence(windows, batch_first=True)}
