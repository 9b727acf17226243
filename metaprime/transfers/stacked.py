"""Several fine-tunings of one method over one frozen encoder, in one pass: what each gives alone, in less time.

Runs are stacked as episodes are: adapter and head have a leading E, and no run's loss depends on another's values. AdamW works
on each number by itself, so that one optimizer over the stack is E optimizers; gradients are clipped run by run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from metaprime.config.sections import TransferConfig
from metaprime.data.episodes import stacked
from metaprime.data.rows import Row, to_device
from metaprime.meta.chunks import CPU_SUBWORDS, GPU_SUBWORDS
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.optim import warmup_decay
from metaprime.peft.sparse.weights import CHANGE
from metaprime.runs.flops import Spent, counted, reckoned, subwords
from metaprime.tasks.task import Task
from metaprime.transfers.finetune import FineTuned, add_gradients, batches_of, check_losses, fine_tune, project
from metaprime.types import Params, trainable

AT_ONCE = 8
"""Runs that share a pass at most."""

PASS = 32
"""What a small pass over a CPU costs beside its sub-words, in sub-words: see `benchmarks/many_transfers.py`."""


@dataclass(frozen=True)
class KShotRun:
    """One of the runs: its sentences, what draws their order, and the adapter and head it starts from, made when asked for."""

    rows: Sequence[Row]
    seed: int
    language: str
    start: Callable[[], Params]


def tune(
    model: TaskModel,
    task: Task,
    backbone: Params,
    runs: Sequence[KShotRun],
    settings: TransferConfig,
    lr: float,
    *,
    count: bool = False,
) -> Iterator[tuple[KShotRun, FineTuned]]:
    """What each run comes to, group by group (`groups_of`), each group trained when its first is asked for. With `count` FLOPs
    are counted.

    Raises:
        MetaprimeError: the loss of one is not finite; names its language. Its group's others come before.
    """
    for group in groups_of(model, settings, runs):
        if len(group) == 1:
            (run,) = group
            given = (run.rows, settings, lr, run.seed, run.language)
            yield run, fine_tune(model, task, backbone, run.start(), *given, count=count)
            continue
        found = train_stacked(model, task, backbone, group, settings, lr, count=count)
        pairs = list(zip(group, found, strict=True))
        sound = [all(math.isfinite(loss) for loss in tuned.losses) for _, tuned in pairs]
        yield from (pair for pair, well in zip(pairs, sound, strict=True) if well)
        for run, tuned in pairs:
            check_losses(tuned.losses, run.language, lr)


def groups_of(model: TaskModel, settings: TransferConfig, runs: Sequence[KShotRun]) -> list[Sequence[KShotRun]]:
    """Neighbours that are trained in one pass, as many of them as `go_together`; by itself what does not.

    A function of all the runs and of nothing else: which of them are done already must not be asked here.
    """
    groups: list[Sequence[KShotRun]] = []
    first = 0
    while first < len(runs):
        sizes = range(min(AT_ONCE, len(runs) - first), 1, -1)
        size = next((size for size in sizes if go_together(model, settings, runs[first : first + size])), 1)
        groups.append(runs[first : first + size])
        first += size
    return groups


def go_together(model: TaskModel, settings: TransferConfig, runs: Sequence[KShotRun]) -> bool:
    """Whether these runs can share a pass, adapters over a frozen encoder for a fixed number of steps, and take less time so."""
    alike = len({min(settings.batch, len(run.rows)) for run in runs}) == 1
    if len(runs) < 2 or not alike or settings.stop != "fixed" or not len(model.adapter):
        return False
    if (
        not model.supports_one_pass or model.noisy or CHANGE in model.adapter
    ):  # that takes weights of the encoder's size for each
        return False
    return _pays(model, settings, runs)


def _pays(model: TaskModel, settings: TransferConfig, runs: Sequence[KShotRun]) -> bool:
    """Fewer passes, but each run's batches are padded to the longest of all: on a CPU that may cost more than it saves, and
    large passes save nothing; elsewhere they take memory.
    """
    lengths = []
    for run in runs:
        windows = [max(len(window.input_ids) for window in row.windows) for row in run.rows]
        batches = batches_of(len(windows), settings, run.seed, run.language)
        lengths.append([max(windows[index] for index in chosen) for chosen in batches])
    size = min(settings.batch, len(runs[0].rows))
    passes: list[int] = [size * len(runs) * max(of_all) for of_all in zip(*lengths, strict=True)]
    if next(model.parameters()).device.type != "cpu":
        return max(passes) <= GPU_SUBWORDS
    alone = sum(PASS + size * length for own in lengths for length in own)
    return sum(passes) <= CPU_SUBWORDS * len(passes) and sum(PASS + subwords for subwords in passes) < alone


def train_stacked(
    model: TaskModel,
    task: Task,
    backbone: Params,
    runs: Sequence[KShotRun],
    settings: TransferConfig,
    lr: float,
    *,
    count: bool = False,
) -> list[FineTuned]:
    """Each run's outcome, be its loss finite or not; an equal share of the FLOPs and of the seconds is each one's."""
    began = time.perf_counter()
    starts = [run.start() for run in runs]
    begun = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    values = {name: value.requires_grad_() for name, value in trainable(begun).items()}
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
    whole, seconds = reckoned(spent), (time.perf_counter() - began) / len(runs)
    return [
        FineTuned(
            values={name: value.detach()[place] for name, value in begun.items()},
            steps=settings.steps,
            losses=own,
            flops=None if whole is None else whole / len(runs),
            seconds=seconds,
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
