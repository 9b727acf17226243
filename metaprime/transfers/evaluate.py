"""Scores a model on rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.func import functional_call

from metaprime.data.rows import Row, by_length, to_device
from metaprime.models.task_model import TaskModel
from metaprime.tasks.task import Task
from metaprime.types import Params

EVALUATION_BATCH = 64
"""Windows at once."""


@torch.no_grad()
def evaluate(
    model: TaskModel, task: Task, values: Params, rows: Sequence[Row]
) -> tuple[dict[str, Any], list[list[str]]]:
    """Scores and predictions (in the order of `rows`) under the given parameter values."""
    predicted: list[list[str]] = [[] for _ in rows]
    device = next(iter(values.values())).device
    for chosen in by_length(rows, EVALUATION_BATCH):
        batch = to_device(task.collate([rows[index] for index in chosen]), device)
        pieces = zip(*(tensor.split(EVALUATION_BATCH) for tensor in batch.values()), strict=True)
        named = (dict(zip(batch, piece, strict=True)) for piece in pieces)
        logits_BLC = torch.cat([functional_call(model, values, (piece,)) for piece in named])
        for index, tags in zip(chosen, task.decode(logits_BLC, [rows[i] for i in chosen]), strict=True):
            predicted[index] = tags
    return task.score(rows, predicted), predicted


def f1(scores: dict[str, Any]) -> float:
    """The score that models are chosen by: overall lenient F1, per cent."""
    return float(scores["lenient"]["overall"]["f1"])
