"""Leave-one-out stability of a fine-tuning: how far the loss on a sentence moves when training goes without it.

|l(A(S without i), i) - l(A(S), i)|, nats: pointwise hypothesis stability (Bousquet & Elisseeff 2002), the quantity that Fu et al.
(2023) bound. The sentence stays in its batches and gives no loss, so that every other sentence comes when it came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row, to_device, unlabelled
from metaprime.models.task_model import TaskModel
from metaprime.tasks.task import Task
from metaprime.transfers.stacked import KShotRun, tune
from metaprime.transfers.start import tuning
from metaprime.types import Params


@dataclass(frozen=True)
class LeavingOut:
    """One fine-tuning's ingredients but its sentences, as `fine_tune` takes them."""

    model: TaskModel
    task: Task
    backbone: Params
    settings: TransferConfig
    lr: float
    primed: Params
    seed: int
    language: str

    def loss_change(self, rows: Sequence[Row], tuned: Params) -> dict[str, float]:
        """Means over `settings.leave_out` of the sentences, the first of them. `tuned` is what all of them gave.

        `with`, `without`: the loss (nats) on a sentence that was trained on, and on the same that was not; `change`: the mean
        of the distance.
        """
        count = self.settings.leave_out
        moves_backbone = any(name.startswith("backbone.") for name in tuned)
        runs = [self._without(rows, place, moves_backbone) for place in range(count)]
        found = [tuned for _, tuned in tune(self.model, self.task, self.backbone, runs, self.settings, self.lr)]
        inside = [self._loss(tuned, rows[place]) for place in range(count)]
        outside = [self._loss(one.values, row) for one, row in zip(found, rows[:count], strict=True)]
        distances = [abs(one - other) for one, other in zip(inside, outside, strict=True)]
        return {
            "sentences": count,
            "with": sum(inside) / count,
            "without": sum(outside) / count,
            "change": sum(distances) / count,
        }

    def _without(self, rows: Sequence[Row], place: int, moves_backbone: bool) -> KShotRun:
        left = [unlabelled(row) if index == place else row for index, row in enumerate(rows)]
        given = (self.model, self.task, self.backbone, self.settings, self.primed)
        return tuning(*given, left, self.seed, self.language, moves_backbone)

    @torch.no_grad()
    def _loss(self, values: Params, row: Row) -> float:
        batch = to_device(self.task.collate([row]), next(iter(self.backbone.values())).device)
        outputs = functional_call(self.model, {**self.backbone, **values}, (batch,))
        return float(self.task.measure(outputs, batch).item())
