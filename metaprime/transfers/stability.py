"""Measures leave-one-out stability: the change of the loss on a sentence left out of training.

    |l(A(S without i), i) - l(A(S), i)|    in nats

This is pointwise hypothesis stability (Bousquet & Elisseeff 2002), the quantity that Fu et al.
(2023) bound. The sentence stays in its batches without labels, so that the order of the others does
not change.
"""

from __future__ import annotations

import torch
from torch.func import functional_call

from metaprime.data.rows import Row, to_device, unlabelled
from metaprime.transfers.stacked import tune
from metaprime.transfers.start import KShotRun, TransferContext, k_shot_run
from metaprime.types import Params


def leave_one_out(context: TransferContext, run: KShotRun, lr: float, tuned: Params) -> dict[str, float]:
    """Trains once more without each of the first `transfer.leave_out` sentences.

    Args:
        context: model, loss and settings.
        run: the fine-tuning on all K sentences.
        lr: its peak learning rate.
        tuned: its trained values by full name, in shapes such as (D, D).

    Returns:
        `sentences`: number of left-out sentences; means over them: `with` and `without`, the loss
        in nats after training with and without the sentence; `change`, their absolute difference.
    """
    count = context.settings.leave_out
    runs = [_without(context, run, place) for place in range(count)]
    outcomes = [outcome for _, outcome in tune(context, runs, lr)]
    left = run.rows[:count]
    inside = [_loss(context, tuned, row) for row in left]
    outside = [_loss(context, outcome.values, row) for outcome, row in zip(outcomes, left, strict=True)]
    distances = [abs(with_row - without) for with_row, without in zip(inside, outside, strict=True)]
    return {
        "sentences": count,
        "with": sum(inside) / count,
        "without": sum(outside) / count,
        "change": sum(distances) / count,
    }


def _without(context: TransferContext, run: KShotRun, place: int) -> KShotRun:
    """Returns the run without the labels of one row."""
    rows = [unlabelled(row) if index == place else row for index, row in enumerate(run.rows)]
    return k_shot_run(context, rows, run.seed, run.language)


@torch.no_grad()
def _loss(context: TransferContext, values: Params, row: Row) -> float:
    """Returns the loss on one row in nats."""
    batch = to_device(context.task.collate([row]), context.device)
    outputs = functional_call(context.model, {**context.backbone, **values}, (batch,))
    return float(context.task.loss(outputs, batch).item())
