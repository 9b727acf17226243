"""Attention that can be prefixed and batched: our functions behind the encoder's public attention interface.

Registered as `metaprime_sdpa` and `metaprime_eager`. Each does what the stock one does and two things more: it puts a
prefix before keys and values where `peft` left one (PREFIX_SLOT), and its mask is always spelled out. The stock mask
is left away where nothing is padded, which asks a tensor for its value and therefore breaks under `torch.func.vmap`;
and a name registered without a mask function gets no mask at all, that is, padding is silently attended.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from metaprime.types import PREFIX_SLOT

IMPLEMENTATIONS = {"sdpa": "metaprime_sdpa", "eager": "metaprime_eager"}


def with_prefix(
    module: nn.Module, key_BHLd: torch.Tensor, value_BHLd: torch.Tensor, mask_B1LL: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and mask with the module's prefix in front; unchanged where it has none.

    The prefix is visible to every query; positions do not shift (He et al. 2022, prefix `concat`).
    """
    source = getattr(module, PREFIX_SLOT, None)
    if source is None:
        return key_BHLd, value_BHLd, mask_B1LL
    key_HPd, value_HPd = source()
    batch = key_BHLd.shape[0]
    key = torch.cat([key_HPd.to(key_BHLd.dtype).expand(batch, -1, -1, -1), key_BHLd], dim=2)
    value = torch.cat([value_HPd.to(value_BHLd.dtype).expand(batch, -1, -1, -1), value_BHLd], dim=2)
    visible = True if mask_B1LL.dtype == torch.bool else 0.0
    return key, value, F.pad(mask_B1LL, (key_HPd.shape[1], 0), value=visible)


def sdpa_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """`scaled_dot_product_attention` over prefixed keys and values; result (B, L, H, D / H)."""
    key, value, mask = with_prefix(module, key, value, attention_mask)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by hand, differentiable any number of times; also gives the weights (B, H, L, P + L)."""
    key, value, mask = with_prefix(module, key, value, attention_mask)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.softmax(query @ key.transpose(-1, -2) * scale + mask, dim=-1)
    weights = F.dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _spelled_out(stock: str) -> Any:
    def mask(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = ALL_MASK_ATTENTION_FUNCTIONS[stock](*args, **{**kwargs, "allow_is_bidirectional_skip": False})
        assert isinstance(made, torch.Tensor)
        return made

    return mask


def register() -> None:
    """Makes both names known to transformers; calling it again changes nothing."""
    for stock, function in (("sdpa", sdpa_attention), ("eager", eager_attention)):
        AttentionInterface.register(IMPLEMENTATIONS[stock], function)
        AttentionMaskInterface.register(IMPLEMENTATIONS[stock], _spelled_out(stock))
