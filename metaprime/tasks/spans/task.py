"""Defines span pairs: two spans of a text have one of several classes, such as to mean the same (WSC).

Shape suffixes: B texts, L sub-words, D hidden size, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from metaprime.data.rows import Example, collate
from metaprime.models.task_model import TaskModel
from metaprime.tasks.classification import scores
from metaprime.tasks.classification.task import loss, predict
from metaprime.tasks.head import LinearHead
from metaprime.tasks.spans import audit
from metaprime.tasks.spans.encoding import SPAN_MARKS, encode
from metaprime.tasks.spans.reading import examine, texts_of
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.spans.stretches import span_of
from metaprime.tasks.task import Task, TaskKind, Text
from metaprime.tasks.texts.examples import class_of_example, reader, shuffled
from metaprime.tasks.texts.pooling import mean_states
from metaprime.types import Batch


def build(config: SpansConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: the config contradicts itself.

    Example: `build(SpansConfig(), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    ids = {name: number for number, name in enumerate(config.labels)}
    return Task(
        kind=of(config),
        config=config,
        labels=config.labels,
        read=reader(examine, config, text.form),
        example=lambda texts: Example(texts_of(texts), config.labels[0], "text"),
        encode=partial(encode, text=text, ids=ids, whole_spans=config.pooling != "first"),
        collate=padded,
        # One state of each span.
        new_head=lambda sites: LinearHead(2 * sites.hidden, len(config.labels)),
        loss=loss,
        predict=partial(predict, labels=config.labels, padded=padded),
        audit=lambda where, examples: audit.AUDIT.labels(where, examples, config),
        outputs=both_spans,
        shuffle=shuffled if config.shuffle_labels else None,
        stratum=class_of_example,
        plain=None,
    )


def both_spans(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns logits (B, C) of the mean states of two spans, one behind the other.

    Args:
        model: its head reads (B, 2 D).
        batch: tensors (B, L), with `marks`.

    Example: `both_spans(model, batch).argmax(-1)`.
    """
    # No state stands at padding, wherever a mask is cut.
    hidden_BLD, marks_BL = model.encode(batch), batch[SPAN_MARKS] * batch["attention_mask"]
    # Bits 1 and 2 of a mark are one span each.
    spans = [mean_states(hidden_BLD, (marks_BL // bit) % 2) for bit in (1, 2)]
    logits_BC: torch.Tensor = model.head(torch.cat(spans, dim=-1))
    return logits_BC


def to_json(example: Example, predicted: str) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, "true")["spans"]` is such as `["Ada", "her"]`."""
    text, *spans = example.words
    places = [list(span_of(span)) for span in spans]
    words = text.split()
    found = [" ".join(words[first:end]) for first, end in places]
    return {"text": text, "spans": found, "places": places, "gold": example.gold, "predicted": predicted}


def of(config: SpansConfig) -> TaskKind:
    """Returns the kind of a config, whose headline is its metric: `of(SpansConfig()).metric.label`."""
    return scores.of_metric(SPAN_PAIRS, config.metric, config.labels)


SPAN_PAIRS = TaskKind(
    config=SpansConfig,
    metrics=scores.metrics_of("accuracy"),
    unit="text",
    build=build,
    of_labels=lambda labels: SpansConfig(labels=tuple(labels)),
    score=partial(scores.score, headline="accuracy"),
    to_json=to_json,
    audit=audit.AUDIT,
    trivial=scores.TRIVIAL,
    errors=replace(scores.ERRORS, show=partial(scores.texts_shown, beside="spans")),
    of=of,
)
