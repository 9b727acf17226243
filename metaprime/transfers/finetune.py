"""Fine-tunes adapter and head on K sentences of one language, with theta frozen: what priming prepares for.

Transfer uses it, and so does priming's validation, so that an encoder is judged by what it will be used for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row, to_device
from metaprime.models.task_model import TaskModel
from metaprime.optim import ScheduledAdamW, adamw
from metaprime.runs.flops import Spent, counted, estimated_flops, subwords
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.head_only import encode_once, moves_head_alone, with_encoded
from metaprime.transfers.shots import batches_of, noise_keys, set_aside
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.types import Batch, Loss, MetaprimeError, Params, trainable

CHECKED_EVERY = 20
"""Steps between two checks of the losses: to ask for a number is to wait for the device."""


@dataclass(frozen=True)
class FineTuned:
    """What one fine-tuning came to.

    Attributes:
        values: trained values by parameter name, and the integer tensors among those it started from.
        steps: that led to these values.
        losses: training loss at each step (nats).
        flops: of all steps, of which those kept may be fewer; None where they were not counted.
        seconds: its share of the time.
    """

    values: Params
    steps: int
    losses: list[float]
    flops: float | None
    seconds: float


def fine_tune(context: TransferContext, run: KShotRun, lr: float, *, count: bool = False) -> FineTuned:
    """Trains a copy of the values that a run starts from.

    With `stop: development` a share of the rows is set aside, and the values that score best on it are
    kept. Where the head alone is trained, the encoder reads each sentence once.

    Args:
        context: model, loss and settings.
        run: sentences and start.
        lr: peak learning rate.
        count: whether FLOPs are counted, in the first step.

    Raises:
        MetaprimeError: the loss is not finite.
    """
    began, settings = time.perf_counter(), context.settings
    rows, development = set_aside(run.rows, settings, run.seed, run.language)
    values, frozen = values_to_train(context, run.start())
    optimizer = optimizer_of(values, settings, lr)
    sentences, read, reading = _sentences(context, rows, values, frozen, count)
    best = _Best(context, frozen, development)
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []
    for step, chosen in enumerate(batches_of(len(rows), settings, run.seed, run.language)):
        batch = sentences.batch(chosen)
        if context.model.noisy:
            batch |= noise_keys(batch, run.seed, run.language, step)
        loss, flops = counted(count and step == 0, add_gradients, context.loss, read, values, batch)
        optimizer.step(step)
        project(context.model, values, (step + 1) / settings.steps)
        losses.append(loss.detach())
        spent.append(Spent(subwords(batch), flops))
        if (step + 1) % CHECKED_EVERY == 0:
            check_losses(torch.stack(losses).tolist(), run.language, lr)
        best.look(step, values)
    each = torch.stack(losses).tolist()
    check_losses(each, run.language, lr)
    kept = best.values or {name: value.detach() for name, value in values.items()}
    trained = estimated_flops(spent)
    return FineTuned(
        values={**kept, **{name: value for name, value in frozen.items() if name.startswith("adapter.")}},
        steps=best.steps or settings.steps,
        losses=each,
        flops=None if trained is None else trained + reading,
        seconds=time.perf_counter() - began,
    )


def values_to_train(context: TransferContext, start: Params) -> tuple[Params, Params]:
    """Returns copies of the values to train, and all values that stay as they are: theta and integer tensors."""
    values = {name: value.detach().clone().requires_grad_() for name, value in trainable(start).items()}
    frozen = {name: value.detach() for name, value in context.backbone.items() if name not in values}
    return values, frozen | {name: value for name, value in start.items() if name not in values}


def optimizer_of(values: Params, settings: TransferConfig, lr: float, *, by_run: bool = False) -> ScheduledAdamW:
    """Returns the optimizer of a fine-tuning, or of several that share a pass (`by_run`)."""
    group = {"params": values.values(), "peak": lr, "weight_decay": settings.weight_decay}
    return ScheduledAdamW(adamw([group]), settings.steps, settings.warmup, settings.clip, by_run)


@dataclass(frozen=True)
class _Sentences:
    """Training rows as batches; with what the encoder says of each, if that never changes."""

    context: TransferContext
    rows: Sequence[Row]
    encoded: list[list[torch.Tensor]] | None

    def batch(self, chosen: Sequence[int]) -> Batch:
        batch = to_device(self.context.task.collate([self.rows[index] for index in chosen]), self.context.device)
        return with_encoded(batch, [self.encoded[index] for index in chosen]) if self.encoded else batch


def _sentences(
    context: TransferContext, rows: Sequence[Row], values: Params, frozen: Params, count: bool
) -> tuple[_Sentences, Params, int]:
    """Returns the training rows, the frozen values that a step needs, and FLOPs of encoding."""
    if not moves_head_alone(context.model, values):
        return _Sentences(context, rows, None), frozen, 0
    encoded, flops = counted(count, encode_once, context.model, context.task, frozen, rows)
    # The encoder is not run again: none of its values need be put in place.
    return _Sentences(context, rows, encoded), {}, flops or 0


@dataclass
class _Best:
    """The values that score best on the development rows; without such rows, none."""

    context: TransferContext
    frozen: Params
    development: Sequence[Row]
    values: Params = field(default_factory=dict)
    steps: int = 0
    score: float = -math.inf

    def look(self, step: int, values: Params) -> None:
        """Scores the values after a step, if it is time."""
        settings = self.context.settings
        if not self.development or ((step + 1) % settings.evaluate_every and step + 1 != settings.steps):
            return
        candidate = {name: value.detach().clone() for name, value in values.items()}
        # What is scored is what would be stored.
        project(self.context.model, candidate, 1.0)
        everything = {**self.frozen, **candidate}
        scores, _ = evaluate(self.context.model, self.context.task, everything, self.development)
        score = self.context.task.kind.metric.rank(scores.headline)
        if score > self.score:
            self.values, self.steps, self.score = candidate, step + 1, score


@torch.no_grad()
def project(model: TaskModel, values: Params, done: float) -> None:
    """Brings values back to where the method allows them to be, in place; `done` is the share of all steps."""
    for name, value in model.project(values, done).items():
        values[name].copy_(value)


def check_losses(losses: Sequence[float], language: str, lr: float) -> None:
    """Refuses training losses of which one is not finite.

    Raises:
        MetaprimeError: one is not; the message names language, step and remedy.
    """
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise MetaprimeError(
                f"fine-tuning on language {language!r}: the loss is {loss} at step {step}; lower transfer.lr ({lr})"
            )


def add_gradients(loss: Loss, frozen: Params, values: Params, batch: Batch) -> torch.Tensor:
    """Adds the gradient of the loss, or of the sum of several runs' losses, to that of `values`; returns the loss."""
    found = loss(frozen, values, batch)
    found.sum().backward()
    return found
