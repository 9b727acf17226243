"""Defines sequence tagging: one IOB2 tag or class per word, predicted at its first sub-word.

Shape suffixes: B windows, L sub-words, D hidden size, C tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from metaprime.data.rows import Example, Row, collate
from metaprime.models.task_model import TaskModel
from metaprime.tasks.class_scores import UNANSWERED
from metaprime.tasks.head import LinearHead
from metaprime.tasks.outputs import outputs_of
from metaprime.tasks.tagging import audit
from metaprime.tasks.tagging.errors import ERRORS, STATISTICS
from metaprime.tasks.tagging.reading import read
from metaprime.tasks.tagging.scores import METRICS, score
from metaprime.tasks.tagging.settings import TaggingConfig
from metaprime.tasks.tagging.windows import encode, shuffled_tags
from metaprime.tasks.tagging.word_classes import (
    CLASS_ERRORS,
    CLASS_METRICS,
    CLASS_STATISTICS,
    CLASS_TRIVIAL,
    score_classes,
)
from metaprime.tasks.task import Task, TaskKind, Text
from metaprime.types import IGNORE, Batch, Params

OUTSIDE = "O"
"""Tag of a word outside all entities."""


def build(config: TaggingConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: `labels` or `label_map` is invalid.

    Example: `build(TaggingConfig(), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    labels, pad_id = config.label_set, text.subwords.tokenizer.pad_token_id
    nothing = OUTSIDE if config.spans else UNANSWERED
    padded = partial(collate, pad_id=pad_id)
    return Task(
        kind=of(config),
        config=config,
        labels=labels.tags,
        # A notice is logged once for all files of a run that are alike.
        read=partial(read, rules=config.rules(labels, text.form), logged=set()),
        example=lambda words: Example(tuple(words), (labels.tags[0],) * len(words), "text"),
        encode=lambda examples: encode(examples, text.subwords, labels, text.lengths),
        collate=padded,
        new_head=lambda sites: LinearHead(sites.hidden, len(labels.tags)),
        loss=loss,
        predict=partial(predict, tags=labels.tags, padded=padded, nothing=nothing),
        audit=lambda where, examples: audit.audit_for(config).labels(where, examples, config),
        shuffle=shuffled_tags if config.shuffle_tags else None,
    )


def of_labels(tags: Sequence[str]) -> TaggingConfig:
    """Returns the config of a head with these outputs: `of_labels(("O", "B-PER", "I-PER"))`."""
    return TaggingConfig(labels=tuple(tag[2:] for tag in tags if tag.startswith("B-")))


def of(config: TaggingConfig) -> TaskKind:
    """Returns the kind of a config: spans, or classes of words: `of(TaggingConfig()).metric.label` is `F1`."""
    return TAGGING if config.spans else WORD_CLASSES


def loss(logits_BLC: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () in nats per labelled sub-word; 0 for a batch without one.

    Args:
        logits_BLC: scores of every tag.
        batch: `labels` (B, L), IGNORE except at first sub-words; other tensors are not used.

    Example: `loss(logits_BLC, {"labels": labels_BL})`.
    """
    labels_BL = batch["labels"]
    labelled = (labels_BL != IGNORE).sum().clamp(min=1)
    return cross_entropy(logits_BLC.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="sum") / labelled


def predict(
    model: TaskModel, values: Params, rows: Sequence[Row], *, tags: Sequence[str], padded: Any, nothing: str = OUTSIDE
) -> list[list[str]]:
    """Returns the likeliest tag of every word of each row.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(C, D)`.
        rows: encoded sentences.
        tags: the C tags in the order of the head's outputs.
        padded: pads the windows of some rows to one batch (B, L).
        nothing: answer for a word without a window.

    Example: `task.predict(model, values, rows)[0]`, where the task has bound tags and padding.
    """
    predicted: list[list[str]] = [[] for _ in rows]
    for chosen, logits_BLC in outputs_of(model, values, rows, padded):
        decoded = decode(tags, logits_BLC, [rows[index] for index in chosen], nothing)
        for index, words in zip(chosen, decoded, strict=True):
            predicted[index] = words
    return predicted


def decode(
    tags: Sequence[str], logits_BLC: torch.Tensor, rows: Sequence[Row], nothing: str = OUTSIDE
) -> list[list[str]]:
    """Decodes the logits of all windows of some rows.

    Args:
        tags: the C tags in the order of the logits.
        logits_BLC: one entry for each of the rows' B windows, in order.
        rows: encoded sentences.
        nothing: answer for a word without a window.

    Returns:
        The likeliest tag of each word in the window to which it belongs; `nothing` for a word without
        a window, as the gold tags of all words are scored.

    Example: `decode(task.labels, logits_BLC, rows)[0]`.
    """
    windows = [window for row in rows for window in row.windows]
    best = iter(list(zip(windows, logits_BLC.argmax(-1).tolist(), strict=True)))
    decoded = []
    for row in rows:
        decoded.append([nothing] * len(row.example.words))
        for window, line in itertools.islice(best, len(row.windows)):
            for word, start in zip(window.words, window.starts, strict=True):
                decoded[-1][word] = tags[line[start]]
    return decoded


def to_json(example: Example, predicted: Sequence[str]) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, ["B-PER", "O"])["predicted"]`."""
    return {"words": list(example.words), "gold": list(example.gold), "predicted": list(predicted)}


TAGGING = TaskKind(
    config=TaggingConfig,
    metrics=METRICS,
    unit="labelled sub-word",
    build=build,
    of_labels=of_labels,
    score=score,
    to_json=to_json,
    audit=audit.AUDIT,
    statistics=STATISTICS,
    errors=ERRORS,
    present=lambda example, predicted: list(zip(example.words, predicted, strict=True)),
    of=of,
)

WORD_CLASSES = replace(
    TAGGING,
    metrics=CLASS_METRICS,
    score=score_classes,
    audit=audit.CLASS_AUDIT,
    statistics=CLASS_STATISTICS,
    trivial=CLASS_TRIVIAL,
    errors=CLASS_ERRORS,
)
