"""Decides which of K sentences are trained on, in which batches, and which are set aside."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row
from metaprime.rng import stream
from metaprime.types import NOISE, Batch, MetaprimeError


def check_shares(settings: TransferConfig) -> None:
    """Refuses, before any training, sentences to set aside or leave out that cannot be taken out of one of the K.

    Raises:
        MetaprimeError: no training or no development sentence is left, or there are fewer than are left out.
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
    """Splits K rows into those to train on and, with `stop: development`, those that choose the number of steps."""
    if settings.stop == "fixed":
        return list(rows), []
    count = round(settings.development_share * len(rows))
    order = [int(index) for index in stream(seed, "development", language).permutation(len(rows))]
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def batches_of(count: int, settings: TransferConfig, seed: int, language: str) -> list[list[int]]:
    """Draws `settings.steps` batches of row numbers, epoch after epoch, each epoch in its own order."""
    flat: list[int] = []
    epoch = 0
    size = min(settings.batch, count)
    while len(flat) < settings.steps * size:
        flat += [int(index) for index in stream(seed, "order", language, epoch).permutation(count)]
        epoch += 1
    return [flat[first : first + size] for first in range(0, settings.steps * size, size)]


def noise_keys(batch: Batch, seed: int, *address: str | int) -> Batch:
    """Returns a key for each sentence of a training batch (..., B, L), for the draws that are made in it: (..., B) int64."""
    shape = batch["input_ids"].shape[:-1]
    keys = stream(seed, "noise", *address).integers(2**62, size=shape)
    return {NOISE: torch.from_numpy(keys)}
