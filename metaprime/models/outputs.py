"""Defines the forward pass and the loss of a task, as functions of a model. No torch is imported at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from metaprime.types import Batch

if TYPE_CHECKING:
    import torch

    from metaprime.models.task_model import TaskModel

Outputs: TypeAlias = "Callable[[TaskModel, Batch], torch.Tensor]"
"""A task's forward pass: `outputs(model, batch)` returns (B, ...) for a batch of B windows."""

Measure: TypeAlias = "Callable[[torch.Tensor, Batch], torch.Tensor]"
"""A task's loss: `measure(outputs, batch)` returns () in nats."""


def head_outputs(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Applies the head to the encoder's output; the forward pass of most tasks.

    Args:
        model: the model.
        batch: tensors `(B, L)`.

    Returns:
        The head's output, for tagging logits `(B, L, C)`.

    Example: `TaskModel(encoder, adapter, head, head_outputs)`
    """
    outputs: torch.Tensor = model.head(model.encode(batch))
    return outputs
