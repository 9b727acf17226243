"""Splits, detaches and differentiates values by name: the bookkeeping around the algorithm in `maml.py`."""

from __future__ import annotations

import torch

from metaprime.meta.learner import InnerLoop, Outcome, in_groups
from metaprime.types import Episodes, MetaprimeError, Params, trainable


def split(backbone: Params, start: Params, inner: InnerLoop) -> tuple[Params, Params]:
    """Returns what the inner loop moves and what of `start` it leaves, each with a leading T; rates are in neither."""
    values = {name: value for name, value in start.items() if not name.startswith("rates.")}
    if "backbone" in inner.moves:
        count = len(next(iter(values.values())))
        values |= {name: value.expand(count, *value.shape) for name, value in backbone.items()}
    moves = set(in_groups(list(trainable(values)), inner.moves))
    moving = {name: value for name, value in values.items() if name in moves}
    return moving, {name: value for name, value in values.items() if name not in moves}


def gradients_of(loss: torch.Tensor, leaves: Params) -> Params:
    """Returns the gradient of a scalar in each leaf.

    Raises:
        MetaprimeError: the loss does not depend on a leaf; all of these are named.
    """
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = dict(zip(leaves, found, strict=True))
    if unreached := [name for name, gradient in gradients.items() if gradient is None]:
        raise MetaprimeError(
            f"the loss does not depend on {', '.join(unreached)}: if the architecture has parameters that a token-level "
            "loss never uses, its row in metaprime/models/sites.py must list their path under `unused`"
        )
    return gradients


def leaves_of(values: Params) -> Params:
    """Returns the values cut off from their graph, to be differentiated where they are floating-point."""
    return {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in values.items()}


def detached(values: Params) -> Params:
    """Returns the values cut off from their graph."""
    return {name: value.detach() for name, value in values.items()}


def outcome(
    gradients: Params,
    fast: Params,
    query_T: torch.Tensor,
    curve_T2: torch.Tensor,
    episodes: Episodes,
    inner: InnerLoop,
) -> Outcome:
    """Returns what a chunk of episodes contributes to the whole meta-batch's sums."""
    names = in_groups(list(trainable(fast)), ("adapter", "head")) if inner.carry else []
    carried = {name: fast[name].detach() for name in names}
    ends_here = episodes.indices[-1] == episodes.total - 1
    return Outcome(
        gradients=gradients,
        mean_fast={name: value.sum(0) / episodes.total for name, value in carried.items()},
        last_fast={name: value[-1] if ends_here else torch.zeros_like(value[-1]) for name, value in carried.items()},
        query_loss=placed(query_T.detach(), episodes),
        support_loss=placed(curve_T2, episodes),
    )


def placed(values: torch.Tensor, episodes: Episodes) -> torch.Tensor:
    """Puts these episodes' values at their places among all of the meta-batch, zeros elsewhere."""
    out = values.new_zeros(episodes.total, *values.shape[1:])
    out[list(episodes.indices)] = values
    return out
