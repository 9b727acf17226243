"""Chooses the learning rate of transfers on the held-out languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from metaprime.config.sections import DataConfig, TransferConfig
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.transfers.held_out import Validation


def check_rates(settings: TransferConfig, data: DataConfig) -> None:
    """Raises an error if there are several learning rates but no language to choose on.

    Raises:
        MetaprimeError: `transfer.lr` lists several rates and `data.validation_languages` is empty.
    """
    several = any(len(rates) > 1 for rates in settings.all_rates)
    if any(settings.shots) and several and not data.validation_languages:
        raise MetaprimeError(
            "transfer.lr lists several rates: data.validation_languages must name languages to choose on"
        )


def choose_rates(
    rates: Sequence[float], many_shots: Sequence[int], validation: Callable[[], Validation]
) -> dict[int, float]:
    """Returns the best learning rate for each K, on the held-out languages if there is a choice.

    Args:
        rates: candidate rates.
        many_shots: every K, a number of training sentences.
        validation: reads the held-out languages; called only for several rates.

    Returns:
        K -> rate; 0 for K = 0, where nothing is fine-tuned.

    Example: `choose_rates([0.01], [4, 8], validation)` is `{4: 0.01, 8: 0.01}`.
    """
    trained = [shots for shots in many_shots if shots]
    if len(rates) == 1 or not trained:
        return {shots: rates[0] if shots else 0.0 for shots in many_shots}
    held_out = validation()
    tried = try_rates(rates, trained, held_out)
    return {shots: best_rate(tried[shots], held_out) if shots else 0.0 for shots in many_shots}


def best_rate(scores: Mapping[float, float], validation: Validation) -> float:
    """Returns the rate with the best score; the first one of a tie.

    Args:
        scores: rate -> mean headline metric.
        validation: its task says whether high or low is better.
    """
    rank = validation.context.task.kind.metric.rank
    return max(scores, key=lambda rate: rank(scores[rate]))


def try_rates(
    rates: Sequence[float], many_shots: Sequence[int], validation: Validation
) -> dict[int, dict[float, float]]:
    """Fine-tunes on the held-out languages with every K and every rate.

    Args:
        rates: candidate rates.
        many_shots: every K, a number of training sentences.
        validation: the held-out languages; its context holds theta and the primed values.

    Returns:
        K -> rate -> mean headline metric of the languages.

    Raises:
        MetaprimeError: the loss of a fine-tuning is not finite.
    """
    backbone, primed = validation.context.backbone, validation.context.primed
    tried: dict[int, dict[float, float]] = {shots: {} for shots in many_shots}
    for shots in many_shots:
        for rate in rates:
            scores = validation.scores(backbone, primed, rate, shots, sorted(validation.splits))
            tried[shots][rate] = sum(scores.values()) / len(scores)
    return tried
