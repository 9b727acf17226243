"""A frozen encoder without adapters says the same of a sentence at every step: for head tuning it is read once.

hidden = encode_once(model, task, backbone, rows)
batch = with_hidden(task.collate(chosen), [hidden[index] for index in ...])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from metaprime.data.rows import Row, by_length
from metaprime.models.task_model import TaskModel
from metaprime.tasks.task import Task
from metaprime.types import HIDDEN, Batch, Params, strip_prefix

WINDOWS = 64
"""Read together."""


def moves_head_alone(model: TaskModel, values: Params) -> bool:
    """Whether training these values leaves the encoder's output as it is."""
    return not len(model.adapter) and all(name.startswith("head.") for name in values)


@torch.no_grad()
def encode_once(model: TaskModel, task: Task, backbone: Params, rows: Sequence[Row]) -> list[list[torch.Tensor]]:
    """The encoder's output for each row, by window: (L, D), without padding."""
    device = next(iter(backbone.values())).device
    own = strip_prefix("backbone", backbone)
    hidden: list[list[torch.Tensor]] = [[] for _ in rows]
    for chosen in by_length(rows, WINDOWS):
        batch = task.collate([rows[index] for index in chosen])
        pieces = zip(*(batch[name].to(device).split(WINDOWS) for name in ("input_ids", "attention_mask")), strict=True)
        read = (functional_call(model.backbone, own, (), {"input_ids": i, "attention_mask": m}) for i, m in pieces)
        states_LD = (window for output in read for window in output.last_hidden_state)
        for index in chosen:
            hidden[index] = [next(states_LD)[: len(window.input_ids)].clone() for window in rows[index].windows]
    return hidden


def with_hidden(batch: Batch, hidden: Sequence[Sequence[torch.Tensor]]) -> Batch:
    """The batch of some rows, with the hidden states of their windows (B, L, D), zero where the batch is padded."""
    windows = [states_LD for row in hidden for states_LD in row]
    return {**batch, HIDDEN: pad_sequence(windows, batch_first=True)}
