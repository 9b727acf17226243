"""Watches a priming run for harm that no loss shows: equal hidden states, an inner loop that does not learn, worse scores.

An outer rate that is too high makes the hidden states of all words equal within a few meta-steps. The
query loss then settles at that of the most frequent label and looks healthy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.meta import InnerLoop, Way
from metaprime.meta.execution import computed
from metaprime.meta.maml import adapt
from metaprime.meta.selection import select_weights
from metaprime.models.task_model import TaskModel
from metaprime.priming.guards import REMEDY, Diverged
from metaprime.types import Batch, Episodes, Loss, Params

EARLY, EVERY = (1, 5, 10), 20
"""Meta-steps after which a run is checked: the first ones, and every twentieth."""

PROBED = 16
"""Sentences whose hidden states are compared."""

ALIKE = 0.2
"""A spread below this share of the unprimed encoder's is a collapse."""

LEARNED = 0.05
"""Support loss in nats below which nothing is left to learn."""

WORSE = 0.5
"""A held-out score below this share of the unprimed encoder's is a collapse."""

log = logging.getLogger(__name__)


def is_due(step: int) -> bool:
    """Returns True if a run is checked after a meta-step, counted from 0: `is_due(0)`."""
    return step + 1 in EARLY or (step + 1) % EVERY == 0


@torch.no_grad()
def spread(model: TaskModel, batch: Batch) -> float:
    """Returns 1 minus the mean cosine between the features of two different sub-words of a batch.

    Args:
        model: encoder and adapter at their own values.
        batch: tensors (B, L).

    Example: `spread(model, task.collate(rows))` is 0 for an encoder that gives every word the same features.
    """
    features_BLD = model.encode(batch).float()
    unit_ND = torch.nn.functional.normalize(features_BLD[batch["attention_mask"].bool()], dim=-1)
    count = len(unit_ND)
    # The squared norm of the sum holds each pair twice and each vector's product with itself, 1.
    pairs = unit_ND.double().sum(0).square().sum() - count
    return float(1 - pairs / (count * (count - 1)))


def same_support(
    loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss of the first episode's first support batch before and after n inner steps on it alone.

    A meta-step's own support losses before and after are of different sentences where each inner step
    draws fresh ones.

    Args:
        loss: as in `MetaStep`.
        backbone: theta by full name, in shapes such as (D, D).
        start: phi and head, each (T, ...).
        episodes: T episodes with at least one support batch of tensors (T, B, L).
        inner: the inner loop.

    Returns:
        Both losses in nats, each ().
    """
    first = {name: value[:1] for name, value in start.items()}
    batch = {name: value[:1] for name, value in episodes.support[0].items()}
    plain = replace(inner, second_order=False).executed(way=Way.LOOP)
    chosen = select_weights(loss, backbone, first, [batch], plain)
    fast, losses = adapt(loss, backbone, chosen, [batch] * len(episodes.support), plain)
    shared = {} if "backbone" in plain.moves else backbone
    with torch.no_grad():
        after_T = computed(loss, plain).losses(shared, fast, batch)
    return losses[0].mean().detach(), after_T.mean().detach()


@dataclass
class Watch:
    """The checks of a run and their verdicts in a row. Checkpoints hold `bad`, which may stop the run.

    Attributes:
        batch: sentences whose features are compared, tensors (B, L).
        unprimed: their spread under the unprimed encoder.
        patience: bad verdicts in a row that stop the run; None: none does.
        shown: whether this process logs.
        bad: kind of check -> bad verdicts in a row.
    """

    batch: Batch
    unprimed: float
    patience: int | None
    shown: bool = True
    bad: dict[str, int] = field(default_factory=dict)

    def restore(self, bad: Mapping[str, int]) -> None:
        """Restores the verdicts in a row from a checkpoint."""
        self.bad = dict(bad)

    def features(self, model: TaskModel, step: int) -> dict[str, Any]:
        """Compares the spread of features with the unprimed encoder's.

        Args:
            model: encoder and adapter at their own values, after meta-step `step`.
            step: meta-step, counted from 0.

        Returns:
            Entries for the step's line of metrics.jsonl.

        Raises:
            Diverged: the features have been alike for `patience` checks.
        """
        now = spread(model, self.batch)
        text = (
            f"the hidden states of different words are alike, their mean cosine is {1 - now:.2f} and was "
            f"{1 - self.unprimed:.2f} before priming"
        )
        self._judge("features", now < ALIKE * self.unprimed, text, step)
        return {"spread": now}

    def support(self, before: float, after: float, step: int) -> dict[str, Any]:
        """Compares the loss of one support batch before and after an inner loop on it.

        Args:
            before, after: losses in nats.
            step: meta-step, counted from 0.

        Returns:
            Entries for the step's line of metrics.jsonl.

        Raises:
            Diverged: the loss has not fallen for `patience` checks.
        """
        text = f"the inner loop does not lower the loss of its own support sentences ({before:.3f} -> {after:.3f})"
        self._judge("support", after >= before > LEARNED, text, step)
        return {"same_support_before": before, "same_support_after": after}

    def held_out(self, rank: Callable[[float], float], scores: tuple[float, float], step: int) -> None:
        """Compares a held-out score with that of the unprimed encoder.

        Args:
            rank: returns a number that is higher for better scores.
            scores: of the unprimed encoder and of this step.
            step: meta-step, counted from 0.

        Raises:
            Diverged: the score has been far below for `patience` validations.
        """
        text = f"the held-out score {scores[1]:.1f} is below that of the unprimed encoder, {scores[0]:.1f}"
        before, now = map(rank, scores)
        if now < before and self.shown and not self.bad.get("held-out"):
            log.warning("step %d: %s", step + 1, text)
        self._judge("held-out", now < before - (1 - WORSE) * abs(before), text, step, said=True)

    def _judge(self, kind: str, is_bad: bool, text: str, step: int, said: bool = False) -> None:
        """Counts a verdict, logs the first bad one, and stops the run after `patience` of them in a row."""
        self.bad[kind] = self.bad.get(kind, 0) + 1 if is_bad else 0
        if not is_bad:
            return
        if self.patience and self.bad[kind] >= self.patience:
            raise Diverged(
                f"step {step + 1}: {text}, at {self.bad[kind]} checks in a row; {REMEDY}, outer.patience sets how many are "
                "waited for"
            )
        if self.bad[kind] == 1 and self.shown and not said:
            log.warning("step %d: %s: %s", step + 1, text, REMEDY.partition(";")[0])


def over_processes(accelerator: Accelerator, values: Sequence[torch.Tensor]) -> list[float]:
    """Returns the mean of each value, a tensor (), over all processes: `over_processes(accelerator, losses)`."""
    stacked = torch.stack([value.double() for value in values])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, reduction="mean")
    return [float(value) for value in stacked]
