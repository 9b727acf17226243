"""Multi-head parallel adapter: prefix tuning without its softmax and its gate (He et al. 2022, `cross_attn_relu`).

Per head, h_i <- h_i + s ReLU(q_i P_k,i^T / sqrt(d)) P_v,i, added to the heads' context before W_o. q is what attention itself
works with: after rotary positions where there are any. P_k is drawn from N(0, 0.02), P_v zero: the encoder unchanged at
the start; with `init: bert` both are drawn.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from metaprime.nn import Adapter, for_each
from metaprime.peft.method import Method, MethodConfig
from metaprime.types import BESIDE_SLOT, Params, Sites


class MultiheadParallelConfig(MethodConfig):
    """Number l of keys and values, scale s, and how they start."""

    method: Literal["multihead_parallel"] = "multihead_parallel"
    length: PositiveInt = 16
    scale: PositiveFloat = 1.0
    init: Literal["lora", "bert"] = "lora"

    @property
    def identity(self) -> bool:
        return self.init == "lora"


class Heads(nn.Module):
    """s ReLU(q P_k^T / sqrt(d)) P_v: queries and result (B, H, L, d); P_k and P_v (H, l, d)."""

    supports_one_pass = True

    def __init__(self, heads: int, head_width: int, config: MultiheadParallelConfig) -> None:
        super().__init__()
        self.config = config
        self.keys = nn.Parameter(torch.zeros(heads, config.length, head_width))
        self.values = nn.Parameter(torch.zeros(heads, config.length, head_width))

    def forward(self, query_BHLd: torch.Tensor) -> torch.Tensor:
        sentences, scale = len(query_BHLd), query_BHLd.shape[-1] ** -0.5
        keys_BHPd, values_BHPd = (for_each(part, 3, sentences) for part in (self.keys, self.values))
        weights_BHLP = torch.relu(scale * query_BHLd @ keys_BHPd.mT)
        return self.config.scale * weights_BHLP @ values_BHPd

    def initial(self, generator: torch.Generator) -> Params:
        keys, values = (0.02 * torch.randn(self.keys.shape, generator=generator) for _ in range(2))
        return {"keys": keys, "values": values if self.config.init == "bert" else torch.zeros_like(values)}


def inject(sites: Sites, config: Any) -> Adapter:
    """Leaves each layer's keys and values where `models.attention` looks for them."""
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(sites.layers):
        count = layer.attention_out.in_features // sites.head_width
        beside = modules[str(index)] = Heads(count, sites.head_width, config)
        # A function, so that the attention module does not adopt the heads as a child of the backbone.
        setattr(layer.attention, BESIDE_SLOT, lambda query, beside=beside: beside(query))
    return Adapter(config, modules)


METHOD = Method(
    MultiheadParallelConfig,
    inject,
    "head_i + s ReLU(q_i P_k,i^T / sqrt(d)) P_v,i",
    "He et al. 2022, arXiv 2110.04366",
)
