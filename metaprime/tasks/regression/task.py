"""Defines regression: one text or a pair of texts has a number, such as the likeness of two sentences (STS-B).

Shape suffixes: B texts, L sub-words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from metaprime.data.rows import Example, Row, collate
from metaprime.models.task_model import TaskModel
from metaprime.tasks.head import LinearHead
from metaprime.tasks.outputs import outputs_of
from metaprime.tasks.regression import audit, scores
from metaprime.tasks.regression.reading import examine
from metaprime.tasks.regression.settings import MetricName, RegressionConfig
from metaprime.tasks.task import Plain, Task, TaskKind, Text
from metaprime.tasks.texts.encoding import encode
from metaprime.tasks.texts.examples import reader, shared_out, shuffled
from metaprime.tasks.texts.pooling import POOLED
from metaprime.types import IGNORE, Batch, Params

TARGET = "targets"
"""Name of a batch's targets (B, 1), in the unit of the head's answers."""

OUTPUT = "number"
"""Name of the head's one output."""


def build(config: RegressionConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: the config contradicts itself.

    Example: `build(RegressionConfig(range=(0, 5)), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    count = len(config.texts)
    return Task(
        kind=of(config),
        config=config,
        labels=(OUTPUT,),
        read=reader(examine, config, text.form),
        example=lambda texts: Example(shared_out(texts, count), config.centre, "text"),
        encode=partial(
            encode,
            text=text,
            # The label says that the text has a target, which a window that fills up a batch lacks.
            values=lambda example: [(0, {TARGET: (float(example.gold - config.centre) / config.unit,)})],
        ),
        collate=padded,
        new_head=lambda sites: LinearHead(sites.hidden, 1),
        loss=loss,
        predict=partial(predict, centre=config.centre, unit=config.unit, padded=padded),
        audit=partial(audit.labels, config=config),
        outputs=POOLED[config.pooling],
        shuffle=shuffled if config.shuffle_labels else None,
        plain=Plain("AutoModelForSequenceClassification", config.pooling, config.centre, config.unit),
    )


def loss(outputs_B1: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean squared error (), in the unit of the head's answers; 0 for a batch without a target.

    Args:
        outputs_B1: answers of the head.
        batch: `targets` (B, 1), and `labels` (B, 1), IGNORE for windows that fill up a batch.

    Example: `loss(outputs_B1, {"labels": labels_B1, "targets": targets_B1})`.
    """
    given_B1 = batch["labels"] != IGNORE
    error_B1 = (outputs_B1 - batch[TARGET].to(outputs_B1.dtype)) * given_B1
    return error_B1.square().sum() / given_B1.sum().clamp(min=1)


def predict(
    model: TaskModel, values: Params, rows: Sequence[Row], *, centre: float, unit: float, padded: Any
) -> list[float]:
    """Returns the number of each row.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(1, D)`.
        rows: encoded texts.
        centre: number for which the head answers 0.
        unit: distance of two numbers for which its answers differ by 1.
        padded: pads the windows of some rows to one batch (B, L).

    Example: `task.predict(model, values, rows)[0]`, where the task has bound the rest.
    """
    found: dict[int, float] = {}
    for numbers, outputs_B1 in outputs_of(model, values, rows, padded):
        answers: list[float] = outputs_B1[:, 0].double().tolist()
        found |= zip(numbers, answers, strict=True)
    return [centre + unit * found[number] for number in range(len(rows))]


def to_json(example: Example, predicted: float) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, 2.5)["predicted"]`."""
    return {**dict(zip(("text", "pair"), example.words, strict=False)), "gold": example.gold, "predicted": predicted}


def of(config: RegressionConfig) -> TaskKind:
    """Returns the kind of a config, whose headline is its metric: `of(config).metric.label`."""
    return _kind(config.metric)


@lru_cache(maxsize=16)
def _kind(metric: MetricName) -> TaskKind:
    """Returns the kind of a headline metric."""
    return replace(
        REGRESSION,
        metrics=scores.metrics_of(metric),
        score=partial(scores.score, headline=metric),
    )


REGRESSION = TaskKind(
    config=RegressionConfig,
    metrics=scores.metrics_of("correlation"),
    unit="text",
    build=build,
    of_labels=lambda labels: RegressionConfig(),
    score=partial(scores.score, headline="correlation"),
    to_json=to_json,
    audit=audit.AUDIT,
    trivial=scores.TRIVIAL,
    of=of,
)
