"""Reptile (Nichol et al. 2018): adapt everything, then move towards where the episodes ended, no gradient of gradients.

    theta <- theta + beta mean(theta' - theta)

Written as a gradient, (theta - theta') / (alpha n), so that the outer optimizer and its clipping apply as to any learner's.
Query sentences are one more inner step: Reptile has no use for a held-out half.
"""

from __future__ import annotations

import torch

from metaprime.meta.chunks import in_chunks
from metaprime.meta.learner import GROUPS, Learner, Outcome, Settings, in_groups
from metaprime.meta.maml import adapt, outcome, split
from metaprime.meta.selection import select_weights
from metaprime.types import Episodes, Loss, Params, trainable


def step(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
    """The mean displacement over the meta-batch's T episodes, per unit of inner step."""
    return in_chunks(_displacements, loss, backbone, start, batch, settings)


def _displacements(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
    batches = (*batch.support, batch.query)
    start = select_weights(loss, backbone, start, batches, settings)
    fast, losses = adapt(loss, backbone, start, batches, settings)
    before, _ = split(backbone, start, settings)
    travelled = settings.inner_lr * len(batches) * batch.total
    gradients = {
        name: (before[name].detach() - fast[name]).sum(0) / travelled
        for name in in_groups(list(trainable(before)), settings.outer)
    }
    return outcome(gradients, fast, losses[-1], torch.stack([losses[0], losses[-1]], dim=-1), batch, settings)


LEARNER = Learner(
    step=step,
    formula="theta', phi' = theta, phi - alpha dL (n + 1 times); theta <- theta + beta (theta' - theta)",
    inner=GROUPS,
    second_order=False,
)
