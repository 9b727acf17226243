"""Computes Reptile: adapts everything, then moves towards the adapted values; first order only.

    theta <- theta + beta mean(theta' - theta)

Nichol et al. 2018 (1803.02999). The displacement is returned as a gradient, (theta - theta') /
(alpha n), so that the outer optimizer and its clipping apply as they do to other learners. The
query batch is one more inner step.
"""

from __future__ import annotations

import torch

from metaprime.meta.chunks import in_chunks
from metaprime.meta.learner import InnerLoop, Outcome, in_groups
from metaprime.meta.maml import adapt
from metaprime.meta.selection import select_weights
from metaprime.meta.values import outcome, split
from metaprime.types import Episodes, Loss, Params, trainable


def step(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Computes the mean displacement over the meta-batch's T episodes, divided by alpha n.

    Args: as in `MetaStep`; phi and head in `start` are (T, ...).
    """
    return in_chunks(displacement, loss, backbone, start, episodes, inner)


def displacement(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Computes one chunk's part of the mean displacement.

    Args: as in `MetaStep`; phi and head in `start` are (T, ...), T episodes of the chunk.
    """
    batches = (*episodes.support, episodes.query)
    start = select_weights(loss, backbone, start, batches, inner)
    fast, losses = adapt(loss, backbone, start, batches, inner)
    before, _ = split(backbone, start, inner)
    travelled = inner.lr * len(batches) * episodes.total
    gradients = {
        name: (before[name].detach() - fast[name]).sum(0) / travelled
        for name in in_groups(list(trainable(before)), inner.outer)
    }
    return outcome(gradients, fast, losses[-1], torch.stack([losses[0], losses[-1]], dim=-1), episodes, inner)
