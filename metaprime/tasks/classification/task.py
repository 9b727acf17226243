"""Defines text classification: one text or a pair of texts has one of several classes (He et al. 2022, Fu et al. 2023).

Shape suffixes: B texts, L sub-words, D hidden size, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from metaprime.data.reading import settle
from metaprime.data.rows import Example, Row, collate
from metaprime.models.outputs import Outputs
from metaprime.models.task_model import TaskModel
from metaprime.rng import stream
from metaprime.tasks.classification import audit, scores
from metaprime.tasks.classification.encoding import encode
from metaprime.tasks.classification.reading import examine
from metaprime.tasks.classification.settings import ClassificationConfig, MetricName
from metaprime.tasks.head import LinearHead
from metaprime.tasks.outputs import outputs_of
from metaprime.tasks.task import Task, TaskKind, Text
from metaprime.types import IGNORE, Batch, Params


def build(config: ClassificationConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: classes and columns of the config contradict each other.

    Example: `build(ClassificationConfig(labels=("good", "bad")), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    ids = {name: number for number, name in enumerate(config.labels)}
    # A notice is logged once for all files of a run that are alike.
    logged: set[str] = set()

    def read(source: str, language: str, split: str) -> list[Example]:
        """Reads one split and logs what was dropped."""
        return settle(examine(source, language, split, config, True, text.form), config.invalid, logged)

    return Task(
        kind=of(config),
        config=config,
        labels=config.labels,
        read=read,
        example=partial(unanswered, config=config),
        encode=partial(encode, text=text, ids=ids),
        collate=padded,
        new_head=lambda sites: LinearHead(sites.hidden, len(config.labels)),
        loss=loss,
        predict=partial(predict, labels=config.labels, padded=padded),
        audit=partial(audit.labels, config=config),
        outputs=POOLED[config.pooling],
        shuffle=shuffled if config.shuffle_labels else None,
    )


def unanswered(texts: Sequence[str], config: ClassificationConfig) -> Example:
    """Returns an example without a known class: `unanswered(["Well done."], config)`.

    Args:
        texts: one text, or two for a pair; any other number is one text cut into words.
        config: tells whether there are pairs.
    """
    if config.pair is not None and len(texts) != 2:
        # A trial of a model needs any two texts.
        half = max(len(texts) // 2, 1)
        texts = (" ".join(texts[:half]), " ".join(texts[half:]) or texts[0])
    elif config.pair is None:
        texts = (" ".join(texts),)
    return Example(tuple(texts), config.labels[0], "text")


def first_state(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns logits (B, C) of the encoder's output at the first sub-word.

    Args:
        model: its head reads (B, D).
        batch: tensors (B, L).

    Example: `first_state(model, batch).argmax(-1)`.
    """
    logits_BC: torch.Tensor = model.head(model.encode(batch)[:, 0])
    return logits_BC


def mean_state(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns logits (B, C) of the mean of the encoder's output over all sub-words, special ones too.

    Args:
        model: its head reads (B, D).
        batch: tensors (B, L).

    Example: `mean_state(model, batch).argmax(-1)`.
    """
    mask_BL1 = batch["attention_mask"][:, :, None].to(torch.float32)
    hidden_BLD = model.encode(batch)
    mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)
    logits_BC: torch.Tensor = model.head(mean_BD)
    return logits_BC


POOLED: dict[str, Outputs] = {"first": first_state, "mean": mean_state}
"""Forward passes by the values of `task.pooling`."""


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


def predict(model: TaskModel, values: Params, rows: Sequence[Row], *, labels: Sequence[str], padded: Any) -> list[str]:
    """Returns the likeliest class of each row.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(C, D)`.
        rows: encoded texts.
        labels: the C classes in the order of the head's outputs.
        padded: pads the windows of some rows to one batch (B, L).

    Example: `task.predict(model, values, rows)[0]`, where the task has bound classes and padding.
    """
    best: dict[int, int] = {}
    for numbers, logits_BC in outputs_of(model, values, rows, padded):
        best |= zip(numbers, logits_BC.argmax(-1).tolist(), strict=True)
    return [labels[best[number]] for number in range(len(rows))]


def shuffled(examples: Sequence[Example], seed: int, language: str) -> list[Example]:
    """Permutes the classes of a language's texts among them, for a control.

    Args:
        examples: with their right classes.
        seed: of the permutation.
        language: also part of its address.

    Example: `shuffled(examples, 0, "de")`.
    """
    order = stream(seed, "shuffled classes", language).permutation(len(examples))
    return [replace(example, gold=examples[int(place)].gold) for example, place in zip(examples, order, strict=True)]


def to_json(example: Example, predicted: str) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, "good")["predicted"]`."""
    return {**dict(zip(("text", "pair"), example.words, strict=False)), "gold": example.gold, "predicted": predicted}


def of(config: ClassificationConfig) -> TaskKind:
    """Returns the kind of a config, whose headline is its metric: `of(config).metric.label`."""
    return _kind(config.metric, config.labels)


@lru_cache(maxsize=64)
def _kind(metric: MetricName, labels: tuple[str, ...]) -> TaskKind:
    """Returns the kind of a headline metric and classes."""
    return replace(
        CLASSIFICATION,
        metrics=scores.metrics_of(metric),
        score=partial(scores.score, headline=metric),
        statistics=scores.statistics(metric, labels),
    )


CLASSIFICATION = TaskKind(
    config=ClassificationConfig,
    metrics=scores.metrics_of("accuracy"),
    unit="text",
    build=build,
    of_labels=lambda labels: ClassificationConfig(labels=tuple(labels)),
    score=partial(scores.score, headline="accuracy"),
    to_json=to_json,
    audit=audit.AUDIT,
    errors=scores.ERRORS,
    of=of,
)
