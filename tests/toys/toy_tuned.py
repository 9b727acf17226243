"""Tuned toys: an encoder with adapter and head that are not zero, and their logits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.func import functional_call

from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths, Row
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import Layout
from metaprime.models.task_model import TaskModel, partition
from metaprime.peft import MethodConfig
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Task, Text
from metaprime.types import Params

IDS = torch.randint(5, 60, (2, 9), generator=torch_stream(0, "ids"))
INPUTS = {"input_ids": IDS, "attention_mask": (torch.arange(9) < torch.tensor([[9], [6]])).long()}
EVERY_SITE = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")

ALBERT = Layout(
    layers="encoder.albert_layer_groups.0.albert_layers",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attention_out="attention.dense",
    ffn_in="ffn",
    ffn_out="ffn_output",
    attention="attention",
    ffn_norm="full_layer_layer_norm",
    unused=("pooler.",),
)
"""ALBERT's one layer, which it runs as often as others have layers."""


def tagging(encoder: Encoder) -> tuple[Task, list[Row]]:
    """The task of tagging with an encoder's tokenizer, and four rows."""
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    return task, task.encode(synthetic.read("", "qaa", "train")[:4])


def made(
    folder: Path, method: MethodConfig, layout: Layout | None = None
) -> tuple[Encoder, tuple[str, ...], TaskModel, Params]:
    """An encoder, the tags, a model of both with the method in it, and values for adapter and head, none of them zero."""
    encoder = load_encoder(str(folder), layout=layout)
    task, rows = tagging(encoder)
    model = build_model(encoder, task, method, rows)
    draw = torch_stream(0, "phi and head")
    state = partition(model)
    values = {k: 0.3 * torch.randn(v.shape, generator=draw) for k, v in {**state.adapter, **state.head}.items()}
    return encoder, task.labels, model, values


def logits(model: TaskModel, values: Params) -> torch.Tensor:
    """Our scores of the words' positions, (positions, C)."""
    with torch.no_grad():
        found: torch.Tensor = functional_call(model, values, (INPUTS,))
    return found[INPUTS["attention_mask"].bool()]
