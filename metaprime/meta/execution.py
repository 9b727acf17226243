"""Runs T episodes that share a backbone, each with its own phi, in one of three equivalent ways.

`one_pass` runs modules that accept a leading T, `vmapped` runs any module under `torch.func.vmap`,
and `looped` runs one episode after another. They differ in time, not in results: skip this file on
a first reading.
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
from metaprime.packing import padded_calls
from metaprime.types import Batch, Loss, Params

Gradient: TypeAlias = Callable[[Params, Params, Params, Batch], tuple[Params, torch.Tensor]]
"""`gradient(backbone, still, moving, batch)` returns gradients (T, ...) by the names in `moving`,
and losses (T,) in nats."""

Losses: TypeAlias = Callable[[Params, Params, Batch], torch.Tensor]
"""`losses(backbone, fast, batch)` returns losses (T,) in nats."""


@dataclass(frozen=True)
class Computed:
    """A loss of T episodes as two functions. All their arguments but the backbone have a leading T.

    Attributes:
        gradient: gradient of the loss in the values that move, and the losses.
        losses: the losses alone.
    """

    gradient: Gradient
    losses: Losses


def computed(loss: Loss, inner: InnerLoop) -> Computed:
    """Returns a loss's functions, in the way of `inner.execution`: `computed(loss, inner)`."""
    match inner.execution.way:
        case Way.ONE_PASS:
            return one_pass(loss, inner.second_order)
        case Way.VMAP:
            return vmapped(loss)
        case Way.LOOP:
            return looped(loss, inner.second_order)


def one_pass(loss: Loss, differentiable: bool) -> Computed:
    """Returns the functions of a loss that accepts a leading T: `one_pass(loss, False).gradient`.

    Args:
        loss: takes `fast` (T, ...) and `batch` (T, B, ...) and returns (T,).
        differentiable: whether the gradient can be differentiated again.
    """

    def gradient(backbone: Params, still: Params, moving: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        leaves = {
            name: value if value.requires_grad else value.detach().requires_grad_() for name, value in moving.items()
        }
        losses_T = loss(backbone, {**still, **leaves}, batch)
        # Each episode's loss depends on its own values alone, so the gradient of the sum holds each
        # episode's gradient. Values that the loss does not reach get a zero here; `gradients_of`
        # raises the error that names them.
        gradients = torch.autograd.grad(
            losses_T.sum(), list(leaves.values()), create_graph=differentiable, materialize_grads=True
        )
        return dict(zip(leaves, gradients, strict=True)), losses_T

    return Computed(gradient, loss)


def vmapped(loss: Loss) -> Computed:
    """Returns the functions of a loss of one episode, vectorised over T: `vmapped(loss).losses`."""

    def padded(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        with padded_calls():
            return loss(backbone, fast, batch)

    def whole(backbone: Params, still: Params, moving: Params, batch: Batch) -> torch.Tensor:
        return padded(backbone, {**still, **moving}, batch)

    gradient = vmap(grad_and_value(whole, argnums=2), in_dims=(None, 0, 0, 0))
    return Computed(gradient, vmap(padded, in_dims=(None, 0, 0)))


def looped(loss: Loss, differentiable: bool) -> Computed:
    """Returns the functions of a loss of one episode, for T = 1: the reference for the other ways.

    Args:
        loss: takes the values of one episode without a leading T and returns ().
        differentiable: whether the gradient can be differentiated again.
    """

    def single(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, episode(fast, 0), episode(batch, 0))[None]

    return one_pass(single, differentiable)


def episode(values: Params, place: int) -> Params:
    """Returns the values of one episode: `episode({"head.b": b_TC}, 1)` holds `b_TC[1]`.

    Args:
        values: tensors (T, ...).
        place: number of the episode, from 0.
    """
    return {name: value[place] for name, value in values.items()}


@contextlib.contextmanager
def attention_kernels(inner: InnerLoop, device: torch.device) -> Iterator[None]:
    """Restricts attention, inside a `with`, to kernels that can be differentiated and batched.

    Fused kernels have no second derivative. On a CPU they have no rule for vmap either, which would
    run them one episode at a time. In both cases only the plain kernel is allowed.
    """
    slow_under_vmap = inner.execution.way is Way.VMAP and device.type == "cpu"
    if inner.second_order or slow_under_vmap:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
