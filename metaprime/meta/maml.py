"""The inner loop: phi' = phi - alpha dL_support/dphi, n times; and the outer gradient of the query loss at phi'.

Which groups move inside is `Settings.inner`: phi and the head for the paper's learner, everything for vanilla MAML. All that
differs between episodes has a leading episode dimension T: moved and start values, the batches and the losses. How T
episodes are carried out is the choice of `ways`. Parameters are values: nothing is cloned, patched or restored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metaprime.meta.chunks import in_chunks
from metaprime.meta.execution import way_of
from metaprime.meta.inner_optimizers import adam, clipped, in_pieces, sgd, spread
from metaprime.meta.learner import Outcome, Settings, in_groups
from metaprime.meta.selection import select_weights
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params, trainable


def episode_gradients(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
    """Adapt on support, differentiate the query loss: the meta-step of every learner of the MAML family.

    First order takes what moved as a constant; its outer gradient is then the one at phi' (FOMAML).

    Raises:
        MetaprimeError: a parameter in `settings.outer` is not reached by the loss.
    """
    return in_chunks(_query_gradients, loss, backbone, start, batch, settings)


def adapt(
    loss: Loss, backbone: Params, start: Params, support: Sequence[Batch], settings: Settings
) -> tuple[Params, list[torch.Tensor]]:
    """One inner step per support batch.

    Returns all values of `start` after it (moved ones and others; of the backbone too, if it moves) without the learned
    rates, and the support losses (T,) before each step. First order keeps no graph but that of the learned rates.
    """
    moving, still = split(backbone, start, settings)
    rates = {name: value for name, value in start.items() if name.startswith("rates.")}
    shared = {} if "backbone" in settings.inner else backbone
    gradient = in_pieces(way_of(loss, settings).gradient, settings.micro)
    move = {"sgd": sgd, "adam": adam}[settings.optimizer]()
    losses = []
    for step, batch in enumerate(support):
        if settings.second_order:
            found, value = gradient(shared, still, moving, batch)
        else:
            found, value = gradient(_detached(shared), _detached(still), _detached(moving), batch)
        found = clipped(found, settings.clip) if settings.clip else found
        sizes = {name: rates.get(f"rates.{step}.{name.replace('.', ':')}", settings.inner_lr) for name in moving}
        moving = {name: moving[name] - spread(sizes[name], change) * change for name, change in move(found).items()}
        if settings.project and "adapter" in settings.inner:
            moving = {**moving, **settings.project(moving, (step + 1) / len(support))}
        losses.append(value.detach())
    return {**still, **moving}, losses


def split(backbone: Params, start: Params, settings: Settings) -> tuple[Params, Params]:
    """What the inner loop moves and what of `start` it leaves, each with a leading T; learned rates are in neither."""
    values = {name: value for name, value in start.items() if not name.startswith("rates.")}
    if "backbone" in settings.inner:
        episodes = len(next(iter(values.values())))
        values |= {name: value.expand(episodes, *value.shape) for name, value in backbone.items()}
    chosen = set(in_groups(list(trainable(values)), settings.inner))
    moving = {name: value for name, value in values.items() if name in chosen}
    return moving, {name: value for name, value in values.items() if name not in chosen}


def _query_gradients(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
    theta = {name: value.detach().requires_grad_("backbone" in settings.outer) for name, value in backbone.items()}
    start = select_weights(loss, backbone, start, batch.support, settings)
    begun = {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in start.items()}
    fast, support = adapt(loss, theta, begun, batch.support, settings)
    if settings.second_order:
        leaves = {**theta, **begun}
    else:
        if "rates" not in settings.outer:  # else what moved hangs on the rates, and on nothing before
            fast = {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in fast.items()}
        leaves = {**theta, **begun, **fast}
    shared = {} if "backbone" in settings.inner else theta
    query_T = way_of(loss, settings).losses(shared, fast, batch.query)
    moved = in_groups(list(trainable(leaves)), settings.outer)
    gradients = _gradients(query_T.sum() / batch.total, {name: leaves[name] for name in moved})
    return outcome(
        {name: value if leaves[name] is theta.get(name) else value.sum(0) for name, value in gradients.items()},
        fast,
        query_T,
        torch.stack([support[0], support[-1]], dim=-1) if support else query_T.new_zeros(len(query_T), 2),
        batch,
        settings,
    )


def outcome(
    gradients: Params, fast: Params, query_T: torch.Tensor, curve_T2: torch.Tensor, batch: Episodes, settings: Settings
) -> Outcome:
    """What a chunk of episodes contributes to the whole meta-batch's sums."""
    names = in_groups(list(trainable(fast)), ("adapter", "head")) if settings.carry else []
    carried = {name: fast[name].detach() for name in names}
    ends_here = batch.indices[-1] == batch.total - 1
    return Outcome(
        gradients=gradients,
        mean_fast={name: value.sum(0) / batch.total for name, value in carried.items()},
        last_fast={name: value[-1] if ends_here else torch.zeros_like(value[-1]) for name, value in carried.items()},
        query_loss=_placed(query_T.detach(), batch),
        support_loss=_placed(curve_T2, batch),
    )


def _gradients(loss: torch.Tensor, leaves: Params) -> Params:
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)  # named below, never passed on
    gradients = dict(zip(leaves, found, strict=True))
    if unreached := [name for name, gradient in gradients.items() if gradient is None]:
        raise MetaprimeError(
            f"the loss does not depend on {', '.join(unreached)}: if the architecture has parameters that a token-level "
            "loss never uses, its row in metaprime/models/sites.py must list their path under `unused`"
        )
    return gradients


def _detached(values: Params) -> Params:
    return {name: value.detach() for name, value in values.items()}


def _placed(values: torch.Tensor, batch: Episodes) -> torch.Tensor:
    """These episodes' values at their places among all T, zeros elsewhere."""
    out = values.new_zeros(batch.total, *values.shape[1:])
    out[list(batch.indices)] = values
    return out
