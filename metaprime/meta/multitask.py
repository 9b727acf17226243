"""Multi-task full fine-tuning, the control: the same sentences, no inner loop, backbone and head move together."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from metaprime.meta.learner import Learner, Outcome, Settings
from metaprime.meta.maml import episode_gradients
from metaprime.types import IGNORE, Batch, Episodes, Loss, Params


def step(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
    """Gradient of the mean loss over all sentences of the episodes, support and query alike."""
    return episode_gradients(loss, backbone, start, pooled(batch), settings)


def pooled(batch: Episodes) -> Episodes:
    """All sentences of each episode as its query."""
    lengths = tuple(max(column) for column in zip(*batch.lengths, strict=True))
    query = _pool([*batch.support, batch.query])
    return replace(batch, support=(), query=query, lengths=(lengths,) if lengths else ())


def _pool(batches: list[Batch]) -> Batch:
    """Batches (T, B, L) of different B and L as one, padded with positions that attention and loss skip."""
    longest = max(batch["labels"].shape[-1] for batch in batches)
    padding = {"input_ids": 0, "attention_mask": 0, "labels": IGNORE}

    def widened(batch: Batch, name: str) -> torch.Tensor:
        return F.pad(batch[name], (0, longest - batch[name].shape[-1]), value=padding[name])

    return {name: torch.cat([widened(batch, name) for batch in batches], dim=1) for name in padding}


LEARNER = Learner(
    step=step,
    formula="theta, head <- theta, head - beta dL/d(theta, head)",
    outer=("backbone", "head"),
    passes=pooled,
)
