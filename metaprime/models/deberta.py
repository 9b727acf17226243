"""DeBERTa-v2's disentangled attention (He et al. 2021, 2006.03654) on top of our attention functions.

The stock module computes attention inline, so it supports no prefix and no fused kernel. Here the two
position terms become an additive mask for an ordinary attention function. A prefix has no position:
its columns of the mask are zero. With `share_att_key` a forward pass uses the query and key
projections twice, on words and on relative positions; a method that modifies a projection modifies
both uses.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from metaprime.models.attention import Attend


def bind(attention: nn.Module, attend: Attend) -> None:
    """Replaces the forward method of one attention module (and of its later copies) by one that calls `attend`.

    Parameters and their names do not change.

    Args:
        attention: a `DisentangledSelfAttention`.
        attend: one of `attention.FUNCTIONS`.

    Example: `bind(layer.attention.self, FUNCTIONS["sdpa"])`
    """

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_attentions: bool = False,
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
        rel_embeddings: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads, (batch, length, _) = self.num_attention_heads, hidden_states.shape
        queried = hidden_states if query_states is None else query_states
        # Each is (B * H, L, D / H), the shape that the stock position terms take.
        query, key, value = (
            self.transpose_for_scores(projection(states), heads)
            for projection, states in (
                (self.query_proj, queried),
                (self.key_proj, hidden_states),
                (self.value_proj, hidden_states),
            )
        )

        # The position terms become an additive mask.
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scores_BHLL = query.new_zeros(batch, heads, queried.shape[1], length)
        if self.relative_attention:
            positions = self.pos_dropout(rel_embeddings)
            bias = self.disentangled_attention_bias(query, key, relative_pos, positions, terms)
            scores_BHLL = scores_BHLL + bias.view(scores_BHLL.shape)
        mask_BHLL = scores_BHLL.masked_fill(~attention_mask.bool(), torch.finfo(query.dtype).min)

        # Ordinary attention.
        query, key, value = (states.view(batch, heads, -1, states.shape[-1]) for states in (query, key, value))
        dropout = self.dropout.p if self.training else 0.0
        scaling = (query.shape[-1] * terms) ** -0.5
        out, weights = attend(self, query, key, value, mask_BHLL, dropout=dropout, scaling=scaling)
        return out.flatten(2), weights

    attention.forward = MethodType(forward, attention)
