"""Applies a head to one state of each window.

Shape suffixes: B windows, L sub-words, D hidden size, C outputs of the head.
"""

from __future__ import annotations

import torch

from metaprime.models.outputs import Outputs
from metaprime.models.task_model import TaskModel
from metaprime.types import Batch


def first_state(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns logits (B, C) of the encoder's output at the first sub-word.

    Args:
        model: its head reads (B, D).
        batch: tensors (B, L).

    Example: `first_state(model, batch).argmax(-1)`.
    """
    logits_BC: torch.Tensor = model.head(model.encode(batch)[:, 0])
    return logits_BC


def mean_state(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns logits (B, C) of the mean of the encoder's output over all sub-words, special ones too.

    Args:
        model: its head reads (B, D).
        batch: tensors (B, L).

    Example: `mean_state(model, batch).argmax(-1)`.
    """
    logits_BC: torch.Tensor = model.head(mean_states(model.encode(batch), batch["attention_mask"]))
    return logits_BC


def mean_states(hidden_BLD: torch.Tensor, chosen_BL: torch.Tensor) -> torch.Tensor:
    """Returns the mean (B, D) of some states of each window; 0 for a window without one.

    Args:
        hidden_BLD: the encoder's output.
        chosen_BL: 1 or True at the states, 0 elsewhere.

    Example: `mean_states(model.encode(batch), batch["attention_mask"])`.
    """
    chosen_BL1 = chosen_BL[:, :, None].to(hidden_BLD.dtype)
    return (hidden_BLD * chosen_BL1).sum(1) / chosen_BL1.sum(1).clamp(min=1)


POOLED: dict[str, Outputs] = {"first": first_state, "mean": mean_state, "auto": mean_state}
"""Forward passes by the values of `task.pooling`; `auto` of a config that was not put at an encoder."""
