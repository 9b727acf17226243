"""Scores an encoder on held-out languages, by fine-tuning on K sentences of each.

Priming keeps the weights with the best mean score, transfers the best learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from metaprime.build.data import Split, validation_rows
from metaprime.config.sections import DataConfig, TransferConfig
from metaprime.data.episodes import sample
from metaprime.tasks import Task
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.shots import check_shares
from metaprime.transfers.stacked import tune
from metaprime.transfers.start import TransferContext, k_shot_run
from metaprime.types import Params


def held_out_splits(task: Task, data: DataConfig, settings: TransferConfig) -> dict[str, Split]:
    """Reads and validates the held-out languages: `held_out_splits(task, data, settings)`.

    Args:
        task: reads and encodes the sentences.
        data: names the languages and their source.
        settings: the section `transfer`.

    Returns:
        Language -> rows.

    Raises:
        MetaprimeError: a language cannot be read or has fewer sentences than K.
    """
    languages = data.validation_languages
    most, trains = settings.test_sentences, any(settings.shots)
    splits = {language: validation_rows(task, data, language, most, trains) for language in languages}
    for language, split in splits.items():
        sample(split.train, max(settings.shots), 0, language)
    check_shares(settings, task.config.least_shots)
    return splits


@dataclass(frozen=True)
class Validation:
    """The held-out languages with the model to fine-tune on them.

    Attributes:
        context: model and settings; each call replaces its theta and primed values.
        splits: language -> rows.
        seed: seed that draws the K sentences.
    """

    context: TransferContext
    splits: Mapping[str, Split]
    seed: int

    def scores(
        self, backbone: Params, primed: Params, lr: float, shots: int, languages: Sequence[str]
    ) -> dict[str, float]:
        """Fine-tunes on K sentences of each language and scores its validation split.

        Args:
            backbone: theta by full name, in shapes such as (D, D).
            primed: adapter and head by full name, (D, D) or alike, for a primed start.
            lr: peak learning rate.
            shots: K, the number of training sentences.
            languages: languages to score, out of `splits`.

        Returns:
            Language -> headline metric.

        Raises:
            MetaprimeError: the loss of a fine-tuning is not finite.
        """
        context = replace(self.context, backbone=backbone, primed=primed)
        runs = [
            k_shot_run(
                context, sample(self.splits[name].train, shots, self.seed, name, context.task.stratum), self.seed, name
            )
            for name in languages
        ]
        scores = {}
        for run, tuned in tune(context, runs, lr):
            values = {**backbone, **tuned.values}
            scored = self.splits[run.language].scored
            scores[run.language] = evaluate(context.model, context.task, values, scored)[0].headline
        return scores

    def mean(self, backbone: Params, primed: Params, lr: float, shots: int, accelerator: Accelerator) -> float:
        """Returns the mean headline metric of all languages; each process scores a share of them.

        Args:
            backbone: theta by full name, in shapes such as (D, D).
            primed: adapter and head by full name, for a primed start.
            lr: peak learning rate.
            shots: K, the number of training sentences.
            accelerator: this process and its place among those launched together.

        Raises:
            MetaprimeError: the loss of a fine-tuning is not finite.
        """
        names = sorted(self.splits)
        mine = names[accelerator.process_index :: accelerator.num_processes]
        total = sum(self.scores(backbone, primed, lr, shots, mine).values())
        if accelerator.num_processes == 1:
            return total / len(names)
        whole = accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), reduction="sum")
        return float(whole.item()) / len(names)
