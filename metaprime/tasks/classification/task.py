"""Defines text classification: one text or a pair of texts has one of several classes (He et al. 2022, Fu et al. 2023).

Shape suffixes: B texts, L sub-words, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn.functional import cross_entropy

from metaprime.data.rows import Example, Row, collate
from metaprime.models.task_model import TaskModel
from metaprime.tasks.classification import audit, scores
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.head import LinearHead
from metaprime.tasks.outputs import outputs_of
from metaprime.tasks.task import Plain, Task, TaskKind, Text
from metaprime.tasks.texts.classes import examine
from metaprime.tasks.texts.encoding import encode
from metaprime.tasks.texts.examples import class_of_example, reader, shared_out, shuffled
from metaprime.tasks.texts.pooling import POOLED
from metaprime.types import IGNORE, Batch, Params

Among: TypeAlias = "Callable[[Sequence[Row], torch.Tensor], torch.Tensor]"
"""Maps some rows and their scores (B, C) to scores of the classes that each may have."""


def build(config: ClassificationConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: classes and columns of the config contradict each other.

    Example: `build(ClassificationConfig(labels=("good", "bad")), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    ids = {name: number for number, name in enumerate(config.labels)}
    count = len(config.texts)
    return Task(
        kind=of(config),
        config=config,
        labels=config.labels,
        read=reader(examine, config, text.form),
        example=lambda texts: Example(shared_out(texts, count), config.labels[0], "text"),
        encode=partial(encode, text=text, values=lambda example: [(ids[example.gold], {})]),
        collate=padded,
        new_head=lambda sites: LinearHead(sites.hidden, len(config.labels)),
        loss=loss,
        predict=partial(predict, labels=config.labels, padded=padded),
        audit=partial(audit.labels, config=config),
        outputs=POOLED[config.pooling],
        shuffle=shuffled if config.shuffle_labels else None,
        stratum=class_of_example,
        plain=Plain("AutoModelForSequenceClassification", config.pooling),
    )


def loss(logits_BC: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () in nats per text; 0 for a batch without a labelled one.

    Args:
        logits_BC: scores of every class.
        batch: `labels` (B, 1), IGNORE for windows that fill up a batch.

    Example: `loss(logits_BC, {"labels": labels_B1})`.
    """
    labels_B = batch["labels"][:, 0]
    labelled = (labels_B != IGNORE).sum().clamp(min=1)
    return cross_entropy(logits_BC, labels_B, ignore_index=IGNORE, reduction="sum") / labelled


def every_class(rows: Sequence[Row], logits_BC: torch.Tensor) -> torch.Tensor:
    """Returns the scores (B, C) as they are, since a text may have any class: `every_class(rows, logits_BC)`."""
    return logits_BC


def predict(
    model: TaskModel,
    values: Params,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    padded: Any,
    among: Among = every_class,
) -> list[str]:
    """Returns the likeliest class of each row.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(C, D)`.
        rows: encoded texts.
        labels: the C classes in the order of the head's outputs.
        padded: pads the windows of some rows to one batch (B, L).
        among: maps some rows and their scores (B, C) to the scores, minus infinity at classes that a row cannot have.

    Example: `task.predict(model, values, rows)[0]`, where the task has bound classes and padding.
    """
    best: dict[int, int] = {}
    for numbers, logits_BC in outputs_of(model, values, rows, padded):
        own_BC = among([rows[number] for number in numbers], logits_BC)
        best |= zip(numbers, own_BC.argmax(-1).tolist(), strict=True)
    return [labels[best[number]] for number in range(len(rows))]


def to_json(example: Example, predicted: str) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, "good")["predicted"]`."""
    return {**dict(zip(("text", "pair"), example.words, strict=False)), "gold": example.gold, "predicted": predicted}


def of(config: ClassificationConfig) -> TaskKind:
    """Returns the kind of a config, whose headline is its metric: `of(config).metric.label`."""
    return scores.of_metric(CLASSIFICATION, config.metric, config.labels)


CLASSIFICATION = TaskKind(
    config=ClassificationConfig,
    metrics=scores.metrics_of("accuracy"),
    unit="text",
    build=build,
    of_labels=lambda labels: ClassificationConfig(labels=tuple(labels)),
    score=partial(scores.score, headline="accuracy"),
    to_json=to_json,
    audit=audit.AUDIT,
    trivial=scores.TRIVIAL,
    errors=scores.ERRORS,
    of=of,
)
