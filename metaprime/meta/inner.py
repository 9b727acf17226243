"""The inner loop: phi' = phi - alpha dL_support/dphi, n times, theta untouched; and the outer gradient at phi'.

Everything here has a leading episode dimension T: `fast`, the batches and the losses. How T episodes are carried out is
one choice, `batched` by `torch.func.vmap` or `looped` one at a time; the two are equal and tested to be. Parameters are
values: nothing is cloned, patched or restored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import torch
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime.meta.learner import Outcome, Settings, added, grouped
from metaprime.types import Batch, Loss, MetaBatch, MetaprimeError, Params

Gradient: TypeAlias = Callable[[Params, Params, Batch], tuple[Params, torch.Tensor]]
"""Of the loss in phi and head, with its value: for T episodes, each tensor with a leading T."""


def adapt(
    gradient: Gradient, backbone: Params, fast: Params, support: tuple[Batch, ...], inner_lr: float
) -> tuple[Params, list[torch.Tensor]]:
    """One SGD step per support batch. Returns phi' (with head') and the support losses (T,) before each step."""
    losses = []
    for batch in support:
        gradients, loss = gradient(backbone, fast, batch)
        fast = {name: value - inner_lr * gradients[name] for name, value in fast.items()}
        losses.append(loss.detach())
    return fast, losses


def episode_gradients(loss: Loss, backbone: Params, start: Params, batch: MetaBatch, settings: Settings) -> Outcome:
    """Adapt on support, differentiate the query loss: the meta-step of every learner with an inner loop.

    First order takes phi' as a constant; the gradient for `adapter` and `head` is then the one at phi' (FOMAML).

    Raises:
        MetaprimeError: a parameter in `settings.outer` is not reached by the loss.
    """
    size = (settings.chunk or len(batch.indices)) if settings.batched else 1
    chunks = [slice(first, first + size) for first in range(0, len(batch.indices), size)]
    with attention_kernels(settings, batch.query["labels"].device):
        parts = [
            _chunk_gradients(loss, backbone, _cut(start, chunk), _episodes(batch, chunk), settings) for chunk in chunks
        ]
    return Outcome(
        gradients=added([part.gradients for part in parts]),
        mean_fast=added([part.mean_fast for part in parts]),
        last_fast=added([part.last_fast for part in parts]),
        query_loss=torch.stack([part.query_loss for part in parts]).sum(0),
        support_loss=torch.stack([part.support_loss for part in parts]).sum(0),
    )


def _chunk_gradients(loss: Loss, backbone: Params, start: Params, batch: MetaBatch, settings: Settings) -> Outcome:
    gradient, each = _batched(loss) if settings.batched else _looped(loss)
    frozen = {name: value.detach() for name, value in backbone.items()}
    theta = {name: value.detach().requires_grad_("backbone" in settings.outer) for name, value in backbone.items()}
    if settings.second_order:
        anchor = {name: value.detach().requires_grad_() for name, value in start.items()}
        fast, support = adapt(gradient, theta, anchor, batch.support, settings.inner_lr)
    else:
        fast, support = adapt(gradient, frozen, start, batch.support, settings.inner_lr)
        anchor = fast = {name: value.detach().requires_grad_() for name, value in fast.items()}
    query_T = each(theta, fast, batch.query)
    leaves = {**theta, **anchor}
    moved = grouped(list(leaves), settings.outer)
    gradients = _gradients(query_T.sum() / batch.total, {name: leaves[name] for name in moved})
    carried = {name: value.detach() for name, value in fast.items()} if settings.carry else {}
    ends_here = batch.indices[-1] == batch.total - 1
    curve_T2 = torch.stack([support[0], support[-1]], dim=-1) if support else query_T.new_zeros(len(query_T), 2)
    return Outcome(
        gradients={name: value if name in theta else value.sum(0) for name, value in gradients.items()},
        mean_fast={name: value.sum(0) / batch.total for name, value in carried.items()},
        last_fast={name: value[-1] if ends_here else torch.zeros_like(value[-1]) for name, value in carried.items()},
        query_loss=_placed(query_T.detach(), batch),
        support_loss=_placed(curve_T2, batch),
    )


def _batched(loss: Loss) -> tuple[Gradient, Loss]:
    """Gradient and loss of T episodes in one pass over a shared backbone."""
    spread = (None, 0, 0)
    return vmap(grad_and_value(loss, argnums=1), in_dims=spread), vmap(loss, in_dims=spread)


def _looped(loss: Loss) -> tuple[Gradient, Loss]:
    """The same for T = 1, without vmap: the reference, and the way for what cannot be batched."""
    single = grad_and_value(loss, argnums=1)

    def gradient(backbone: Params, fast: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        gradients, value = single(backbone, _only(fast), _only(batch))
        return {name: found[None] for name, found in gradients.items()}, value[None]

    return gradient, lambda backbone, fast, batch: loss(backbone, _only(fast), _only(batch))[None]


def _gradients(loss: torch.Tensor, leaves: Params) -> Params:
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)  # named below, never passed on
    gradients = dict(zip(leaves, found, strict=True))
    if unreached := [name for name, gradient in gradients.items() if gradient is None]:
        raise MetaprimeError(
            f"the loss does not depend on {', '.join(unreached)}: if the architecture has parameters that a token-level "
            "loss never uses, its row in metaprime/models/sites.py must list their path under `unused`"
        )
    return gradients


def _cut(values: Params, chunk: slice) -> Params:
    return {name: value[chunk] for name, value in values.items()}


def _only(values: Params) -> Params:
    return {name: value[0] for name, value in values.items()}


def _episodes(batch: MetaBatch, chunk: slice) -> MetaBatch:
    return replace(
        batch,
        languages=batch.languages[chunk],
        indices=batch.indices[chunk],
        support=tuple(_cut(tensors, chunk) for tensors in batch.support),
        query=_cut(batch.query, chunk),
    )


def _placed(values: torch.Tensor, batch: MetaBatch) -> torch.Tensor:
    """These episodes' values at their places among all T, zeros elsewhere."""
    out = values.new_zeros(batch.total, *values.shape[1:])
    out[list(batch.indices)] = values
    return out


@contextlib.contextmanager
def attention_kernels(settings: Settings, device: torch.device) -> Iterator[None]:
    """Which attention kernels may run. Fused ones have no second derivative; the CPU's has no rule for vmap either, which
    would carry it out one episode at a time. In both cases only the plain one may be picked.
    """
    if settings.second_order or (settings.batched and device.type == "cpu"):
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
