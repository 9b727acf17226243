"""Inner-loop optimizers: SGD, Adam, clipping and micro-batches, all differentiable."""

from __future__ import annotations

from collections.abc import Callable

import torch

from metaprime.meta.execution import Gradient
from metaprime.types import IGNORE, Batch, Params

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8


def in_pieces(gradient: Gradient, micro: int | None) -> Gradient:
    """The gradient of the mean over a batch from `micro` windows at a time, each piece weighed by its labelled sub-words."""

    def in_pieces(backbone: Params, still: Params, moving: Params, batch: Batch) -> tuple[Params, torch.Tensor]:
        firsts = range(0, batch["labels"].shape[1], micro or 1)
        pieces = [{name: tensor[:, first : first + firsts.step] for name, tensor in batch.items()} for first in firsts]
        counts = torch.stack([(piece["labels"] != IGNORE).flatten(1).sum(1) for piece in pieces])
        found = [gradient(backbone, still, moving, piece) for piece in pieces]
        weights = counts.to(found[0][1].dtype) / counts.sum(0).clamp(min=1)
        value = sum(weight * loss for weight, (_, loss) in zip(weights, found, strict=True))
        assert isinstance(value, torch.Tensor)
        summed = {
            name: torch.stack([spread(w, g[name]) * g[name] for w, (g, _) in zip(weights, found, strict=True)]).sum(0)
            for name in moving
        }
        return summed, value

    return in_pieces if micro else gradient


def clipped(gradients: Params, limit: float) -> Params:
    """Each episode's gradient scaled down to the norm `limit` over all its tensors, as `clip_grad_norm_` does."""
    squares = torch.stack([value.flatten(1).square().sum(1) for value in gradients.values()]).sum(0)
    factor = (limit / ((squares + 1e-24).sqrt() + 1e-6)).clamp(max=1.0)  # the root of zero has no derivative
    return {name: spread(factor, value) * value for name, value in gradients.items()}


def sgd() -> Callable[[Params], Params]:
    return lambda gradients: gradients


def adam() -> Callable[[Params], Params]:
    """Adam's direction, step after step, differentiable: epsilon stands inside the root, whose slope at zero is infinite."""
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


def spread(size: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor | float:
    """(T,) so that it multiplies (T, ...); a number as it is."""
    return size.view(-1, *(1,) * (like.dim() - 1)) if isinstance(size, torch.Tensor) else size
