"""Carries out T episodes that share a backbone and have values of their own, in one of three equal ways.

`one_pass` runs modules that accept a leading T, `vmapped` any module under `torch.func.vmap`,
`looped` one episode after another. Skip this file on a first reading: it changes time, not results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime.meta.learner import InnerLoop, Way
from metaprime.types import Batch, Loss, Params

Gradient: TypeAlias = Callable[[Params, Params, Params, Batch], tuple[Params, torch.Tensor]]
"""`gradient(backbone, still, moving, batch)`: gradients by the names in `moving`, each with a leading T, and losses (T,)."""

Losses: TypeAlias = Callable[[Params, Params, Batch], torch.Tensor]
"""`losses(backbone, fast, batch)`: (T,) nats."""


@dataclass(frozen=True)
class Computed:
    """A loss as functions of T episodes: its gradient in what moves, and its values. Only the backbone has no leading T."""

    gradient: Gradient
    losses: Losses


def computed(loss: Loss, inner: InnerLoop) -> Computed:
    """Returns the loss in the way that the execution asks for."""
    match inner.execution.way:
        case Way.ONE_PASS:
            return one_pass(loss, inner.second_order)
        case Way.VMAP:
            return vmapped(loss)
        case Way.LOOP:
            return looped(loss, inner.second_order)


def one_pass(loss: Loss, differentiable: bool) -> Computed:
    """Computes a loss that takes a leading T itself. With `differentiable` the gradient has a gradient."""

    def gradient(backbone: Params, still: Params, moving: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        leaves = {
            name: value if value.requires_grad else value.detach().requires_grad_() for name, value in moving.items()
        }
        losses_T = loss(backbone, {**still, **leaves}, batch)
        # An episode's loss depends on its own values alone: the gradient of the sum is each one's own.
        # Values that the loss does not reach keep a zero here; the outer gradient names them.
        found = torch.autograd.grad(
            losses_T.sum(), list(leaves.values()), create_graph=differentiable, materialize_grads=True
        )
        return dict(zip(leaves, found, strict=True)), losses_T

    return Computed(gradient, loss)


def vmapped(loss: Loss) -> Computed:
    """Computes a loss of one episode for all T by vectorising it."""

    def whole(backbone: Params, still: Params, moving: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, {**still, **moving}, batch)

    gradient = vmap(grad_and_value(whole, argnums=2), in_dims=(None, 0, 0, 0))
    return Computed(gradient, vmap(loss, in_dims=(None, 0, 0)))


def looped(loss: Loss, differentiable: bool) -> Computed:
    """Computes a loss for T = 1: the reference, and the way for what cannot be batched."""

    def single(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, episode(fast, 0), episode(batch, 0))[None]

    return one_pass(single, differentiable)


def episode(values: Params, place: int) -> Params:
    """Returns the values of one episode, without their leading T."""
    return {name: value[place] for name, value in values.items()}


@contextlib.contextmanager
def attention_kernels(inner: InnerLoop, device: torch.device) -> Iterator[None]:
    """Allows only the attention kernels that can be differentiated as often as the meta-step needs.

    Fused kernels have no second derivative. On a CPU they have no rule for vmap either, which would
    run them one episode at a time. In both cases only the plain kernel may be picked.
    """
    slow_under_vmap = inner.execution.way is Way.VMAP and device.type == "cpu"
    if inner.second_order or slow_under_vmap:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
