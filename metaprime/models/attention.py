"""Attention that can be prefixed and batched: our functions behind the encoder's public attention interface.

Registered as `metaprime_sdpa` and `metaprime_eager`. Each does what the stock one does and three things more: it puts a
prefix before keys and values where `peft` left one (PREFIX_SLOT), adds to what the heads give what `peft` wants beside them
(BESIDE_SLOT), and its mask is always spelled out. The stock mask
is left away where nothing is padded, which asks a tensor for its value and therefore breaks under `torch.func.vmap`;
and a name registered without a mask function gets no mask at all, that is, padding is silently attended.

H counts the queries' heads, K those of keys and values: K = H, or fewer in grouped-query attention.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from metaprime.nn import for_each
from metaprime.types import BESIDE_SLOT, PREFIX_SLOT

IMPLEMENTATIONS = {"sdpa": "metaprime_sdpa", "eager": "metaprime_eager"}


class Attend(Protocol):
    """What transformers calls for attention: the result (B, L, H, D / H), and the weights (B, H, L, P + L) or None.

    `attention_mask` (B, 1 or H, L, L) is boolean (True: visible) or added to the scores. Never left away.
    """

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        dropout: float = 0.0,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


def with_prefix(
    module: nn.Module, key_BKLd: torch.Tensor, value_BKLd: torch.Tensor, mask_BHLL: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and mask with the module's prefix in front; unchanged where it has none.

    The prefix is visible to every query, also under a sliding window; positions do not shift (He et al. 2022, prefix
    `concat`).
    """
    source = getattr(module, PREFIX_SLOT, None)
    if source is None:
        return key_BKLd, value_BKLd, mask_BHLL
    key_KPd, value_KPd = source()
    batch = key_BKLd.shape[0]
    key = torch.cat([for_each(key_KPd.to(key_BKLd.dtype), 3, batch), key_BKLd], dim=2)
    value = torch.cat([for_each(value_KPd.to(value_BKLd.dtype), 3, batch), value_BKLd], dim=2)
    visible = True if mask_BHLL.dtype == torch.bool else 0.0
    return key, value, F.pad(mask_BHLL, (key_KPd.shape[-2], 0), value=visible)


def with_beside(module: nn.Module, query_BHLd: torch.Tensor, out_BHLd: torch.Tensor) -> torch.Tensor:
    """The heads' result, and what the module has beside them."""
    beside = getattr(module, BESIDE_SLOT, None)
    return out_BHLd if beside is None else out_BHLd + beside(query_BHLd)


def per_query_head(states_BKLd: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, H, L, D / H): each key or value head as often as there are query heads that share it."""
    shared = heads // states_BKLd.shape[1]
    return states_BKLd if shared == 1 else states_BKLd.repeat_interleave(shared, dim=1)


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
    """`scaled_dot_product_attention` over prefixed keys and values; result (B, L, H, D / H).

    Most fused kernels have no gradient for the mask: one that is added may be learned, and takes the plain kernel.
    """
    key, value, mask = with_prefix(module, key, value, attention_mask)
    key, value = (per_query_head(states, query.shape[1]) for states in (key, value))
    learned = mask.is_floating_point() and torch.is_grad_enabled()
    with sdpa_kernel(SDPBackend.MATH) if learned else contextlib.nullcontext():
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return with_beside(module, query, out).transpose(1, 2).contiguous(), None


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
    key, value = (per_query_head(states, query.shape[1]) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.softmax(query @ key.transpose(-1, -2) * scale + mask, dim=-1)
    weights = F.dropout(weights, dropout)
    return with_beside(module, query, weights @ value).transpose(1, 2).contiguous(), weights


FUNCTIONS: dict[str, Attend] = {"sdpa": sdpa_attention, "eager": eager_attention}


def _spelled_out(stock: str) -> Any:
    def mask(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = ALL_MASK_ATTENTION_FUNCTIONS[stock](*args, **{**kwargs, "allow_is_bidirectional_skip": False})
        assert isinstance(made, torch.Tensor)
        return made

    return mask


def register() -> None:
    """Makes both names known to transformers; calling it again changes nothing."""
    for stock, function in FUNCTIONS.items():
        AttentionInterface.register(IMPLEMENTATIONS[stock], function)
        AttentionMaskInterface.register(IMPLEMENTATIONS[stock], _spelled_out(stock))
