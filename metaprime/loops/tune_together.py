"""Several fine-tunings of one method over one frozen encoder, in one pass: what each gives alone, in less time.

Runs are stacked as episodes are: adapter and head have a leading E, and no run's loss depends on another's values. AdamW works
on each number by itself, so that one optimizer over the stack is E optimizers; gradients are clipped run by run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from metaprime.config import TransferConfig
from metaprime.data.episodes import stacked
from metaprime.loops.compute import Spent, counted, reckoned, subwords
from metaprime.loops.finetune import FineTuned, add_gradients, batches_of, check_losses, fine_tune, project, to_device
from metaprime.loops.room import CPU_SUBWORDS
from metaprime.loops.schedule import warmup_decay
from metaprime.models.primable import PrimableModel, functional_loss
from metaprime.peft.weights import CHANGE
from metaprime.tasks.task import Task
from metaprime.types import Params, Row, movable

Run = TypeVar("Run")

AT_ONCE = 8
"""Runs that share a pass at most."""

PASS = 32
"""What a small pass over a CPU costs beside its sub-words, in sub-words: see `benchmarks/many_transfers.py`."""


@dataclass(frozen=True)
class Tuning:
    """One of the runs: its sentences, what draws their order, and the adapter and head it starts from, made when asked for."""

    rows: Sequence[Row]
    seed: int
    language: str
    start: Callable[[], Params]


def tune(
    model: PrimableModel,
    task: Task,
    backbone: Params,
    runs: Sequence[Tuning],
    settings: TransferConfig,
    lr: float,
    *,
    count: bool = False,
) -> Iterator[FineTuned]:
    """What each run comes to, in turn: `at_once` many trained in one pass where they `go_together`, else one by one, each when
    it is asked for. With `count` FLOPs are counted.

    Raises:
        MetaprimeError: the loss of one is not finite; names its language.
    """
    for some in at_once(runs):
        if go_together(model, settings, some):
            yield from tune_together(model, task, backbone, some, settings, lr, count=count)
            continue
        for run in some:
            given = (run.rows, settings, lr, run.seed, run.language)
            yield fine_tune(model, task, backbone, run.start(), *given, count=count)


def go_together(model: PrimableModel, settings: TransferConfig, runs: Sequence[Tuning]) -> bool:
    """Whether these runs can share a pass, adapters over a frozen encoder for a fixed number of steps, and take less time so.

    It depends on nothing but what the runs are, so that one that is gone on with is the run it was.
    """
    alike = len({min(settings.batch, len(run.rows)) for run in runs}) == 1
    if len(runs) < 2 or not alike or settings.stop != "fixed" or not len(model.adapter):
        return False
    if (
        not model.per_episode or model.noisy or CHANGE in model.adapter
    ):  # that takes weights of the encoder's size for each
        return False
    return _less_work(model, settings, runs)


def at_once(runs: Sequence[Run]) -> list[Sequence[Run]]:
    """Runs in their order, as many together as may share a pass."""
    return [runs[first : first + AT_ONCE] for first in range(0, len(runs), AT_ONCE)]


def _less_work(model: PrimableModel, settings: TransferConfig, runs: Sequence[Tuning]) -> bool:
    """Fewer passes, but each run's batches are padded to the longest of all: on a CPU that may cost more than it saves, and
    large passes save nothing.
    """
    if next(model.parameters()).device.type != "cpu":
        return True
    lengths = []
    for run in runs:
        windows = [max(len(window.input_ids) for window in row.windows) for row in run.rows]
        batches = batches_of(len(windows), settings, run.seed, run.language)
        lengths.append([max(windows[index] for index in chosen) for chosen in batches])
    size = min(settings.batch, len(runs[0].rows))
    alone = sum(PASS + size * length for own in lengths for length in own)
    passes: list[int] = [size * len(runs) * max(of_all) for of_all in zip(*lengths, strict=True)]
    return sum(passes) <= CPU_SUBWORDS * len(passes) and sum(PASS + subwords for subwords in passes) < alone


def tune_together(
    model: PrimableModel,
    task: Task,
    backbone: Params,
    runs: Sequence[Tuning],
    settings: TransferConfig,
    lr: float,
    *,
    count: bool = False,
) -> list[FineTuned]:
    """Each run's outcome; an equal share of the FLOPs and of the seconds is each one's.

    Raises:
        MetaprimeError: the loss of one is not finite; names its language.
    """
    began = time.perf_counter()
    starts = [run.start() for run in runs]
    begun = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    values = {name: value.requires_grad_() for name, value in movable(begun).items()}
    choices = {name: value for name, value in begun.items() if name not in values}
    frozen = {name: value.detach() for name, value in backbone.items()} | choices
    optimizer = torch.optim.AdamW(values.values(), lr=lr, eps=1e-6, weight_decay=settings.weight_decay, fused=True)
    loss = functional_loss(model, task.measure)
    device = next(iter(values.values())).device
    schedules = [batches_of(len(run.rows), settings, run.seed, run.language) for run in runs]
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []
    for step, chosen in enumerate(zip(*schedules, strict=True)):
        parts = [[run.rows[index] for index in own] for run, own in zip(runs, chosen, strict=True)]
        batch = to_device(stacked(parts, task.collate), device)
        optimizer.zero_grad(set_to_none=True)
        losses_E, flops = counted(count and step == 0, add_gradients, loss, frozen, values, batch)
        losses.append(losses_E.detach())
        spent.append(Spent(subwords(batch), flops))
        if settings.clip:
            _clip(values, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_decay(step, settings.steps, settings.warmup)
        optimizer.step()
        project(model, values, (step + 1) / settings.steps)
    each_E = torch.stack(losses).T.tolist()
    for run, own in zip(runs, each_E, strict=True):
        check_losses(own, run.language, lr)
    whole, seconds = reckoned(spent), (time.perf_counter() - began) / len(runs)
    return [
        FineTuned(
            values={name: value.detach()[place] for name, value in begun.items()},
            steps=settings.steps,
            losses=own,
            flops=None if whole is None else whole / len(runs),
            seconds=seconds,
            at_once=len(runs),
        )
        for place, own in enumerate(each_E)
    ]


def _clip(values: Params, limit: float) -> None:
    """Each run's gradient scaled down to the norm `limit`, as `clip_grad_norm_` does."""
    gradients = [value.grad for value in values.values() if value.grad is not None]
    norms_E = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factors_E = (limit / (norms_E + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors_E.view(-1, *(1,) * (gradient.dim() - 1)))
