"""Trains several fine-tunings of one method over one frozen encoder in one pass: what each gives alone, in less time.

Runs are stacked as episodes are: adapter and head have a leading E, and no run's loss depends on another's
values. One optimizer over the stack is E optimizers, and gradients are clipped run by run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch

from metaprime.data.episodes import stacked
from metaprime.data.rows import longest_window, to_device
from metaprime.meta.chunks import CPU_SUBWORDS, FROZEN_PASS, GPU_SUBWORDS, cost_of_passes
from metaprime.peft.sparse.weights import CHANGE
from metaprime.runs.flops import Spent, counted, estimated_flops, subwords
from metaprime.transfers.finetune import FineTuned, add_gradients, check_losses, fine_tune, optimizer_of, project
from metaprime.transfers.shots import batches_of
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.types import trainable

AT_ONCE = 8
"""Runs that share a pass at most."""


def tune(
    context: TransferContext, runs: Sequence[KShotRun], lr: float, *, count: bool = False
) -> Iterator[tuple[KShotRun, FineTuned]]:
    """Trains runs group by group (`groups_of`), each group when its first run is asked for.

    Args:
        context: model, loss and settings.
        runs: of one method.
        lr: peak learning rate.
        count: whether FLOPs are counted.

    Yields:
        Each run with what it came to.

    Raises:
        MetaprimeError: the loss of a run is not finite; its group's other runs come before.
    """
    for group in groups_of(context, runs):
        if len(group) == 1:
            yield group[0], fine_tune(context, group[0], lr, count=count)
            continue
        pairs = list(zip(group, train_stacked(context, group, lr, count=count), strict=True))
        finite = [all(math.isfinite(loss) for loss in tuned.losses) for _, tuned in pairs]
        yield from (pair for pair, well in zip(pairs, finite, strict=True) if well)
        for run, tuned in pairs:
            check_losses(tuned.losses, run.language, lr)


def groups_of(context: TransferContext, runs: Sequence[KShotRun]) -> list[Sequence[KShotRun]]:
    """Groups neighbours that are trained in one pass, as many as `go_together`; what does not goes by itself.

    This is a function of all the runs and of nothing else: which of them are done must not be asked here.
    """
    groups: list[Sequence[KShotRun]] = []
    first = 0
    while first < len(runs):
        sizes = range(min(AT_ONCE, len(runs) - first), 1, -1)
        size = next((size for size in sizes if go_together(context, runs[first : first + size])), 1)
        groups.append(runs[first : first + size])
        first += size
    return groups


def go_together(context: TransferContext, runs: Sequence[KShotRun]) -> bool:
    """Tells if runs can share a pass, as adapters over a frozen encoder for a fixed number of steps, and take less time so."""
    model, settings = context.model, context.settings
    alike = len({min(settings.batch, len(run.rows)) for run in runs}) == 1
    if len(runs) < 2 or not alike or settings.stop != "fixed" or not len(model.adapter):
        return False
    # A change of the weights takes memory of the encoder's size for each run.
    if not model.supports_one_pass or model.noisy or CHANGE in model.adapter:
        return False
    return _pays(context, runs)


def _pays(context: TransferContext, runs: Sequence[KShotRun]) -> bool:
    """Tells if fewer passes are worth their padding.

    Each run's batches are padded to the longest of all: on a CPU that may cost more than it saves, and
    large passes save nothing; elsewhere they take memory.
    """
    settings, lengths = context.settings, []
    for run in runs:
        windows = [longest_window(row) for row in run.rows]
        batches = batches_of(len(windows), settings, run.seed, run.language)
        lengths.append([max(windows[index] for index in chosen) for chosen in batches])
    size = min(settings.batch, len(runs[0].rows))
    passes: list[int] = [size * len(runs) * max(of_all) for of_all in zip(*lengths, strict=True)]
    if context.device.type != "cpu":
        return max(passes) <= GPU_SUBWORDS
    alone = [size * length for own in lengths for length in own]
    small = sum(passes) <= CPU_SUBWORDS * len(passes)
    return small and cost_of_passes(passes, FROZEN_PASS) < cost_of_passes(alone, FROZEN_PASS)


def train_stacked(
    context: TransferContext, runs: Sequence[KShotRun], lr: float, *, count: bool = False
) -> list[FineTuned]:
    """Trains runs in one pass; an equal share of the FLOPs and of the seconds is each one's. Losses may be infinite."""
    began, settings = time.perf_counter(), context.settings
    starts = [run.start() for run in runs]
    begun = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    values = {name: value.requires_grad_() for name, value in trainable(begun).items()}
    frozen = {name: value.detach() for name, value in context.backbone.items()}
    frozen |= {name: value for name, value in begun.items() if name not in values}
    optimizer = optimizer_of(values, settings, lr, by_run=True)
    schedules = [batches_of(len(run.rows), settings, run.seed, run.language) for run in runs]
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []
    for step, chosen in enumerate(zip(*schedules, strict=True)):
        parts = [[run.rows[index] for index in own] for run, own in zip(runs, chosen, strict=True)]
        batch = to_device(stacked(parts, context.task.collate), context.device)
        losses_E, flops = counted(count and step == 0, add_gradients, context.loss, frozen, values, batch)
        losses.append(losses_E.detach())
        spent.append(Spent(subwords(batch), flops))
        optimizer.step(step)
        project(context.model, values, (step + 1) / settings.steps)
    whole, seconds = estimated_flops(spent), (time.perf_counter() - began) / len(runs)
    return [
        FineTuned(
            values={name: value.detach()[place] for name, value in begun.items()},
            steps=settings.steps,
            losses=own,
            flops=None if whole is None else whole / len(runs),
            seconds=seconds,
        )
        for place, own in enumerate(torch.stack(losses).T.tolist())
    ]
