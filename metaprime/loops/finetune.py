"""Ordinary fine-tuning of adapter and head on one language, theta frozen by construction: what priming prepares for.

Transfer uses it, and priming's validation does too, so that the encoder is judged by what it will be used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

from metaprime.config import TransferConfig
from metaprime.loops.schedule import warmup_decay
from metaprime.models.primable import PrimableModel, functional_loss
from metaprime.streams import stream
from metaprime.tasks.task import Task
from metaprime.types import Batch, MetaprimeError, Params, Row

EVALUATION_BATCH = 64
"""Windows at once."""


@dataclass(frozen=True)
class FineTuned:
    """Trained values by parameter name, the steps they took, and the training loss at each (nats)."""

    values: Params
    steps: int
    losses: list[float]


def fine_tune(
    model: PrimableModel,
    task: Task,
    backbone: Params,
    start: Params,
    rows: Sequence[Row],
    settings: TransferConfig,
    lr: float,
    seed: int,
    language: str,
) -> FineTuned:
    """AdamW on a copy of `start` (adapter and head; theta too in full fine-tuning), reading `backbone`.

    With `stop: development` a share of `rows` is set aside and the values that score best on it are kept.

    Raises:
        MetaprimeError: the loss is not finite.
    """
    rows, development = _set_aside(rows, settings, seed, language)
    values = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    frozen = {name: value.detach() for name, value in backbone.items() if name not in values}
    optimizer = torch.optim.AdamW(values.values(), lr=lr, eps=1e-6, weight_decay=settings.weight_decay, fused=True)
    loss = functional_loss(model, task.measure)
    device = next(iter(backbone.values())).device
    losses: list[float] = []
    best: tuple[float, int, Params] | None = None
    for step, chosen in enumerate(_batches(len(rows), settings, seed, language)):
        batch = to_device(task.collate([rows[index] for index in chosen]), device)
        optimizer.zero_grad(set_to_none=True)
        found = loss(frozen, values, batch)
        if not torch.isfinite(found):
            raise MetaprimeError(
                f"fine-tuning on language {language!r}: the loss is {found.item()} at step {step + 1}; lower transfer.lr ({lr})"
            )
        found.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(values.values(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_decay(step, settings.steps, settings.warmup)
        optimizer.step()
        losses.append(found.item())
        if development and ((step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps):
            score = f1(evaluate(model, task, {**frozen, **values}, development)[0])
            if best is None or score > best[0]:
                best = (score, step + 1, {name: value.detach().clone() for name, value in values.items()})
    if best:
        return FineTuned(best[2], best[1], losses)
    return FineTuned({name: value.detach() for name, value in values.items()}, settings.steps, losses)


@torch.no_grad()
def evaluate(
    model: PrimableModel, task: Task, values: Params, rows: Sequence[Row]
) -> tuple[dict[str, Any], list[list[str]]]:
    """Scores and predictions (in the order of `rows`) under the given parameter values."""
    order = sorted(range(len(rows)), key=lambda index: max(len(window.input_ids) for window in rows[index].windows))
    predicted: list[list[str]] = [[] for _ in rows]
    device = next(iter(values.values())).device
    for first in range(0, len(order), EVALUATION_BATCH):
        chosen = order[first : first + EVALUATION_BATCH]
        batch = to_device(task.collate([rows[index] for index in chosen]), device)
        inputs = zip(*(batch[name].split(EVALUATION_BATCH) for name in ("input_ids", "attention_mask")), strict=True)
        logits_BLC = torch.cat([functional_call(model, values, pair) for pair in inputs])
        for index, tags in zip(chosen, task.decode(logits_BLC, [rows[i] for i in chosen]), strict=True):
            predicted[index] = tags
    return task.score(rows, predicted), predicted


def f1(scores: dict[str, Any]) -> float:
    """The score that models are chosen by: overall lenient F1, per cent."""
    return float(scores["lenient"]["overall"]["f1"])


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def check_shares(settings: TransferConfig) -> None:
    """Refuses, before any training, a development share that cannot be taken out of one of the K.

    Raises:
        MetaprimeError: it leaves no training or no development sentence.
    """
    for shots in settings.shots if settings.stop == "development" else ():
        if not 0 < round(settings.development_share * shots) < shots:
            raise MetaprimeError(
                f"transfer.development_share {settings.development_share} of {shots} sentences leaves no training or no "
                "development sentence: change it, raise transfer.shots, or use transfer.stop: fixed"
            )


def _set_aside(rows: Sequence[Row], settings: TransferConfig, seed: int, language: str) -> tuple[list[Row], list[Row]]:
    if settings.stop == "fixed":
        return list(rows), []
    count = round(settings.development_share * len(rows))
    order = [int(index) for index in stream(seed, "development", language).permutation(len(rows))]
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def _batches(count: int, settings: TransferConfig, seed: int, language: str) -> list[list[int]]:
    """`settings.steps` batches of row numbers, epoch after epoch, each epoch in its own order."""
    flat: list[int] = []
    epoch = 0
    size = min(settings.batch, count)
    while len(flat) < settings.steps * size:
        flat += [int(index) for index in stream(seed, "order", language, epoch).permutation(count)]
        epoch += 1
    return [flat[first : first + size] for first in range(0, settings.steps * size, size)]
