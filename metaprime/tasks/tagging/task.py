"""Sequence tagging: one IOB2 tag per word, carried by its first sub-word. The only file that knows tags."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from metaprime.data.rows import Row, collate
from metaprime.data.subwords import Subwords
from metaprime.nn import linear
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.tasks.tagging.scores import entity_scores
from metaprime.tasks.tagging.windows import Lengths, encode
from metaprime.tasks.task import Task
from metaprime.types import IGNORE, Batch, Params

OUTSIDE = "O"


class TagHead(nn.Linear):
    """Linear layer D -> C; starts at N(0, 0.02), bias zero, as Hugging Face's token classification heads do."""

    supports_one_pass = True

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        return linear(hidden_BLD, self.weight, self.bias)

    def initial(self, generator: torch.Generator) -> Params:
        return {
            "weight": 0.02 * torch.randn(self.weight.shape, generator=generator),
            "bias": torch.zeros(self.bias.shape),
        }


def tagging(labels: LabelSet, subwords: Subwords, lengths: Lengths) -> Task:
    """The tagging task over one label inventory and one tokenizer."""
    pad_id = subwords.tokenizer.pad_token_id
    return Task(
        name="tagging",
        labels=labels.tags,
        encode=lambda sentences: encode(sentences, subwords, labels, lengths),
        collate=lambda rows: collate(rows, pad_id),
        new_head=lambda sites: TagHead(sites.hidden, len(labels.tags)),
        measure=_measure,
        decode=partial(_decode, labels.tags),
        score=_score,
    )


def entity_types(tags: Sequence[str]) -> tuple[str, ...]:
    """The types behind a head's tags, in their order."""
    return tuple(tag[2:] for tag in tags if tag.startswith("B-"))


def _measure(logits_BLC: torch.Tensor, batch: Batch) -> torch.Tensor:
    labels_BL = batch["labels"]
    labelled = (labels_BL != IGNORE).sum().clamp(min=1)  # of sentences that the tokenizer left nothing of: 0, not 0 / 0
    return cross_entropy(logits_BLC.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="sum") / labelled


def _decode(tags: Sequence[str], logits_BLC: torch.Tensor, rows: Sequence[Row]) -> list[list[str]]:
    """The likeliest tag of each word, out of the window that answers for it; `O` where none does: gold is scored whole."""
    windows = [window for row in rows for window in row.windows]
    best = iter(list(zip(windows, logits_BLC.argmax(-1).tolist(), strict=True)))
    decoded = []
    for row in rows:
        decoded.append([OUTSIDE] * len(row.sentence.words))
        for window, line in itertools.islice(best, len(row.windows)):
            for word, start in zip(window.words, window.starts, strict=True):
                decoded[-1][word] = tags[line[start]]
    return decoded


def _score(rows: Sequence[Row], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    return entity_scores([row.sentence.tags for row in rows], predicted)
