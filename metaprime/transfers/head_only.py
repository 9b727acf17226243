"""Encodes each sentence once where the head alone is trained: a frozen encoder says the same of it at every step.

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
"""Windows that are encoded together."""


def moves_head_alone(model: TaskModel, values: Params) -> bool:
    """Tells if training these values leaves the encoder's output as it is."""
    return not len(model.adapter) and all(name.startswith("head.") for name in values)


@torch.no_grad()
def encode_once(model: TaskModel, task: Task, backbone: Params, rows: Sequence[Row]) -> list[list[torch.Tensor]]:
    """Returns the encoder's output for each row, by window: (L, D), without padding."""
    device = next(iter(backbone.values())).device
    theta = strip_prefix("backbone", backbone)
    encoded: list[list[torch.Tensor]] = [[] for _ in rows]
    for chosen in by_length(rows, WINDOWS):
        batch = task.collate([rows[index] for index in chosen])
        pieces = zip(*(batch[name].to(device).split(WINDOWS) for name in ("input_ids", "attention_mask")), strict=True)
        read = (functional_call(model.backbone, theta, (), {"input_ids": i, "attention_mask": m}) for i, m in pieces)
        states_LD = (window for output in read for window in output.last_hidden_state)
        for index in chosen:
            encoded[index] = [next(states_LD)[: len(window.input_ids)].clone() for window in rows[index].windows]
    return encoded


def with_encoded(batch: Batch, encoded: Sequence[Sequence[torch.Tensor]]) -> Batch:
    """Adds the encoded windows (B, L, D) of a batch's rows to the batch, zero where it is padded."""
    windows = [states_LD for row in encoded for states_LD in row]
    return {**batch, HIDDEN: pad_sequence(windows, batch_first=True)}
