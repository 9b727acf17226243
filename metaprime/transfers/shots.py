"""Splits K sentences into training and development rows, and draws batches and noise keys."""

from __future__ import annotations

from collections.abc import Sequence

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row
from metaprime.peft import MethodConfig, method_of
from metaprime.rng import stream
from metaprime.types import NOISE, Batch, MetaprimeError


def check_shares(settings: TransferConfig, least: int = 1) -> None:
    """Validates K, and `development_share` and `leave_out` for every K of the section `transfer`.

    Args:
        settings: the section `transfer`.
        least: the task's smallest K but 0, its number of classes.

    Raises:
        MetaprimeError: K is smaller than that, a split has no training or no development sentence, or
            `leave_out` exceeds K or is combined with `stop: development`.
    """
    for shots in settings.shots:
        if 0 < shots < least:
            raise MetaprimeError(
                f"transfer.shots {shots} is smaller than the number of classes, {least}: a sample would lack one; raise it"
            )
    if settings.leave_out and settings.stop == "development":
        raise MetaprimeError(
            "transfer.leave_out: with transfer.stop: development a left-out sentence may be a development sentence: use "
            "stop: fixed"
        )
    if settings.leave_out > min(settings.shots):
        raise MetaprimeError(
            f"transfer.leave_out {settings.leave_out} exceeds K = {min(settings.shots)} sentences: lower it"
        )
    for shots in settings.shots if settings.stop == "development" else ():
        if shots and not 0 < round(settings.development_share * shots) < shots:
            raise MetaprimeError(
                f"transfer.development_share {settings.development_share} of {shots} sentences leaves no training or no "
                "development sentence: change it, raise transfer.shots, or use transfer.stop: fixed"
            )


def check_untrained(settings: TransferConfig, methods: Sequence[MethodConfig]) -> None:
    """Validates that K = 0, where nothing is fine-tuned, does not score an adapter or head drawn at random.

    Args:
        settings: the section `transfer`.
        methods: methods of the transfers.

    Raises:
        MetaprimeError: K = 0 would score a fresh adapter or head.
    """
    if 0 not in settings.shots:
        return
    adapts = any(method_of(method).injects for method in methods)
    starts = {"adapter": settings.start_adapter if adapts else "primed", "head": settings.start_head}
    if fresh := [group for group, start in starts.items() if start == "fresh"]:
        keys = " and ".join(f"transfer.start_{group}: primed" for group in fresh)
        primed = " and ".join(f"outer.{group}: meta" for group in fresh)
        raise MetaprimeError(
            f"transfer.shots 0 fine-tunes nothing, and would score a {' and a '.join(fresh)} drawn at random: set {keys} (with "
            f"an encoder primed with {primed}), or give K of at least 1"
        )


def check_primed(settings: TransferConfig, name: str, primed: bool) -> None:
    """Validates that a primed start is asked only from a primed encoder.

    Args:
        settings: the section `transfer`.
        name: folder or hub id of the encoder, for the message.
        primed: whether it was primed.

    Raises:
        MetaprimeError: adapter or head is to start from one that was primed, and there is none.
    """
    if "primed" in (settings.start_adapter, settings.start_head) and not primed:
        raise MetaprimeError(
            f"transfer.start_adapter and start_head cannot be primed: encoder {name} was not primed by metaprime"
        )


def set_aside(rows: Sequence[Row], settings: TransferConfig, seed: int, language: str) -> tuple[list[Row], list[Row]]:
    """Splits K rows into training rows and, with `stop: development`, development rows.

    Args:
        rows: K rows.
        settings: the section `transfer`.
        seed: with `language`, draws the split.
        language: the language of the rows.

    Returns:
        Training rows and development rows, each in the order of `rows`.
    """
    if settings.stop == "fixed":
        return list(rows), []
    count = round(settings.development_share * len(rows))
    order = [int(index) for index in stream(seed, "development", language).permutation(len(rows))]
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def batches_of(count: int, settings: TransferConfig, seed: int, language: str) -> list[list[int]]:
    """Draws `settings.steps` batches of row numbers; every epoch has its own random order.

    Args:
        count: number of training rows.
        settings: the section `transfer`.
        seed: with `language`, draws the orders.
        language: the language of the rows.

    Returns:
        For each step the row numbers of its batch; a batch may span two epochs.
    """
    flat: list[int] = []
    epoch = 0
    size = min(settings.batch, count)
    while len(flat) < settings.steps * size:
        flat += [int(index) for index in stream(seed, "order", language, epoch).permutation(count)]
        epoch += 1
    return [flat[first : first + size] for first in range(0, settings.steps * size, size)]


def noise_keys(batch: Batch, seed: int, *address: str | int) -> Batch:
    """Returns a random key for each sentence, from which dropout and other noise is drawn.

    Args:
        batch: a training batch, `input_ids` (..., B, L).
        seed: seed of the keys.
        address: with `seed`, identifies the batch, such as language and step.

    Returns:
        `NOISE` (..., B) int64 on the CPU.
    """
    # Imported here: what this file validates is asked before torch is loaded.
    import torch

    shape = batch["input_ids"].shape[:-1]
    keys = stream(seed, "noise", *address).integers(2**62, size=shape)
    return {NOISE: torch.from_numpy(keys)}
