"""A quadratic loss, for which everything can be written down: its inner loop is a contraction.

L(x) = |x - c|^2 / 2 has x - c shrink by (1 - alpha) at every step, whatever the support is.
"""

from __future__ import annotations

import torch
from toy_learner import draw

from metaprime.meta.learner import GROUPS
from metaprime.types import Batch, Episodes, Params

T, D, STEPS = 3, 4, 3


def quadratic(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
    """Half the squared distance of theta, phi and head, one after the other, from the batch's centre."""
    values = {**backbone, **fast}
    x = torch.cat([values[f"{group}.x"] for group in GROUPS], dim=-1)
    return (x - batch["centre"]).square().sum(-1) / 2


def quadratic_theta() -> Params:
    return {"backbone.x": draw(D, seed=1)}


def quadratic_start() -> Params:
    return {"adapter.x": draw(T, D, seed=2), "head.x": draw(T, D, seed=3)}


def quadratic_episodes() -> Episodes:
    """Every step of an episode has the same centre."""
    centre = {"centre": draw(T, 3 * D, seed=4), "labels": torch.zeros(T, 1, 1, dtype=torch.int64)}
    return Episodes(("qaa",) * T, tuple(range(T)), T, (centre,) * STEPS, centre)
