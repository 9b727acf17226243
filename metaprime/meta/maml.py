"""Computes the algorithm: an inner loop moves phi to phi', where the query loss is differentiated.

    phi'  = phi - alpha dL_support(theta, phi) / dphi        n times            adapt
    theta <- theta - beta dL_query(theta, phi') / dtheta                        outer_gradient; priming/outer.py

Gheini et al. 2022 (2205.12453), section 3. theta is the backbone; phi is the adapter and the head,
which fine-tuning will move. `InnerLoop.moves` names other groups for the rest of the family: the
head for ANIL, everything for MAML (Finn et al. 2017). First order treats phi' as a constant in the
second line; second order differentiates through the n steps.

T episodes are computed together: phi, batches and losses have a leading T, theta has none unless
the inner loop moves it. Parameters are values by name; no model is cloned, patched or restored.

Read `adapt`, then `outer_gradient`, and skip the rest: `computed` (execution.py) calls autograd for
T episodes, in one pass, by vmap or in a loop; `update_rule` (inner_optimizers.py) is phi - alpha g,
or Adam; `select_weights` (selection.py) serves sparse methods; `in_chunks` (chunks.py) decides which episodes share a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metaprime.meta.chunks import in_chunks
from metaprime.meta.execution import computed
from metaprime.meta.inner_optimizers import in_pieces, update_rule
from metaprime.meta.learner import InnerLoop, Outcome, in_groups
from metaprime.meta.selection import select_weights
from metaprime.meta.values import detached, gradients_of, leaves_of, outcome, split
from metaprime.types import Batch, Episodes, Loss, Params, trainable


# phi' = phi - alpha dL_support(theta, phi) / dphi, n times
def adapt(
    loss: Loss, backbone: Params, start: Params, support: Sequence[Batch], inner: InnerLoop
) -> tuple[Params, list[torch.Tensor]]:
    """Takes one inner step for each support batch.

    Args:
        loss, backbone, start, inner: as in `MetaStep`: phi and head in `start` are (T, ...).
        support: n batches of tensors (T, B, ...).

    Returns:
        All values after the loop, each (T, ...), without the rates but with the backbone if it
        moves; and the support losses (T,) before each step. First order keeps no graph but that of
        learned rates.
    """
    moving, still = split(backbone, start, inner)
    shared = {} if "backbone" in inner.moves else backbone
    gradient = in_pieces(computed(loss, inner).gradient, inner.execution.micro)
    update = update_rule(inner, start, len(support))
    losses = []
    for step, batch in enumerate(support):
        if inner.second_order:
            gradients, loss_T = gradient(shared, still, moving, batch)
        else:
            gradients, loss_T = gradient(detached(shared), detached(still), detached(moving), batch)
        moving = update(step, moving, gradients)
        losses.append(loss_T.detach())
    return {**still, **moving}, losses


# dL_query(theta, phi') / dtheta, which AdamW turns into theta <- theta - beta (...)
def outer_gradient(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Adapts on support and differentiates the query loss, for T episodes that share a pass.

    First order differentiates in phi', second order in the phi at which the inner loop started.

    Args: as in `MetaStep`; phi and head in `start` are (T, ...).
    """
    theta = {name: value.detach().requires_grad_("backbone" in inner.outer) for name, value in backbone.items()}
    start = select_weights(loss, backbone, start, episodes.support, inner)
    initial = leaves_of(start)
    fast, support = adapt(loss, theta, initial, episodes.support, inner)
    if inner.second_order:
        leaves = {**theta, **initial}
    else:
        # The graph of phi' holds learned rates alone, and is needed for their gradient only.
        fast = fast if "rates" in inner.outer else leaves_of(fast)
        leaves = {**theta, **initial, **fast}
    query_T = computed(loss, inner).losses({} if "backbone" in inner.moves else theta, fast, episodes.query)
    wanted = {name: leaves[name] for name in in_groups(list(trainable(leaves)), inner.outer)}
    gradients = gradients_of(query_T.sum() / episodes.total, wanted)
    summed = {n: g if wanted[n] is theta.get(n) else g.sum(0) for n, g in gradients.items()}
    curve_T2 = torch.stack([support[0], support[-1]], dim=-1) if support else query_T.new_zeros(len(query_T), 2)
    return outcome(summed, fast, query_T, curve_T2, episodes, inner)


def step(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Computes the meta-step of the MAML family: `outer_gradient`, added up over chunks.

    Args: as in `MetaStep`; phi and head in `start` are (T, ...).
    """
    return in_chunks(outer_gradient, loss, backbone, start, episodes, inner)
