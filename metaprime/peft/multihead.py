"""Implements the multi-head parallel adapter: prefix tuning without softmax and gate.

    h_i <- h_i + s ReLU(q_i P_k,i^T / sqrt(d)) P_v,i        for each head i

He et al. 2022 (2110.04366; `cross_attn_relu` in their code). The term is added to the heads'
context before W_o. q are the queries that attention itself uses, after rotary positions if there
are any. P_k is drawn from N(0, 0.02) and P_v is zero, which leaves the encoder unchanged at the
start; with `init: bert` both are drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter, for_each
from metaprime.peft.method import Method
from metaprime.peft.settings import MultiheadParallelConfig
from metaprime.types import BESIDE_SLOT, Params, Sites


class Heads(nn.Module):
    """The learned keys P_k and values P_v of one layer, each (H, l, d)."""

    supports_one_pass = True

    def __init__(self, heads: int, head_width: int, config: MultiheadParallelConfig) -> None:
        super().__init__()
        self.config = config
        self.keys = nn.Parameter(torch.zeros(heads, config.length, head_width))
        self.values = nn.Parameter(torch.zeros(heads, config.length, head_width))

    def forward(self, query_BHLd: torch.Tensor) -> torch.Tensor:
        """Returns s ReLU(q P_k^T / sqrt(d)) P_v, (B, H, L, d): `heads(query_BHLd)`.

        Args:
            query_BHLd: queries of all heads, (B, H, L, d).
        """
        sentences, scale = len(query_BHLd), query_BHLd.shape[-1] ** -0.5
        keys_BHPd, values_BHPd = (for_each(part, 3, sentences) for part in (self.keys, self.values))
        weights_BHLP = torch.relu(scale * query_BHLd @ keys_BHPd.mT)
        return self.config.scale * weights_BHLP @ values_BHPd

    def initial(self, generator: torch.Generator) -> Params:
        """Draws P_k, and P_v with `init: bert`."""
        keys, values = (0.02 * torch.randn(self.keys.shape, generator=generator) for _ in range(2))
        return {"keys": keys, "values": values if self.config.init == "bert" else torch.zeros_like(values)}


def inject(sites: Sites, config: Any) -> Adapter:
    """Adds keys and values to every attention: `inject(sites, MultiheadParallelConfig())`.

    `models.attention` finds them in the slot BESIDE_SLOT of the attention module.
    """
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(sites.layers):
        count = layer.attention_out.in_features // sites.head_width
        beside = modules[str(index)] = Heads(count, sites.head_width, config)
        # The slot holds a function, because a module would become a child of the backbone.
        setattr(layer.attention, BESIDE_SLOT, lambda query, beside=beside: beside(query))
    return Adapter(config, modules)


METHOD = Method(
    MultiheadParallelConfig,
    inject,
    "head_i + s ReLU(q_i P_k,i^T / sqrt(d)) P_v,i",
    "He et al. 2022, arXiv 2110.04366",
)
