"""Implements differentiable inner-loop updates: SGD, Adam, clipping, learned rates, micro-batches.

Skip this file on a first reading: `update_rule` is `phi - alpha * gradient` for plain SGD.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TypeAlias

import torch

from metaprime.meta.execution import Gradient
from metaprime.meta.learner import InnerLoop
from metaprime.types import IGNORE, Batch, Params

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8

Update: TypeAlias = Callable[[int, Params, Params], Params]
"""`update(step, moving, gradients)` returns the values (T, ...) after inner step `step`, from 0."""


def update_rule(inner: InnerLoop, start: Params, steps: int) -> Update:
    """Returns the update of the inner loop: `update_rule(inner, start, 3)(0, phi, gradients)`.

    Args:
        inner: optimizer, step size, clipping and projection.
        start: learned rates (T,), named `rates.STEP.NAME`, among other values; optional.
        steps: number of inner steps.
    """
    rates = {name: value for name, value in start.items() if name.startswith("rates.")}
    direction = adam() if inner.optimizer == "adam" else sgd()

    def update(step: int, moving: Params, gradients: Params) -> Params:
        gradients = clipped(gradients, inner.clip) if inner.clip else gradients
        sizes = {name: rates.get(f"rates.{step}.{name.replace('.', ':')}", inner.lr) for name in moving}
        moved = {name: moving[name] - broadcast_size(sizes[name], d) * d for name, d in direction(gradients).items()}
        if inner.project and "adapter" in inner.moves:
            moved |= inner.project(moved, (step + 1) / steps)
        return moved

    return update


def sgd() -> Callable[[Params], Params]:
    """Returns the direction of plain SGD, which is the gradient: `sgd()(gradients)`."""
    return lambda gradients: gradients


def adam() -> Callable[[Params], Params]:
    """Returns the direction of Adam (Kingma & Ba 2015, 1412.6980), which keeps its moments.

    Epsilon is inside the root, because the slope of a root at zero is infinite. Each inner loop
    needs its own: `direction = adam()`, then `direction(gradients)` at every step.
    """
    first: Params = {}
    second: Params = {}
    steps = 0

    def direction(gradients: Params) -> Params:
        nonlocal steps
        steps += 1
        beta1, beta2 = ADAM_BETAS
        for name, value in gradients.items():
            first[name] = beta1 * first.get(name, torch.zeros_like(value)) + (1 - beta1) * value
            second[name] = beta2 * second.get(name, torch.zeros_like(value)) + (1 - beta2) * value.square()
        return {
            name: first[name] / (1 - beta1**steps) / (second[name] / (1 - beta2**steps) + ADAM_EPSILON**2).sqrt()
            for name in gradients
        }

    return direction


def clipped(gradients: Params, limit: float) -> Params:
    """Clips the norm of each episode's gradient over all its tensors, as `clip_grad_norm_` does.

    Args:
        gradients: tensors (T, ...).
        limit: largest norm.

    Returns:
        Tensors (T, ...): `clipped(gradients, 1.0)`.
    """
    squares_T = torch.stack([value.flatten(1).square().sum(1) for value in gradients.values()]).sum(0)
    # The small number keeps the derivative of the root finite at zero.
    factor_T = (limit / ((squares_T + 1e-24).sqrt() + 1e-6)).clamp(max=1.0)
    return {name: broadcast_size(factor_T, value) * value for name, value in gradients.items()}


def in_pieces(gradient: Gradient, micro: int | None) -> Gradient:
    """Returns a gradient that processes micro-batches: `in_pieces(gradient, 8)`.

    Args:
        gradient: gradient of a mean loss over the labelled units of a batch.
        micro: windows of each micro-batch; None: the whole batch at once.

    Returns:
        The gradient of the whole batch: each micro-batch counts by its number of labelled units.
    """
    if not micro:
        return gradient

    def pieced(backbone: Params, still: Params, moving: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        firsts = range(0, batch["labels"].shape[1], micro)
        pieces = [{name: tensor[:, first : first + micro] for name, tensor in batch.items()} for first in firsts]
        counts = torch.stack([(piece["labels"] != IGNORE).flatten(1).sum(1) for piece in pieces])
        parts = [gradient(backbone, still, moving, piece) for piece in pieces]
        weights = counts.to(parts[0][1].dtype) / counts.sum(0).clamp(min=1)
        losses_T = reduce(torch.add, [w * loss for w, (_, loss) in zip(weights, parts, strict=True)])
        summed = {
            name: torch.stack(
                [broadcast_size(w, g[name]) * g[name] for w, (g, _) in zip(weights, parts, strict=True)]
            ).sum(0)
            for name in moving
        }
        return summed, losses_T

    return pieced


def broadcast_size(size: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor | float:
    """Returns a step size in a shape that broadcasts: `broadcast_size(rate_T, phi_TD)` is (T, 1).

    Args:
        size: (T,), or a number, which is returned unchanged.
        like: tensor (T, ...) that is to be multiplied.
    """
    return size.view(-1, *(1,) * (like.dim() - 1)) if isinstance(size, torch.Tensor) else size
