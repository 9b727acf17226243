"""Moves the inner loop's values by SGD or Adam, with clipping, learned rates and micro-batches; all of it differentiable.

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
"""`update(step, moving, gradients)`: the values after inner step `step`, counted from 0."""


def update_rule(inner: InnerLoop, start: Params, steps: int) -> Update:
    """Returns the rule by which the inner loop's steps move values.

    Args:
        inner: optimizer, step size, clipping and projection.
        start: holds learned rates (T,) as `rates.STEP.NAME`, if there are any.
        steps: inner steps of the loop.
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
    """Returns plain SGD's direction: the gradient."""
    return lambda gradients: gradients


def adam() -> Callable[[Params], Params]:
    """Returns Adam's direction, step after step.

    Epsilon stands inside the root, whose slope at zero is infinite, so that it can be differentiated.
    """
    first: Params = {}
    second: Params = {}
    steps = 0

    def direction(gradients: Params) -> Params:
        nonlocal steps
        steps += 1
        one, two = ADAM_BETAS
        for name, value in gradients.items():
            first[name] = one * first.get(name, torch.zeros_like(value)) + (1 - one) * value
            second[name] = two * second.get(name, torch.zeros_like(value)) + (1 - two) * value.square()
        return {
            name: first[name] / (1 - one**steps) / (second[name] / (1 - two**steps) + ADAM_EPSILON**2).sqrt()
            for name in gradients
        }

    return direction


def clipped(gradients: Params, limit: float) -> Params:
    """Scales each episode's gradient down to the norm `limit` over all its tensors, as `clip_grad_norm_` does.

    Args:
        gradients: each with a leading T.
        limit: largest norm.
    """
    squares_T = torch.stack([value.flatten(1).square().sum(1) for value in gradients.values()]).sum(0)
    # The root of zero has no derivative: hence the small number inside.
    factor_T = (limit / ((squares_T + 1e-24).sqrt() + 1e-6)).clamp(max=1.0)
    return {name: broadcast_size(factor_T, value) * value for name, value in gradients.items()}


def in_pieces(gradient: Gradient, micro: int | None) -> Gradient:
    """Returns a gradient that takes `micro` windows of a batch at a time, each piece weighed by its labelled units."""
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
    """Returns (T,) in a shape that multiplies (T, ...); a number as it is."""
    return size.view(-1, *(1,) * (like.dim() - 1)) if isinstance(size, torch.Tensor) else size
