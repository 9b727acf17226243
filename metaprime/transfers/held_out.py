"""Validation: fine-tune on held-out languages as transfer will, score, average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from metaprime.build.data import validation_rows
from metaprime.build.model import build_model
from metaprime.config.sections import Config, TransferConfig
from metaprime.data.episodes import sample
from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder
from metaprime.models.task_model import TaskModel
from metaprime.peft import METHODS, MethodConfig
from metaprime.tasks.task import Task
from metaprime.transfers.evaluate import evaluate, f1
from metaprime.transfers.finetune import check_shares
from metaprime.transfers.stacked import tune
from metaprime.transfers.start import tuning
from metaprime.types import Params


@dataclass(frozen=True)
class Validation:
    """The held-out languages' rows and the injected model they are fine-tuned with."""

    model: TaskModel
    task: Task
    settings: TransferConfig
    rows: dict[str, tuple[list[Row], list[Row]]]
    seed: int
    moves_backbone: bool

    def scores(self, backbone: Params, primed: Params, lr: float, shots: int, languages: list[str]) -> dict[str, float]:
        """Overall lenient F1 (per cent) by language, on its validation split, after K-shot fine-tuning."""
        runs = []
        for language in languages:
            rows = sample(self.rows[language][0], shots, self.seed, language)
            given = (self.model, self.task, backbone, self.settings, primed)
            runs.append(tuning(*given, rows, self.seed, language, self.moves_backbone))
        scores = {}
        for run, tuned in tune(self.model, self.task, backbone, runs, self.settings, lr):
            values, scored = {**backbone, **tuned.values}, self.rows[run.language][1]
            scores[run.language] = f1(evaluate(self.model, self.task, values, scored)[0])
        return scores

    def mean(self, backbone: Params, primed: Params, lr: float, shots: int, accelerator: Accelerator) -> float:
        """Mean over the languages, each scored by one process."""
        names = sorted(self.rows)
        mine = names[accelerator.process_index :: accelerator.num_processes]
        total = sum(self.scores(backbone, primed, lr, shots, mine).values())
        if accelerator.num_processes == 1:
            return total / len(names)
        whole = accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), reduction="sum")
        return float(whole.item()) / len(names)


def make_validation(
    config: Config, encoder: Encoder, task: Task, method: MethodConfig, model: TaskModel | None = None
) -> Validation:
    """Reads the languages and, unless a model with this method is at hand, builds one."""
    rows = {language: validation_rows(config, task, language) for language in config.data.validation_languages}
    if model is None:
        model = build_model(encoder, task, method, next(iter(rows.values()))[0])
    for language, (train, _) in rows.items():  # an impossible K is told now, not after the first hundred steps
        sample(train, max(config.transfer.shots), 0, language)
    check_shares(config.transfer)
    return Validation(model, task, config.transfer, rows, config.run.seed, METHODS[method.method].moves_backbone)
