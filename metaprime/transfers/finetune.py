"""Ordinary fine-tuning of adapter and head on one language, theta frozen by construction: what priming prepares for.

Transfer uses it, and priming's validation does too, so that the encoder is judged by what it will be used for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row, to_device
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.optim import warmup_decay
from metaprime.rng import stream
from metaprime.runs.flops import Spent, counted, reckoned, subwords
from metaprime.tasks.task import Task
from metaprime.transfers.evaluate import evaluate, f1
from metaprime.transfers.head_only import encode_once, moves_head_alone, with_hidden
from metaprime.types import NOISE, Batch, Loss, MetaprimeError, Params, trainable

CHECKED_EVERY = 20
"""Steps after which the losses are looked at: to ask for a number is to wait for the device."""


@dataclass(frozen=True)
class FineTuned:
    """Trained values by parameter name, the steps they took, the training loss at each (nats), the FLOPs of all steps gone
    through, of which those kept may be fewer (None where they were not asked for), and its share of the seconds.
    """

    values: Params
    steps: int
    losses: list[float]
    flops: float | None
    seconds: float


def fine_tune(
    model: TaskModel,
    task: Task,
    backbone: Params,
    start: Params,
    rows: Sequence[Row],
    settings: TransferConfig,
    lr: float,
    seed: int,
    language: str,
    *,
    count: bool = False,
) -> FineTuned:
    """AdamW on a copy of `start` (adapter and head; theta too in full fine-tuning), reading `backbone`.

    With `stop: development` a share of `rows` is set aside and the values that score best on it are kept. With `count` the
    FLOPs of the first step are counted. Where the head alone is trained, the encoder reads each sentence once.

    Raises:
        MetaprimeError: the loss is not finite.
    """
    began = time.perf_counter()
    rows, development = set_aside(rows, settings, seed, language)
    values = {name: value.detach().clone().requires_grad_() for name, value in trainable(start).items()}
    choices = {name: value for name, value in start.items() if name not in values}
    frozen = {name: value.detach() for name, value in backbone.items() if name not in values} | choices
    optimizer = torch.optim.AdamW(values.values(), lr=lr, eps=1e-6, weight_decay=settings.weight_decay, fused=True)
    loss, hidden, spent_reading, read = functional_loss(model, task.measure), None, None, frozen
    if moves_head_alone(model, values):
        hidden, spent_reading = counted(count, encode_once, model, task, frozen, rows)
        # The encoder is not run again: none of its values need be put in place.
        read = {}
    device = next(iter(backbone.values())).device
    losses: list[torch.Tensor] = []
    spent: list[Spent] = []
    best: tuple[float, int, Params] | None = None
    for step, chosen in enumerate(batches_of(len(rows), settings, seed, language)):
        batch = to_device(task.collate([rows[index] for index in chosen]), device)
        if model.noisy:
            batch |= noise_keys(batch, seed, language, step)
        if hidden:
            batch = with_hidden(batch, [hidden[index] for index in chosen])
        optimizer.zero_grad(set_to_none=True)
        found, flops = counted(count and step == 0, add_gradients, loss, read, values, batch)
        spent.append(Spent(subwords(batch), flops))
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(values.values(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_decay(step, settings.steps, settings.warmup)
        optimizer.step()
        project(model, values, (step + 1) / settings.steps)
        losses.append(found.detach())
        if (step + 1) % CHECKED_EVERY == 0:
            check_losses(torch.stack(losses).tolist(), language, lr)
        if development and ((step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps):
            candidate = {name: value.detach().clone() for name, value in values.items()}
            project(model, candidate, 1.0)  # what is scored is what would be stored
            score = f1(evaluate(model, task, {**frozen, **candidate}, development)[0])
            if best is None or score > best[0]:
                best = (score, step + 1, candidate)
    each = torch.stack(losses).tolist()
    check_losses(each, language, lr)
    kept = best[2] if best else {name: value.detach() for name, value in values.items()}
    trained = reckoned(spent)
    whole = None if trained is None else trained + (spent_reading or 0)
    steps, seconds = best[1] if best else settings.steps, time.perf_counter() - began
    return FineTuned({**kept, **choices}, steps, each, whole, seconds)


def noise_keys(batch: Batch, seed: int, *address: str | int) -> Batch:
    """What a training batch (..., B, L) brings for the draws that are made in it: a key for each sentence."""
    shape = batch["input_ids"].shape[:-1]
    keys = stream(seed, "noise", *address).integers(2**62, size=shape)
    return {NOISE: torch.from_numpy(keys)}


@torch.no_grad()
def project(model: TaskModel, values: Params, done: float) -> None:
    """Brings values back to where the method allows them to be, in place; `done` is the share of all steps."""
    for name, value in model.project(values, done).items():
        values[name].copy_(value)


def check_losses(losses: Sequence[float], language: str, lr: float) -> None:
    """Refuses training losses of which one is infinite or not a number.

    Raises:
        MetaprimeError: naming language, the first such step and remedy.
    """
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise MetaprimeError(
                f"fine-tuning on language {language!r}: the loss is {loss} at step {step}; lower transfer.lr ({lr})"
            )


def add_gradients(loss: Loss, frozen: Params, values: Params, batch: Batch) -> torch.Tensor:
    """The loss, or the losses of several runs; their gradient is added to that of `values`."""
    found = loss(frozen, values, batch)
    found.sum().backward()
    return found


def check_shares(settings: TransferConfig) -> None:
    """Refuses, before any training, a development share or sentences to leave out that cannot be taken out of one of the K.

    Raises:
        MetaprimeError: it leaves no training or no development sentence, or there are fewer.
    """
    if settings.leave_out and settings.stop == "development":
        raise MetaprimeError(
            "transfer.leave_out: with transfer.stop: development a sentence may be among those that choose the number of steps: "
            "use stop: fixed"
        )
    if settings.leave_out > min(settings.shots):
        raise MetaprimeError(f"transfer.leave_out {settings.leave_out} of {min(settings.shots)} sentences: lower it")
    for shots in settings.shots if settings.stop == "development" else ():
        if not 0 < round(settings.development_share * shots) < shots:
            raise MetaprimeError(
                f"transfer.development_share {settings.development_share} of {shots} sentences leaves no training or no "
                "development sentence: change it, raise transfer.shots, or use transfer.stop: fixed"
            )


def set_aside(rows: Sequence[Row], settings: TransferConfig, seed: int, language: str) -> tuple[list[Row], list[Row]]:
    """Sentences to train on and, with `stop: development`, those that choose the number of steps."""
    if settings.stop == "fixed":
        return list(rows), []
    count = round(settings.development_share * len(rows))
    order = [int(index) for index in stream(seed, "development", language).permutation(len(rows))]
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def batches_of(count: int, settings: TransferConfig, seed: int, language: str) -> list[list[int]]:
    """`settings.steps` batches of row numbers, epoch after epoch, each epoch in its own order."""
    flat: list[int] = []
    epoch = 0
    size = min(settings.batch, count)
    while len(flat) < settings.steps * size:
        flat += [int(index) for index in stream(seed, "order", language, epoch).permutation(count)]
        epoch += 1
    return [flat[first : first + size] for first in range(0, settings.steps * size, size)]
