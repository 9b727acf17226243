"""BERT written out by hand, with room for a change wherever a method makes one: the reference of the formula tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from metaprime.rng import torch_stream

IDS = torch.randint(5, 60, (2, 6), generator=torch_stream(0, "ids"))
HEADS = 4

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What becomes of h, and of which x."""


def unchanged(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return h


@dataclass(frozen=True)
class Changes:
    """Of one layer. `key` and `value` see their projection's output, `context` the heads' result beside the block's input,
    `attention` the block's output, `inner` the activations and `ffn` the output of the feed-forward block beside its input;
    `beside` is added to each head's result, from the queries (B, H, L, d).
    """

    key: Change = unchanged
    value: Change = unchanged
    context: Change = unchanged
    attention: Change = unchanged
    inner: Change = unchanged
    ffn: Change = unchanged
    beside: Callable[[torch.Tensor], Any] = lambda query: 0
    prefix: tuple[torch.Tensor, torch.Tensor] | None = None


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def layer_of_bert(layer: nn.Module, x: torch.Tensor, to: Changes) -> torch.Tensor:
    own, out = layer.attention.self, layer.attention.output
    q, k, v = heads(own.query(x)), heads(to.key(own.key(x), x)), heads(to.value(own.value(x), x))
    if to.prefix:
        k, v = (
            torch.cat([part.expand(len(x), *part.shape), own], 2) for part, own in zip(to.prefix, (k, v), strict=True)
        )
    each = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v + to.beside(q)
    o = to.attention(out.dense(to.context(each.transpose(1, 2).flatten(2), x)), x)
    y = out.LayerNorm(o + x)
    f = layer.output.dense(to.inner(nn.functional.gelu(layer.intermediate.dense(y)), y))
    return layer.output.LayerNorm(to.ffn(f, y) + y)


@torch.no_grad()
def bert(encoder: PreTrainedModel, changes: list[Changes]) -> torch.Tensor:
    """Last hidden states (B, L, D) of the stock encoder for IDS, unpadded."""
    x = encoder.embeddings(input_ids=IDS)
    for layer, change in zip(encoder.encoder.layer, changes, strict=True):
        x = layer_of_bert(layer, x, change)
    return x


@torch.no_grad()
def hidden(encoder: nn.Module) -> torch.Tensor:
    return encoder(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state


def randomised(modules: nn.Module) -> nn.Module:
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    return modules
