"""Defines several classifications side by side: the head has the classes of all, a text those of its own task.

Priming on CoLA, MRPC and SST-2 as tasks, not languages, needs an output layer of each task's own: a block of rows of one
layer, which no other task's texts read or move. Shape suffixes: B texts, L sub-words, C classes of all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise

import torch

from metaprime.data.rows import Example, Row, collate
from metaprime.tasks.classification import scores
from metaprime.tasks.classification import task as one_task
from metaprime.tasks.classifications import audit
from metaprime.tasks.classifications.reading import examine
from metaprime.tasks.classifications.settings import ClassificationsConfig, of_task
from metaprime.tasks.head import LinearHead
from metaprime.tasks.task import Plain, Task, TaskKind, Text
from metaprime.tasks.texts.encoding import encode
from metaprime.tasks.texts.examples import class_of_example, reader, shared_out, shuffled
from metaprime.tasks.texts.pooling import POOLED
from metaprime.types import Batch, MetaprimeError

FIRST, END = "first_class", "end_class"
"""Names of a batch's numbers (B, 1): the first class of a text's task, and its last plus 1."""


def build(config: ClassificationsConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: classes and columns of the config contradict each other.

    Example: `build(config, Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    ids = {name: number for number, name in enumerate(config.labels)}
    # A class tells its task, and with it the classes of the same task.
    ends = pairwise(accumulate((len(task.labels) for _, task in sorted(config.tasks.items())), initial=0))
    ranges = {
        config.labels[number]: {FIRST: (first,), END: (end,)} for first, end in ends for number in range(first, end)
    }
    return Task(
        kind=of(config),
        config=config,
        labels=config.labels,
        read=reader(examine, config, text.form),
        example=partial(_example, config=config),
        encode=partial(encode, text=text, values=lambda example: [(ids[example.gold], ranges[example.gold])]),
        collate=padded,
        new_head=lambda sites: LinearHead(sites.hidden, len(config.labels)),
        loss=loss,
        predict=partial(one_task.predict, labels=config.labels, padded=padded, among=_among),
        audit=partial(audit.labels, config=config),
        outputs=POOLED[config.pooling],
        shuffle=shuffled if config.shuffle_labels else None,
        stratum=class_of_example,
        plain=_plain(config),
    )


def _plain(config: ClassificationsConfig) -> Plain | None:
    """Returns the model of one task's classes alone; of several tasks there is none."""
    if config.only is None and len(config.tasks) > 1:
        return None
    name, labels = config.only or min(config.tasks), config.predicted.labels
    first = config.labels.index(of_task(name, labels[0]))
    return Plain("AutoModelForSequenceClassification", config.pooling, labels=labels, first=first)


def _example(texts: Sequence[str], config: ClassificationsConfig) -> Example:
    """Makes an example of the task that is predicted; texts for one of several tasks are refused."""
    columns = config.texts
    if config.only is None and len(config.tasks) > 1 and len(texts) == len(columns):
        raise MetaprimeError(
            f"this head has the classes of {', '.join(sorted(config.tasks))}: predict with the folder of a transfer, which is "
            "of one task"
        )
    return Example(
        shared_out(texts, len(columns)), of_task(config.only or min(config.tasks), config.predicted.labels[0]), "text"
    )


def loss(logits_BC: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () in nats per text, over the classes of its task; 0 for a batch without a label.

    Args:
        logits_BC: scores of every class.
        batch: `labels` (B, 1), IGNORE for windows that fill up a batch, `first_class` and `end_class` (B, 1).

    Example: `loss(logits_BC, {"labels": labels_B1, "first_class": first_B1, "end_class": end_B1})`.
    """
    return one_task.loss(_own(logits_BC, batch[FIRST], batch[END]), batch)


def _own(logits_BC: torch.Tensor, first_B1: torch.Tensor, end_B1: torch.Tensor) -> torch.Tensor:
    """Returns the scores (B, C) with those of other tasks' classes at minus infinity."""
    number_C = torch.arange(logits_BC.shape[1], device=logits_BC.device)
    # A window that fills up a batch ends at 0: all its scores stay.
    other_BC = ((number_C < first_B1) | (number_C >= end_B1)) & (end_B1 > 0)
    return logits_BC.masked_fill(other_BC, -torch.inf)


def _among(rows: Sequence[Row], logits_BC: torch.Tensor) -> torch.Tensor:
    """Returns the scores (B, C) of some rows, minus infinity at classes of other tasks."""
    ends = [[row.windows[0].more[name] for row in rows] for name in (FIRST, END)]
    first_B1, end_B1 = (torch.tensor(numbers, device=logits_BC.device) for numbers in ends)
    return _own(logits_BC, first_B1, end_B1)


def of(config: ClassificationsConfig) -> TaskKind:
    """Returns the kind of a config, whose headline is its metric: `of(config).metric.label`."""
    return scores.of_metric(CLASSIFICATIONS, config.metric, config.labels)


CLASSIFICATIONS = replace(
    one_task.CLASSIFICATION,
    config=ClassificationsConfig,
    build=build,
    of_labels=lambda labels: ClassificationsConfig(),
    audit=audit.AUDIT,
    present=lambda example, predicted: predicted.partition(": ")[2],
    of=of,
)
