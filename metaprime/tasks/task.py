"""A kind of problem as a value: everything the loops need to know of it, and nothing they must ask by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from metaprime.data.rows import Row, Sentence
from metaprime.models.task_model import Measure, Outputs, head_outputs
from metaprime.types import Batch, Sites


@dataclass(frozen=True)
class Task:
    """One kind of problem over one label inventory and one tokenizer.

    Attributes:
        name: of the kind.
        labels: what the head's C outputs mean, in order.
        encode: sentences to rows.
        collate: the windows of all rows to one padded batch.
        new_head: an encoder's sites to an output layer, D -> C, that is `types.Drawn`.
        measure: outputs and batch to a scalar loss in nats.
        decode: logits (B, L, C) of B windows and the rows these belong to, to one prediction per word of each row.
        score: rows and predictions to the scores of a record.
        corrupt: what is done to the rows of one episode before they are learned from, by a draw of that episode.
    """

    name: str
    labels: tuple[str, ...]
    encode: Callable[[Sequence[Sentence]], list[Row]]
    collate: Callable[[Sequence[Row]], Batch]
    new_head: Callable[[Sites], nn.Module]
    measure: Measure
    decode: Callable[[torch.Tensor, Sequence[Row]], list[list[str]]]
    score: Callable[[Sequence[Row], Sequence[Sequence[str]]], dict[str, Any]]
    corrupt: Callable[[Sequence[Row], torch.Generator], list[Row]] | None = None
    outputs: Outputs = head_outputs
