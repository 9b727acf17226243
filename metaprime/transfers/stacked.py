"""Trains several fine-tunings of one method in one pass of the frozen encoder, to save time.

Adapter and head have a leading E, and the loss of a run depends on its own values only. One
optimizer over the stack acts as E optimizers, and gradients are clipped run by run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch

from metaprime.data.episodes import stacked
from metaprime.data.rows import to_device
from metaprime.meta.chunks import CPU_SUBWORDS, GPU_SUBWORDS, PassSize, cost_of_passes
from metaprime.packing import positions
from metaprime.peft.sparse.weights import CHANGE
from metaprime.runs.flops import Spent, counted, estimated_flops
from metaprime.transfers.finetune import FineTuned, add_gradients, check_losses, fine_tune, optimizer_of, project
from metaprime.transfers.shots import batches_of
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.types import trainable

AT_ONCE = 8
"""Largest number of runs that share a pass."""


def tune(
    context: TransferContext, runs: Sequence[KShotRun], lr: float, *, count: bool = False
) -> Iterator[tuple[KShotRun, FineTuned]]:
    """Trains runs lazily, group by group: `for run, tuned in tune(context, runs, lr)`.

    Args:
        context: model, loss and settings.
        runs: fine-tunings of one method.
        lr: peak learning rate.
        count: whether to count FLOPs.

    Yields:
        Each run with its result.

    Raises:
        MetaprimeError: a loss is not finite; the finite runs of the group are yielded first.
    """
    for group in groups_of(context, runs):
        if len(group) == 1:
            yield group[0], fine_tune(context, group[0], lr, count=count)
            continue
        pairs = list(zip(group, train_stacked(context, group, lr, count=count), strict=True))
        finite = [all(math.isfinite(loss) for loss in tuned.losses) for _, tuned in pairs]
        yield from (pair for pair, is_finite in zip(pairs, finite, strict=True) if is_finite)
        for run, tuned in pairs:
            check_losses(tuned.losses, run.language, lr)


def groups_of(context: TransferContext, runs: Sequence[KShotRun]) -> list[Sequence[KShotRun]]:
    """Groups consecutive runs that share a pass (`go_together`); the others are groups of one.

    The grouping must depend on the runs only, and not on which of them are finished already.
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
    """Returns True if runs can share a pass and are faster in it.

    They need rows, an adapter over a frozen encoder, a fixed number of steps and batches of one size.
    """
    model, settings = context.model, context.settings
    sizes = {min(settings.batch, len(run.rows)) for run in runs}
    if len(runs) < 2 or len(sizes) > 1 or 0 in sizes or settings.stop != "fixed" or not len(model.adapter):
        return False
    # A sparse change of the weights needs a copy of the encoder's weights for each run.
    if not model.supports_one_pass or model.noisy or CHANGE in model.adapter:
        return False
    return _pays(context, runs)


def _pays(context: TransferContext, runs: Sequence[KShotRun]) -> bool:
    """Returns True if sharing passes saves more time than its padding costs.

    Where batches are padded, all of a step are padded to the longest. On a CPU that may cost more than
    it saves, and large passes save nothing; on a GPU large passes take memory.
    """
    settings, packed, alone = context.settings, context.model.packed, list[list[PassSize]]()
    for run in runs:
        batches = batches_of(len(run.rows), settings, run.seed, run.language)
        lengths = [[len(window.input_ids) for window in row.windows] for row in run.rows]
        alone.append([PassSize.of([each for index in chosen for each in lengths[index]]) for chosen in batches])
    shared = [PassSize.shared(sizes).positions(packed) for sizes in zip(*alone, strict=True)]
    if context.device.type != "cpu":
        return max(shared) <= GPU_SUBWORDS
    small = sum(shared) <= CPU_SUBWORDS * len(shared)
    single = [size.positions(packed) for sizes in alone for size in sizes]
    return small and cost_of_passes(shared) < cost_of_passes(single)


def train_stacked(
    context: TransferContext, runs: Sequence[KShotRun], lr: float, *, count: bool = False
) -> list[FineTuned]:
    """Trains E runs in one pass for each step; losses are not checked.

    Args:
        context: model, loss and settings.
        runs: E runs for which `go_together` is True.
        lr: peak learning rate.
        count: whether to count FLOPs, in the first step.

    Returns:
        The result of each run, with an equal share of FLOPs and seconds.
    """
    # Stack the starting values.
    began, settings = time.perf_counter(), context.settings
    starts = [run.start() for run in runs]
    stack = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    values = {name: value.requires_grad_() for name, value in trainable(stack).items()}
    frozen = {name: value.detach() for name, value in context.backbone.items()}
    frozen |= {name: value for name, value in stack.items() if name not in values}

    # Train.
    optimizer = optimizer_of(values, settings, lr, by_run=True)
    schedules = [batches_of(len(run.rows), settings, run.seed, run.language) for run in runs]
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []
    for step, chosen in enumerate(zip(*schedules, strict=True)):
        parts = [[run.rows[index] for index in indices] for run, indices in zip(runs, chosen, strict=True)]
        batch = to_device(stacked(parts, context.task.collate), context.device)
        losses_E, flops = counted(count and step == 0, add_gradients, context.loss, frozen, values, batch)
        losses.append(losses_E.detach())
        spent.append(Spent(positions(batch, context.model.packed), flops))
        optimizer.step(step)
        project(context.model, values, (step + 1) / settings.steps)

    # Unstack the results.
    whole, seconds = estimated_flops(spent), (time.perf_counter() - began) / len(runs)
    return [
        FineTuned(
            values={name: value.detach()[place] for name, value in stack.items()},
            steps=settings.steps,
            losses=losses_of_run,
            flops=None if whole is None else whole / len(runs),
            seconds=seconds,
        )
        for place, losses_of_run in enumerate(torch.stack(losses).T.tolist())
    ]
