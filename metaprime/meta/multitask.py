"""Computes multi-task training, the control: no inner loop, support and query pooled in one batch.

theta, head <- theta, head - beta dL/d(theta, head)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from metaprime.meta import maml
from metaprime.meta.learner import InnerLoop, Outcome
from metaprime.types import IGNORE, Batch, Episodes, Loss, Params

PADDING = {"labels": IGNORE}
"""Padding values of a batch's tensors that are not zero; attention and loss skip padding."""


def step(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Computes the gradient of the mean loss over all support and query sentences of the episodes.

    Args: as in `MetaStep`; phi and head in `start` are (T, ...).
    """
    return maml.step(loss, backbone, start, pooled(episodes), inner)


def pooled(episodes: Episodes) -> Episodes:
    """Moves support sentences to the query: `pooled(episodes).support` is `()`.

    Args:
        episodes: T episodes; every tensor is (T, B, ...).
    """
    longest = tuple(max(column) for column in zip(*episodes.lengths, strict=True))
    total = tuple(sum(column) for column in zip(*episodes.subwords, strict=True))
    return replace(
        episodes,
        support=(),
        query=joined([*episodes.support, episodes.query]),
        lengths=(longest,) if longest else (),
        subwords=(total,) if total else (),
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Concatenates batches along B, padded to the longest L: `joined([support, query])`.

    Args:
        batches: tensors (T, B, L), or (T, B) such as one label a sentence; B and L may differ
            between batches. A tensor that is missing from a batch is dropped.
    """
    names = [name for name in batches[-1] if all(name in batch for batch in batches)]
    return {name: _concatenated([batch[name] for batch in batches], PADDING.get(name, 0)) for name in names}


def _concatenated(tensors: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """Concatenates tensors (T, B, ...) along B, padded with `fill` to the longest."""
    if tensors[0].dim() > 2:
        longest = max(tensor.shape[-1] for tensor in tensors)
        tensors = [F.pad(tensor, (0, longest - tensor.shape[-1]), value=fill) for tensor in tensors]
    return torch.cat(list(tensors), dim=1)
