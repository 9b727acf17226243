"""Fine-tunes adapter and head on K sentences of one language, with theta frozen.

Transfers and the validation of priming share it, so that validation measures what transfer does.
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
from metaprime.packing import positions
from metaprime.runs.flops import Spent, counted, estimated_flops
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.head_only import encode_once, moves_head_alone, with_encoded
from metaprime.transfers.shots import batches_of, noise_keys, set_aside
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.types import Batch, Loss, MetaprimeError, Params, trainable

CHECKED_EVERY = 20
"""Steps between two checks of the losses, because each check waits for the device."""


@dataclass(frozen=True)
class FineTuned:
    """The result of one fine-tuning.

    Attributes:
        values: trained values and integer tensors by full name, in shapes such as (D, D).
        steps: steps that led to these values.
        losses: training loss in nats at each step.
        flops: FLOPs of all steps, including those after the best one; None if not counted.
        seconds: duration; in a shared pass, an equal share of it.
    """

    values: Params
    steps: int
    losses: list[float]
    flops: float | None
    seconds: float


def fine_tune(context: TransferContext, run: KShotRun, lr: float, *, count: bool = False) -> FineTuned:
    """Trains a copy of the starting values of a run: `fine_tune(context, run, 1e-2).values`.

    With `stop: development` part of the rows becomes a development set, and the values with the
    best score on it are returned. For head tuning the encoder encodes each sentence once. Without
    rows (K = 0) the starting values are returned.

    Args:
        context: model, loss and settings.
        run: sentences and starting values.
        lr: peak learning rate.
        count: whether to count FLOPs, in the first step.

    Raises:
        MetaprimeError: the loss is not finite.
    """
    if not run.rows:
        return _untrained(context, run)
    # Split the rows and prepare values, optimizer and sentences.
    began, settings = time.perf_counter(), context.settings
    rows, development = set_aside(run.rows, settings, run.seed, run.language)
    values, frozen = values_to_train(context, run.start())
    optimizer = optimizer_of(values, settings, lr)
    sentences, read, reading = _sentences(context, rows, values, frozen, count)
    best = _Best(context, frozen, development)
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []

    # Train.
    for step, chosen in enumerate(batches_of(len(rows), settings, run.seed, run.language)):
        batch = sentences.batch(chosen)
        if context.model.noisy:
            batch |= noise_keys(batch, run.seed, run.language, step)
        loss, flops = counted(count and step == 0, add_gradients, context.loss, read, values, batch)
        optimizer.step(step)
        project(context.model, values, (step + 1) / settings.steps)
        losses.append(loss.detach())
        spent.append(Spent(positions(batch, context.model.packed), flops))
        if (step + 1) % CHECKED_EVERY == 0:
            check_losses(torch.stack(losses).tolist(), run.language, lr)
        best.look(step, values)

    # Return the best values, or the last.
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


def _untrained(context: TransferContext, run: KShotRun) -> FineTuned:
    """Returns the starting values as they would be stored: the result for K = 0."""
    began = time.perf_counter()
    values = {name: value.detach().clone() for name, value in run.start().items()}
    project(context.model, values, 1.0)
    return FineTuned(values, steps=0, losses=[], flops=0.0, seconds=time.perf_counter() - began)


def values_to_train(context: TransferContext, start: Params) -> tuple[Params, Params]:
    """Returns the values to train, copied, and the frozen values: theta and integer tensors.

    Args:
        context: holds theta.
        start: starting values by full name, in shapes such as (D, D); theta's too if it is trained.
    """
    values = {name: value.detach().clone().requires_grad_() for name, value in trainable(start).items()}
    frozen = {name: value.detach() for name, value in context.backbone.items() if name not in values}
    return values, frozen | {name: value for name, value in start.items() if name not in values}


def optimizer_of(values: Params, settings: TransferConfig, lr: float, *, by_run: bool = False) -> ScheduledAdamW:
    """Returns the optimizer of a fine-tuning, or of several that share a pass.

    Args:
        values: values to train by full name; with `by_run` each has a leading E: (E, ...).
        settings: the section `transfer`.
        lr: peak learning rate of adapter and theta, and of the head without `transfer.head_lr`.
        by_run: whether to clip the gradients of each of the E runs separately.
    """
    heads = [value for name, value in values.items() if name.startswith("head.")]
    others = [value for name, value in values.items() if not name.startswith("head.")]
    # Head tuning has one rate; so has the head beside an adapter unless it has a rate of its own.
    at_rates = [(others, lr), (heads, settings.head_lr)] if settings.head_lr and others else [(values.values(), lr)]
    groups = [{"params": each, "peak": peak, "weight_decay": settings.weight_decay} for each, peak in at_rates if each]
    return ScheduledAdamW(adamw(groups), settings.steps, settings.warmup, settings.clip, by_run)


@dataclass(frozen=True)
class _Sentences:
    """Training rows, with the encoder's output for each if it is constant."""

    context: TransferContext
    rows: Sequence[Row]
    encoded: list[list[torch.Tensor]] | None

    def batch(self, chosen: Sequence[int]) -> Batch:
        """Returns the batch of the rows with these numbers."""
        batch = to_device(self.context.task.collate([self.rows[index] for index in chosen]), self.context.device)
        return with_encoded(batch, [self.encoded[index] for index in chosen]) if self.encoded else batch


def _sentences(
    context: TransferContext, rows: Sequence[Row], values: Params, frozen: Params, count: bool
) -> tuple[_Sentences, Params, int]:
    """Returns the training rows, the frozen values that a step reads, and the FLOPs of encoding."""
    if not moves_head_alone(context.model, values):
        return _Sentences(context, rows, None), frozen, 0
    encoded, flops = counted(count, encode_once, context.model, context.task, frozen, rows)
    # The encoder is not run again, so that no step reads its values.
    return _Sentences(context, rows, encoded), {}, flops or 0


@dataclass
class _Best:
    """The values with the best score on the development rows; empty without such rows."""

    context: TransferContext
    frozen: Params
    development: Sequence[Row]
    values: Params = field(default_factory=dict)
    steps: int = 0
    score: float = -math.inf

    def look(self, step: int, values: Params) -> None:
        """Scores the values after a step, if an evaluation is due, and keeps the best."""
        settings = self.context.settings
        if not self.development or ((step + 1) % settings.evaluate_every and step + 1 != settings.steps):
            return
        candidate = {name: value.detach().clone() for name, value in values.items()}
        # Score the values as they would be stored, with the constraint fully applied.
        project(self.context.model, candidate, 1.0)
        everything = {**self.frozen, **candidate}
        scores, _ = evaluate(self.context.model, self.context.task, everything, self.development)
        score = self.context.task.kind.metric.rank(scores.headline)
        if score > self.score:
            self.values, self.steps, self.score = candidate, step + 1, score


@torch.no_grad()
def project(model: TaskModel, values: Params, done: float) -> None:
    """Projects values onto the constraint of the method, in place.

    Args:
        model: its adapter defines the constraint, if any.
        values: values by full name, in shapes such as (D, D), or (E, D, D) for E runs.
        done: share of the steps done, from 0 to 1.
    """
    for name, value in model.project(values, done).items():
        values[name].copy_(value)


def check_losses(losses: Sequence[float], language: str, lr: float) -> None:
    """Raises an error if a training loss is not finite: `check_losses(losses, "qaa", 1e-2)`.

    Raises:
        MetaprimeError: a loss is not finite; the message names language, step and remedy.
    """
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise MetaprimeError(
                f"fine-tuning on language {language!r}: the loss is {loss} at step {step}; lower transfer.lr ({lr})"
            )


def add_gradients(loss: Loss, frozen: Params, values: Params, batch: Batch) -> torch.Tensor:
    """Computes the loss and adds its gradient to `values`.

    Args:
        loss: `loss(frozen, values, batch)` in nats.
        frozen: theta and integer tensors by full name, in shapes such as (D, D).
        values: trained values by full name; (E, ...) for E runs that share the pass.
        batch: tensors (B, L); (E, B, L) for E runs.

    Returns:
        The loss, () or (E,).
    """
    losses = loss(frozen, values, batch)
    losses.sum().backward()
    return losses
