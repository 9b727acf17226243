"""The downstream learning rate, chosen on the validation languages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metaprime.config.sections import Config
from metaprime.models.task_model import partition
from metaprime.tasks.task import Task
from metaprime.transfers.held_out import make_validation
from metaprime.transfers.start import Source, check_start, method_config
from metaprime.types import MetaprimeError


def check_rates(config: Config) -> None:
    """Refuses several learning rates without languages to choose on.

    Raises:
        MetaprimeError: saying so.
    """
    if len(config.transfer.lr) > 1 and not config.data.validation_languages:
        raise MetaprimeError(
            "transfer.lr lists several rates: data.validation_languages must name languages to choose on"
        )


def choose_rates(
    config: Config,
    source: Source,
    task: Task,
    device: torch.device,
    methods: Sequence[str] = (),
    many_shots: Sequence[int] = (),
) -> dict[tuple[str, int], float]:
    """The learning rate for each (method, K), of all or of some: the only one given, or the best of several on the
    validation languages.

    Raises:
        MetaprimeError: several are given and there is no language to choose on.
    """
    settings = config.transfer
    check_start(config, source, task)
    check_rates(config)
    methods, many_shots = methods or settings.methods, many_shots or settings.shots
    if len(settings.lr) == 1:
        return {(method, shots): settings.lr[0] for method in methods for shots in many_shots}
    chosen = {}
    for name in methods:
        for shots, tried in try_rates(config, source, task, device, name, many_shots).items():
            chosen[name, shots] = max(tried, key=lambda lr: tried[lr])
    return chosen


def try_rates(
    config: Config, source: Source, task: Task, device: torch.device, name: str, many_shots: Sequence[int]
) -> dict[int, dict[float, float]]:
    """The mean F1 of the validation languages by K and learning rate, for one method."""
    held_out = make_validation(config, source.encoder, task, method_config(config, name))
    backbone = partition(held_out.model.to(device)).backbone
    tried: dict[int, dict[float, float]] = {shots: {} for shots in many_shots}
    for shots in many_shots:
        for lr in config.transfer.lr:
            scores = held_out.scores(backbone, source.primed, lr, shots, sorted(held_out.rows))
            tried[shots][lr] = sum(scores.values()) / len(scores)
    return tried
