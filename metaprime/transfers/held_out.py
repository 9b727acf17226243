"""Scores an encoder on held-out languages: fine-tunes on K sentences of each as transfer will, predicts, averages.

Priming stops where these scores are best, and downstream learning rates are chosen by them.
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
    """Reads every held-out language, and refuses at once what fine-tuning would refuse after hundreds of steps.

    Args:
        task: reads and encodes.
        data: names the languages and their source.
        settings: the section `transfer`.

    Returns:
        The rows of each language, by its name.

    Raises:
        MetaprimeError: a language cannot be read or has fewer sentences than K.
    """
    languages = data.validation_languages
    splits = {language: validation_rows(task, data, language, settings.test_sentences) for language in languages}
    for language, split in splits.items():
        sample(split.train, max(settings.shots), 0, language)
    check_shares(settings)
    return splits


@dataclass(frozen=True)
class Validation:
    """The held-out languages, and what they are fine-tuned with.

    Attributes:
        context: the method's model; theta and the primed values in it are replaced by those to be scored.
        splits: rows by language.
        seed: draws the K sentences.
    """

    context: TransferContext
    splits: Mapping[str, Split]
    seed: int

    def scores(
        self, backbone: Params, primed: Params, lr: float, shots: int, languages: Sequence[str]
    ) -> dict[str, float]:
        """Fine-tunes on K sentences of each language and scores its validation split.

        Args:
            backbone: theta by full name.
            primed: adapter and head to start from, where the settings ask for the primed ones.
            lr: peak learning rate of the fine-tunings.
            shots: K.
            languages: some of those in `splits`.

        Returns:
            The headline metric by language.
        """
        context = replace(self.context, backbone=backbone, primed=primed)
        runs = [
            k_shot_run(context, sample(self.splits[name].train, shots, self.seed, name), self.seed, name)
            for name in languages
        ]
        scores = {}
        for run, tuned in tune(context, runs, lr):
            values = {**backbone, **tuned.values}
            scored = self.splits[run.language].scored
            scores[run.language] = evaluate(context.model, context.task, values, scored)[0].headline
        return scores

    def mean(self, backbone: Params, primed: Params, lr: float, shots: int, accelerator: Accelerator) -> float:
        """Returns the mean of `scores` over all languages; each process scores its share of them."""
        names = sorted(self.splits)
        mine = names[accelerator.process_index :: accelerator.num_processes]
        total = sum(self.scores(backbone, primed, lr, shots, mine).values())
        if accelerator.num_processes == 1:
            return total / len(names)
        whole = accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), reduction="sum")
        return float(whole.item()) / len(names)
