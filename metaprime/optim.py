"""AdamW with gradient clipping, linear warm-up and linear decay: the optimizer of every training loop.

The learning rate is a function of the step, so the schedule has no state to save or resume.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


def warmup_decay(step: int, steps: int, warmup: float) -> float:
    """Returns the learning rate of a step as a share of the peak rate.

    Args:
        step: counted from 0.
        steps: number of steps of the whole training.
        warmup: share of the steps over which the rate rises linearly; then it falls linearly to zero.

    Example: `warmup_decay(0, 100, 0.1)` is 0.1.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising + 1))


@dataclass
class ScheduledAdamW:
    """AdamW (Loshchilov and Hutter 2019) with a learning-rate schedule and gradient clipping.

    Attributes:
        optimizer: torch's AdamW; each of its groups holds its peak rate under `peak`.
        steps: number of steps of the whole training.
        warmup: share of the steps over which the rates rise.
        clip: largest norm of the gradient; None switches clipping off.
        by_run: True if every tensor has a leading E for E runs that share a pass. Each run is then
            clipped separately; AdamW is element-wise, so the result is that of E optimizers.
        parameters: the tensors of all groups, `(...,)` or `(E, ...)`.

    Example: `ScheduledAdamW(adamw([group]), steps=1000, warmup=0.1, clip=1.0).step(0)`
    """

    optimizer: torch.optim.AdamW
    steps: int
    warmup: float
    clip: float | None = None
    by_run: bool = False
    parameters: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [value for group in self.optimizer.param_groups for value in group["params"]]

    def step(self, step: int, norm: torch.Tensor | None = None, *, slowdown: float = 1.0) -> None:
        """Clips the gradients, updates the parameters, and clears the gradients.

        Args:
            step: counted from 0.
            norm: `()`, the gradient's norm if it is already known.
            slowdown: divisor of all rates.
        """
        if self.clip and self.by_run:
            clip_by_run(self.parameters, self.clip)
        elif self.clip and norm is None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        elif self.clip and norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        factor = warmup_decay(step, self.steps, self.warmup) / slowdown
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def adamw(groups: Sequence[dict[str, Any]], *, epsilon: float = 1e-6, fused: bool = True) -> torch.optim.AdamW:
    """Returns torch's AdamW over parameter groups.

    Args:
        groups: each with `params`, its peak rate `peak` and `weight_decay`.
        epsilon: constant in the denominator of the update.
        fused: whether to use the fused kernel.

    Example: `adamw([{"params": head, "peak": 1e-3, "weight_decay": 0.0}])`
    """
    peaks = [{**group, "params": list(group["params"]), "lr": group["peak"]} for group in groups]
    return torch.optim.AdamW(peaks, eps=epsilon, fused=fused)


def clip_by_run(parameters: Iterable[torch.Tensor], limit: float) -> None:
    """Scales each run's gradient down to the norm `limit`, in place, as `clip_grad_norm_` does for one run.

    Args:
        parameters: tensors `(E, ...)`; those without a gradient are skipped.
        limit: largest norm of a run's gradient.

    Example: `clip_by_run(parameters, 1.0)`
    """
    gradients = [value.grad for value in parameters if value.grad is not None]
    norms_E = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factors_E = (limit / (norms_E + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors_E.view(-1, *(1,) * (gradient.dim() - 1)))
