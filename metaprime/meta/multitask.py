"""Multi-task training, the control: the same sentences, no inner loop, support and query pooled into one batch.

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
"""Values that fill up a batch's tensors, where they are not zero: positions that attention and loss skip."""


def step(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Returns the gradient of the mean loss over all sentences of the episodes, support and query alike."""
    return maml.step(loss, backbone, start, pooled(episodes), inner)


def pooled(episodes: Episodes) -> Episodes:
    """Returns the episodes with all their sentences as the query, and no support."""
    lengths = tuple(max(column) for column in zip(*episodes.lengths, strict=True))
    query = joined([*episodes.support, episodes.query])
    return replace(episodes, support=(), query=query, lengths=(lengths,) if lengths else ())


def joined(batches: Sequence[Batch]) -> Batch:
    """Returns batches of tensors (T, B, L) with different B and L as one, padded to the longest L.

    Tensors (T, B), such as one label a sentence, are joined as they are. A tensor that is not in every
    batch is left out.
    """
    names = [name for name in batches[-1] if all(name in batch for batch in batches)]
    return {name: _concatenated([batch[name] for batch in batches], PADDING.get(name, 0)) for name in names}


def _concatenated(tensors: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    if tensors[0].dim() > 2:
        longest = max(tensor.shape[-1] for tensor in tensors)
        tensors = [F.pad(tensor, (0, longest - tensor.shape[-1]), value=fill) for tensor in tensors]
    return torch.cat(list(tensors), dim=1)
