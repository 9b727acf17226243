"""Runs a model over rows, for the predictions of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.func import functional_call

from metaprime.data.rows import Row, by_length, to_device
from metaprime.models.task_model import TaskModel
from metaprime.types import Batch, Params

PREDICTED_TOGETHER = 64
"""Largest number of rows per group, and of windows per forward pass, when predicting."""


@torch.no_grad()
def outputs_of(
    model: TaskModel, values: Params, rows: Sequence[Row], collate: Callable[[Sequence[Row]], Batch]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Runs a model over rows, grouped by length to save padding.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(C, D)`.
        rows: encoded examples, in any order.
        collate: pads the windows of some rows to one batch (B, L).

    Yields:
        The numbers of the rows of one group, and the outputs of all their windows in that order,
        such as (B, L, C).

    Example: `for numbers, logits_BLC in outputs_of(model, values, rows, task.collate): ...`.
    """
    device = next(iter(values.values())).device
    for chosen in by_length(rows, PREDICTED_TOGETHER):
        batch = to_device(collate([rows[index] for index in chosen]), device)
        # Long rows have several windows: the passes of a group are bounded too.
        pieces = zip(*(tensor.split(PREDICTED_TOGETHER) for tensor in batch.values()), strict=True)
        named = (dict(zip(batch, piece, strict=True)) for piece in pieces)
        yield chosen, torch.cat([functional_call(model, values, (piece,)) for piece in named])
