"""Defines multiple choice: of the scores of all choices, the right one's shall be the largest (COPA).

Each choice is one window, read as a pair with the text. Shape suffixes: B windows, L sub-words, G examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from metaprime.data.rows import Example, Row, collate
from metaprime.models.task_model import TaskModel
from metaprime.tasks.choice import audit
from metaprime.tasks.choice.reading import examine, texts_of
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.classification import scores
from metaprime.tasks.head import LinearHead
from metaprime.tasks.outputs import outputs_of
from metaprime.tasks.task import Plain, Task, TaskKind, Text
from metaprime.tasks.texts.encoding import Values, encode
from metaprime.tasks.texts.examples import reader, shuffled
from metaprime.tasks.texts.pooling import POOLED
from metaprime.types import IGNORE, Batch, Params

CHOICE = "choice"
"""Name of a batch's numbers of choices (B, 1), counted from 0 in each example."""

OUTPUT = "score"
"""Name of the head's one output."""


def build(config: ChoiceConfig, text: Text) -> Task:
    """Builds the task of a config over a tokenizer.

    Raises:
        MetaprimeError: the config contradicts itself.

    Example: `build(ChoiceConfig(), Text(Subwords(tokenizer), Lengths(128))).labels`.
    """
    config.check()
    padded = partial(collate, pad_id=text.subwords.tokenizer.pad_token_id)
    return Task(
        kind=of(config),
        config=config,
        labels=(OUTPUT,),
        read=reader(examine, config, text.form),
        example=lambda texts: Example(texts_of(texts, config), config.choices[0], "text"),
        encode=partial(encode, text=text, values=partial(_values, choices=config.choices), group=audit.each_choice),
        collate=padded,
        # What is added to the scores of all choices alike changes nothing.
        new_head=lambda sites: LinearHead(sites.hidden, 1, bias=False),
        loss=loss,
        predict=partial(predict, choices=config.choices, padded=padded),
        audit=lambda where, examples: audit.AUDIT.labels(where, examples, config),
        outputs=POOLED[config.pooling],
        shuffle=shuffled if config.shuffle_labels else None,
        plain=Plain("AutoModelForMultipleChoice", config.pooling),
    )


def _values(example: Example, choices: Sequence[str]) -> list[Values]:
    """Returns a label for the window of the right choice alone, and the number of each."""
    return [(0 if name == example.gold else IGNORE, {CHOICE: (number,)}) for number, name in enumerate(choices)]


def loss(scores_B1: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () in nats per text, over its choices; 0 for a batch without an answer.

    Args:
        scores_B1: score of each choice; those of an example follow one another.
        batch: `choice` (B, 1), 0 at the first choice of an example, and `labels` (B, 1), IGNORE but at the right one.

    Example: `loss(scores_B1, {"choice": numbers_B1, "labels": labels_B1})`.
    """
    right_B = batch["labels"][:, 0] != IGNORE
    # Number of the example to which each window belongs; one that fills up a batch is an example of its own.
    example_B = (batch[CHOICE][:, 0] == 0).cumsum(0) - 1
    together_BB = example_B[:, None] == example_B[None]
    scores_BB = scores_B1[:, 0].expand(len(example_B), -1).masked_fill(~together_BB, -torch.inf)
    nats_B = scores_BB.logsumexp(1) - scores_B1[:, 0]
    return torch.where(right_B, nats_B, 0.0).sum() / right_B.sum().clamp(min=1)


def predict(model: TaskModel, values: Params, rows: Sequence[Row], *, choices: Sequence[str], padded: Any) -> list[str]:
    """Returns the choice with the largest score of each row.

    Args:
        model: its modules are run.
        values: all its parameters by name, such as the head's `(1, D)`.
        rows: encoded texts, with a window for each choice.
        choices: names of the choices.
        padded: pads the windows of some rows to one batch (B, L).

    Example: `task.predict(model, values, rows)[0]`, where the task has bound choices and padding.
    """
    best: dict[int, int] = {}
    for numbers, scores_B1 in outputs_of(model, values, rows, padded):
        scores_GC = scores_B1.view(len(numbers), len(choices))
        best |= zip(numbers, scores_GC.argmax(-1).tolist(), strict=True)
    return [choices[best[number]] for number in range(len(rows))]


def to_json(example: Example, predicted: str) -> dict[str, Any]:
    """Returns a line of predictions.jsonl: `to_json(example, "choice2")["predicted"]`."""
    text, *choices = example.words
    return {"text": text, "choices": choices, "gold": example.gold, "predicted": predicted}


def of(config: ChoiceConfig) -> TaskKind:
    """Returns the kind of a config, whose answers are its choices: `of(ChoiceConfig()).metric.label`."""
    return _kind(config.choices)


@lru_cache(maxsize=16)
def _kind(choices: tuple[str, ...]) -> TaskKind:
    """Returns the kind of some choices."""
    return replace(MULTIPLE_CHOICE, statistics=scores.statistics("accuracy", choices))


MULTIPLE_CHOICE = TaskKind(
    config=ChoiceConfig,
    # Where the right choice stands says nothing about it: scores of its places would.
    metrics=(scores.BY_NAME["accuracy"],),
    unit="text",
    build=build,
    of_labels=lambda labels: ChoiceConfig(),
    score=partial(scores.score, headline="accuracy"),
    to_json=to_json,
    audit=audit.AUDIT,
    trivial=replace(scores.TRIVIAL, text="Answering with the place that is most often the right one"),
    errors=replace(scores.ERRORS, show=partial(scores.texts_shown, beside="choices")),
    of=of,
)
