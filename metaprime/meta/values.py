"""Splits, detaches and differentiates values by name, for the algorithm in `maml.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from metaprime.meta.learner import InnerLoop, Outcome, in_groups
from metaprime.types import Episodes, MetaprimeError, Params, trainable


def split(backbone: Params, start: Params, inner: InnerLoop) -> tuple[Params, Params]:
    """Splits values into those that the inner loop moves and the rest of `start`.

    Args:
        backbone: theta by name, without a leading T.
        start: phi and head, each (T, ...); learned rates are dropped.
        inner: its `moves` names the groups that move.

    Returns:
        Moving and still values, each (T, ...): `moving, still = split(backbone, start, inner)`.
    """
    values = {name: value for name, value in start.items() if not name.startswith("rates.")}
    if "backbone" in inner.moves:
        count = len(next(iter(values.values())))
        values |= {name: value.expand(count, *value.shape) for name, value in backbone.items()}
    moves = set(in_groups(list(trainable(values)), inner.moves))
    moving = {name: value for name, value in values.items() if name in moves}
    return moving, {name: value for name, value in values.items() if name not in moves}


def gradients_of(loss: torch.Tensor, leaves: Params) -> Params:
    """Returns the gradient of a scalar in each leaf: `gradients_of(loss, {"head.b": b})["head.b"]`.

    Args:
        loss: ().
        leaves: tensors that require gradients, by name.

    Raises:
        MetaprimeError: the loss does not depend on some of the leaves, which the message names.
    """
    values = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = dict(zip(leaves, values, strict=True))
    if unreached := [name for name, gradient in gradients.items() if gradient is None]:
        raise MetaprimeError(_unreached(unreached))
    return gradients


def _unreached(names: Sequence[str]) -> str:
    """Returns the message about parameters without a gradient, those of all layers under one name."""
    layers = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))
    text = f"the loss does not depend on {', '.join(layers)}"
    unused = ", ".join(name.removeprefix("backbone.") for name in layers if name.startswith("backbone."))
    if not unused:
        return text
    remedy = f"list them under encoder.sites.unused: [{unused}]"
    return f"{text}: if this architecture never uses them for the state of a word, {remedy}"


def leaves_of(values: Params) -> Params:
    """Returns the values as leaves of a new graph: `leaves_of({"head.b": b})["head.b"].is_leaf`.

    Args:
        values: tensors (T, ...), or of any other shape; integer tensors will require no gradient.
    """
    return {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in values.items()}


def detached(values: Params) -> Params:
    """Returns the values without their graph: `detached({"head.b": b})`.

    Args:
        values: tensors (T, ...), or of any other shape.
    """
    return {name: value.detach() for name, value in values.items()}


def outcome(
    gradients: Params,
    fast: Params,
    query_T: torch.Tensor,
    curve_T2: torch.Tensor,
    episodes: Episodes,
    inner: InnerLoop,
) -> Outcome:
    """Returns the part of the meta-batch's outcome that N of its T episodes contribute.

    Args:
        gradients: their part of the mean gradient, by parameter name.
        fast: values after the inner loop, each (N, ...).
        query_T: query losses (N,) in nats.
        curve_T2: support losses (N, 2) before the first and before the last inner step, in nats.
        episodes: the N episodes; `indices` are their places among the meta-batch's `total` T.
        inner: its `carry` decides whether `fast` is returned.
    """
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
    """Returns values of all T episodes, zeros for other chunks: `placed(query_T, episodes)`.

    Args:
        values: (N, ...), one row for each of these N episodes.
        episodes: their `indices` are the rows that the values get in the result (T, ...).
    """
    out = values.new_zeros(episodes.total, *values.shape[1:])
    out[list(episodes.indices)] = values
    return out
