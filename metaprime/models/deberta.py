"""DeBERTa-v2's disentangled attention (He et al. 2021, 2006.03654), carried out by our attention functions.

The stock module spells its attention out and goes through no interface, so that it takes no prefix and no fused kernel.
Here the two position terms become an additive mask, and the rest is attention like everyone's. A prefix has no position:
its columns of the mask are zero. With `share_att_key`, query and key projections are used twice in a forward pass, on
the words and on the relative positions; what modifies the projection modifies both uses.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from metaprime.models.attention import Attend


def bind(attention: nn.Module, attend: Attend) -> None:
    """From now on this one module (and copies of it) attends through `attend`. Parameters and names stay as they were.

    Args:
        attention: a `DisentangledSelfAttention`.
        attend: one of `attention.FUNCTIONS`.
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
        asked = hidden_states if query_states is None else query_states
        query, key, value = (  # each (B * H, L, D / H), as the stock position terms want them
            self.transpose_for_scores(projection(states), heads)
            for projection, states in (
                (self.query_proj, asked),
                (self.key_proj, hidden_states),
                (self.value_proj, hidden_states),
            )
        )
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scores_BHLL = query.new_zeros(batch, heads, asked.shape[1], length)
        if self.relative_attention:
            positions = self.pos_dropout(rel_embeddings)
            bias = self.disentangled_attention_bias(query, key, relative_pos, positions, terms)
            scores_BHLL = scores_BHLL + bias.view(scores_BHLL.shape)
        mask_BHLL = scores_BHLL.masked_fill(~attention_mask.bool(), torch.finfo(query.dtype).min)
        query, key, value = (states.view(batch, heads, -1, states.shape[-1]) for states in (query, key, value))
        dropout = self.dropout.p if self.training else 0.0
        scaling = (query.shape[-1] * terms) ** -0.5
        out, weights = attend(self, query, key, value, mask_BHLL, dropout=dropout, scaling=scaling)
        return out.flatten(2), weights

    attention.forward = MethodType(forward, attention)
