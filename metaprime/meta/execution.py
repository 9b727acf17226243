"""Three ways to carry out T episodes that have a shared backbone and parameters of their own.

In one pass whose modules take a leading T, by `torch.func.vmap`, or one after another. They are equal, and tested to be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime.meta.learner import Settings
from metaprime.types import Batch, Loss, Params

Gradient: TypeAlias = Callable[[Params, Params, Params, Batch], tuple[Params, torch.Tensor]]


@dataclass(frozen=True)
class Way:
    """How to differentiate, and how to measure.

    Attributes:
        gradient: `gradient(backbone, still, moving, batch)` of the loss in `moving`, with its value.
        losses: `losses(backbone, fast, batch)`, (T,) nats.

    The backbone is shared; all else, and what comes back, has a leading T.
    """

    gradient: Gradient
    losses: Callable[[Params, Params, Batch], torch.Tensor]


def way_of(loss: Loss, settings: Settings) -> Way:
    """The way that the settings say."""
    if not settings.batched:
        return looped(loss, settings.second_order)
    return one_pass(loss, settings.second_order) if settings.together else vmapped(loss)


def one_pass(loss: Loss, differentiable: bool) -> Way:
    """For a loss that takes a leading T itself. `differentiable`: the gradient has a gradient."""

    def gradient(backbone: Params, still: Params, moving: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        leaves = {
            name: value if value.requires_grad else value.detach().requires_grad_() for name, value in moving.items()
        }
        losses_T = loss(backbone, {**still, **leaves}, batch)
        # An episode's loss depends on its own parameters alone: the gradient of the sum is each one's own.
        found = torch.autograd.grad(
            losses_T.sum(), list(leaves.values()), create_graph=differentiable, materialize_grads=True
        )  # what the loss does not reach stays; the outer gradient names it
        return dict(zip(leaves, found, strict=True)), losses_T

    return Way(gradient, loss)


def vmapped(loss: Loss) -> Way:
    """For any loss of one episode, by a second one made for all T."""

    def whole(backbone: Params, still: Params, moving: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, {**still, **moving}, batch)

    gradient = vmap(grad_and_value(whole, argnums=2), in_dims=(None, 0, 0, 0))
    return Way(gradient, vmap(loss, in_dims=(None, 0, 0)))


def looped(loss: Loss, differentiable: bool) -> Way:
    """For T = 1: the reference, and the way for what cannot be batched."""

    def single(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, _only(fast), _only(batch))[None]

    return one_pass(single, differentiable)


def _only(values: Params) -> Params:
    return {name: value[0] for name, value in values.items()}


@contextlib.contextmanager
def attention_kernels(settings: Settings, device: torch.device) -> Iterator[None]:
    """Which attention kernels may run. Fused ones have no second derivative; the CPU's has no rule for vmap either, which
    would carry it out one episode at a time. In both cases only the plain one may be picked.
    """
    vmapped = settings.batched and not settings.together
    if settings.second_order or (vmapped and device.type == "cpu"):
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
