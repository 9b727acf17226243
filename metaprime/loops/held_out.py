"""Validation: fine-tune on held-out languages as transfer will, score, average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from metaprime.config import Config, TransferConfig
from metaprime.data.episodes import sample
from metaprime.loops.build import build_model, validation_rows
from metaprime.loops.finetune import check_shares, evaluate, f1, set_aside, to_device
from metaprime.loops.tune_together import Tuning, tune
from metaprime.meta.choice import backbone_gradients
from metaprime.models.encoder import Encoder
from metaprime.models.primable import PrimableModel, functional_loss, initial_values
from metaprime.peft import METHODS, MethodConfig
from metaprime.streams import torch_stream
from metaprime.tasks.task import Task
from metaprime.types import Params, Row


@dataclass(frozen=True)
class HeldOut:
    """The held-out languages' rows and the injected model they are fine-tuned with."""

    model: PrimableModel
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


def make_held_out(
    config: Config, encoder: Encoder, task: Task, method: MethodConfig, model: PrimableModel | None = None
) -> HeldOut:
    """Reads the languages and, unless a model with this method is at hand, builds one."""
    rows = {language: validation_rows(config, task, language) for language in config.data.validation_languages}
    if model is None:
        model = build_model(encoder, task, method, next(iter(rows.values()))[0])
    for language, (train, _) in rows.items():  # an impossible K is told now, not after the first hundred steps
        sample(train, max(config.transfer.shots), 0, language)
    check_shares(config.transfer)
    return HeldOut(model, task, config.transfer, rows, config.run.seed, METHODS[method.method].moves_backbone)


def tuning(
    model: PrimableModel,
    task: Task,
    backbone: Params,
    settings: TransferConfig,
    primed: Params,
    rows: Sequence[Row],
    seed: int,
    language: str,
    moves_backbone: bool,
) -> Tuning:
    """A fine-tuning that starts as `start_values` says, with theta if that is to move too."""

    def start() -> Params:
        values = start_values(model, task, backbone, settings, primed, rows, seed, language)
        return values | backbone if moves_backbone else values

    return Tuning(rows, seed, language, start)


def start_values(
    model: PrimableModel,
    task: Task,
    backbone: Params,
    settings: TransferConfig,
    primed: Params,
    rows: Sequence[Row],
    seed: int,
    language: str,
) -> Params:
    """Adapter and head to fine-tune from: drawn anew, or the primed ones, each as `settings` says.

    What a new adapter chooses, it chooses by the sentences it will be tuned on.
    """
    device = next(model.parameters()).device
    values: Params = {}
    for group, choice in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        drawn = initial_values(model, group, torch_stream(seed, "start", group, language))
        values |= {name: (primed[name] if choice == "primed" else value).to(device) for name, value in drawn.items()}
    if model.choose and settings.start_adapter == "fresh":
        rows, _ = set_aside(rows, settings, seed, language)
        parts = (rows[first : first + settings.batch] for first in range(0, len(rows), settings.batch))
        batches = [to_device(task.collate(part), device) for part in parts]
        loss = functional_loss(model, task.measure)
        values |= model.choose(backbone, backbone_gradients(loss, backbone, values, batches))
    return values
