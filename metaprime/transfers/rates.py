"""Chooses the downstream learning rate on the held-out languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from metaprime.config.sections import DataConfig, TransferConfig
from metaprime.transfers.held_out import Validation
from metaprime.types import MetaprimeError


def check_rates(settings: TransferConfig, data: DataConfig) -> None:
    """Refuses several learning rates without languages to choose on.

    Raises:
        MetaprimeError: `transfer.lr` lists several rates and `data.validation_languages` is empty.
    """
    if len(settings.lr) > 1 and not data.validation_languages:
        raise MetaprimeError(
            "transfer.lr lists several rates: data.validation_languages must name languages to choose on"
        )


def choose_rates(
    rates: Sequence[float], many_shots: Sequence[int], validation: Callable[[], Validation]
) -> dict[int, float]:
    """Returns the learning rate for each K: the only one given, or the best of several on the held-out languages.

    Args:
        rates: those to choose from.
        many_shots: every K.
        validation: prepares the held-out languages; it is called only if there is a choice.

    Returns:
        The rate by K.
    """
    if len(rates) == 1:
        return dict.fromkeys(many_shots, rates[0])
    held_out = validation()
    tried = try_rates(rates, many_shots, held_out)
    return {shots: best_rate(by_rate, held_out) for shots, by_rate in tried.items()}


def best_rate(scores: Mapping[float, float], validation: Validation) -> float:
    """Returns the rate with the best score, the first of several."""
    rank = validation.context.task.kind.metric.rank
    return max(scores, key=lambda rate: rank(scores[rate]))


def try_rates(
    rates: Sequence[float], many_shots: Sequence[int], validation: Validation
) -> dict[int, dict[float, float]]:
    """Returns the mean headline metric of the held-out languages, by K and learning rate."""
    backbone, primed = validation.context.backbone, validation.context.primed
    tried: dict[int, dict[float, float]] = {shots: {} for shots in many_shots}
    for shots in many_shots:
        for rate in rates:
            scores = validation.scores(backbone, primed, rate, shots, sorted(validation.splits))
            tried[shots][rate] = sum(scores.values()) / len(scores)
    return tried
