"""Several fine-tunings of one method over one frozen encoder, in one pass: what each gives alone, in less time.

Runs are stacked as episodes are: adapter and head have a leading E, and no run's loss depends on another's values. AdamW works
on each number by itself, so that one optimizer over the stack is E optimizers; gradients are clipped run by run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaprime.config import TransferConfig
from metaprime.data.episodes import stacked
from metaprime.loops.finetune import batches_of, check_loss, project, to_device
from metaprime.loops.schedule import warmup_decay
from metaprime.models.primable import PrimableModel, functional_loss
from metaprime.tasks.task import Task
from metaprime.types import Params, Row, movable


@dataclass(frozen=True)
class Tuning:
    """One of the runs: the adapter and head it starts from, its sentences, and what draws their order."""

    start: Params
    rows: Sequence[Row]
    seed: int
    language: str


def may_go_together(model: PrimableModel, settings: TransferConfig, runs: Sequence[Tuning]) -> bool:
    """Whether `tune_together` can do these runs, and in less time: adapters over a frozen encoder, a fixed number of steps."""
    frozen = not any(name.startswith("backbone.") for run in runs for name in run.start)
    alike = len({min(settings.batch, len(run.rows)) for run in runs}) == 1
    return (
        len(runs) > 1
        and frozen
        and alike
        and settings.stop == "fixed"
        and len(model.adapter) > 0
        and model.per_episode
        and not model.noisy
    )


def tune_together(
    model: PrimableModel, task: Task, backbone: Params, runs: Sequence[Tuning], settings: TransferConfig, lr: float
) -> list[Params]:
    """Trained adapter and head of each run.

    Raises:
        MetaprimeError: the loss of one is not finite; names its language.
    """
    begun = {name: torch.stack([run.start[name] for run in runs]) for name in runs[0].start}
    values = {name: value.requires_grad_() for name, value in movable(begun).items()}
    choices = {name: value for name, value in begun.items() if name not in values}
    frozen = {name: value.detach() for name, value in backbone.items()} | choices
    optimizer = torch.optim.AdamW(values.values(), lr=lr, eps=1e-6, weight_decay=settings.weight_decay, fused=True)
    loss = functional_loss(model, task.measure)
    device = next(iter(values.values())).device
    schedules = [batches_of(len(run.rows), settings, run.seed, run.language) for run in runs]
    for step, chosen in enumerate(zip(*schedules, strict=True)):
        parts = [[run.rows[index] for index in own] for run, own in zip(runs, chosen, strict=True)]
        optimizer.zero_grad(set_to_none=True)
        losses_E = loss(frozen, values, to_device(stacked(parts, task.collate), device))
        for run, found in zip(runs, losses_E.tolist(), strict=True):
            check_loss(found, run.language, step, lr)
        losses_E.sum().backward()
        if settings.clip:
            _clip(values, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_decay(step, settings.steps, settings.warmup)
        optimizer.step()
        project(model, values, (step + 1) / settings.steps)
    return [{name: value.detach()[place] for name, value in begun.items()} for place in range(len(runs))]


def _clip(values: Params, limit: float) -> None:
    """Each run's gradient scaled down to the norm `limit`, as `clip_grad_norm_` does."""
    gradients = [value.grad for value in values.values() if value.grad is not None]
    norms_E = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factors_E = (limit / (norms_E + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors_E.view(-1, *(1,) * (gradient.dim() - 1)))
