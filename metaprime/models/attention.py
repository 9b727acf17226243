"""Attention functions with prefixes and explicit masks, registered behind transformers' attention interface.

`metaprime_sdpa` and `metaprime_eager` compute what the stock functions do, with three additions: they
prepend a module's prefix to keys and values (PREFIX_SLOT), add a module's own term to the output of
the heads (BESIDE_SLOT), and always get an explicit mask. transformers omits the mask if nothing is
padded; that check reads a tensor's value and so fails under `torch.func.vmap`. A name that is
registered without a mask function gets no mask at all, so padding would be attended to.

H counts the heads of queries, K those of keys and values: K = H, or fewer in grouped-query attention.
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
from metaprime.types import BESIDE_SLOT, PREFIX_SLOT, MetaprimeError

IMPLEMENTATIONS = {"sdpa": "metaprime_sdpa", "eager": "metaprime_eager"}


class Attend(Protocol):
    """An attention function as transformers calls it.

    Args:
        module: the attention module, whose slots may hold a prefix and a term.
        query: `(B, H, L, D / H)`.
        key, value: `(B, K, L, D / H)`.
        attention_mask: `(B, H, L, L)`, H may be 1; boolean (True: visible) or added to the scores.
        position_bias: `(1, H, L, L)`, added to the scores as well (T5), or None.

    Returns:
        The output `(B, L, H, D / H)`, and the weights `(B, H, L, P + L)` or None.
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
        position_bias: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


def with_prefix(
    module: nn.Module, key_BKLd: torch.Tensor, value_BKLd: torch.Tensor, mask_BHLL: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prepends the module's prefix, if it has one, to keys, values and mask.

    The prefix is visible to every query, even under a sliding window, and positions do not shift
    (He et al. 2022, prefix `concat`).

    Args:
        module: an attention module, whose PREFIX_SLOT may hold a prefix.
        key_BKLd: `(B, K, L, D / H)`.
        value_BKLd: `(B, K, L, D / H)`.
        mask_BHLL: `(B, H, L, L)`, boolean or additive.

    Returns:
        Keys and values `(B, K, P + L, D / H)`, and the mask `(B, H, L, P + L)`.

    Example: `key, value, mask = with_prefix(module, key, value, mask)`
    """
    prefix = getattr(module, PREFIX_SLOT, None)
    if prefix is None:
        return key_BKLd, value_BKLd, mask_BHLL
    key_KPd, value_KPd = prefix()
    batch = key_BKLd.shape[0]
    key = torch.cat([for_each(key_KPd.to(key_BKLd.dtype), 3, batch), key_BKLd], dim=2)
    value = torch.cat([for_each(value_KPd.to(value_BKLd.dtype), 3, batch), value_BKLd], dim=2)
    visible = True if mask_BHLL.dtype == torch.bool else 0.0
    return key, value, F.pad(mask_BHLL, (key_KPd.shape[-2], 0), value=visible)


def with_beside(module: nn.Module, query_BHLd: torch.Tensor, out_BHLd: torch.Tensor) -> torch.Tensor:
    """Adds the module's term in BESIDE_SLOT, if it has one, to the output of the heads.

    Args:
        module: an attention module.
        query_BHLd: `(B, H, L, D / H)`, the argument of the term.
        out_BHLd: `(B, H, L, D / H)`, also the shape of the result.

    Example: `out = with_beside(module, query, weights @ value)`
    """
    beside = getattr(module, BESIDE_SLOT, None)
    return out_BHLd if beside is None else out_BHLd + beside(query_BHLd)


def per_query_head(states_BKLd: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeats each key or value head for all query heads that share it.

    Args:
        states_BKLd: keys or values `(B, K, L, D / H)`.
        heads: H, a multiple of K.

    Returns:
        `(B, H, L, D / H)`.

    Example: `per_query_head(key, query.shape[1])`
    """
    shared = heads // states_BKLd.shape[1]
    return states_BKLd if shared == 1 else states_BKLd.repeat_interleave(shared, dim=1)


def _biased(mask_BHLL: torch.Tensor, bias_HLL: torch.Tensor | None) -> torch.Tensor:
    """Returns the mask with a bias of the scores in it."""
    if bias_HLL is None:
        return mask_BHLL
    if mask_BHLL.dtype == torch.bool:
        return torch.where(mask_BHLL, bias_HLL, torch.finfo(bias_HLL.dtype).min)
    return mask_BHLL + bias_HLL


def _refuse_unknown(module: nn.Module, others: dict[str, Any]) -> None:
    """Refuses arguments that change what attention computes, which would otherwise be dropped silently."""
    for name, value in others.items():
        if (name == "softcap" and value is not None) or (isinstance(value, torch.Tensor) and value.is_floating_point()):
            raise MetaprimeError(
                f"{type(module).__name__} gives its attention a {name}, which metaprime's attention does not compute: choose "
                "another encoder"
            )


def sdpa_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Computes attention by torch's fused kernels; an `Attend`.

    Args:
        module: the attention module.
        query: `(B, H, L, D / H)`.
        key: `(B, K, L, D / H)`.
        value: `(B, K, L, D / H)`.
        attention_mask: `(B, H, L, L)`, boolean or additive.
        dropout: probability that a weight is dropped.
        scaling: factor of the scores; by default one over the square root of D / H.
        position_bias: `(1, H, L, L)`, added to the scores as well, or None.

    Raises:
        MetaprimeError: `others` has an argument that would change the result.

    Returns:
        The output `(B, L, H, D / H)`, and None for the weights.
    """
    _refuse_unknown(module, others)
    key, value, mask = with_prefix(module, key, value, _biased(attention_mask, position_bias))
    key, value = (per_query_head(states, query.shape[1]) for states in (key, value))
    # Most fused kernels have no gradient for the mask. An additive mask may be learned, so it takes the plain kernel.
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
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes attention step by step, differentiable any number of times; an `Attend`.

    Args:
        module: the attention module.
        query: `(B, H, L, D / H)`.
        key: `(B, K, L, D / H)`.
        value: `(B, K, L, D / H)`.
        attention_mask: `(B, H, L, L)`, additive.
        dropout: probability that a weight is dropped.
        scaling: factor of the scores; by default one over the square root of D / H.
        position_bias: `(1, H, L, L)`, added to the scores as well, or None.

    Raises:
        MetaprimeError: `others` has an argument that would change the result.

    Returns:
        The output `(B, L, H, D / H)`, and the weights `(B, H, L, P + L)`.
    """
    _refuse_unknown(module, others)
    key, value, mask = with_prefix(module, key, value, _biased(attention_mask, position_bias))
    key, value = (per_query_head(states, query.shape[1]) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = torch.softmax(query @ key.transpose(-1, -2) * scale + mask, dim=-1)
    weights = F.dropout(weights, dropout)
    return with_beside(module, query, weights @ value).transpose(1, 2).contiguous(), weights


FUNCTIONS: dict[str, Attend] = {"sdpa": sdpa_attention, "eager": eager_attention}


def _explicit_mask(stock: str) -> Any:
    """Returns the stock mask function with the options that omit masks switched off."""

    def make_mask(*args: Any, **kwargs: Any) -> torch.Tensor:
        spelled_out = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
        mask = ALL_MASK_ATTENTION_FUNCTIONS[stock](*args, **{**kwargs, **spelled_out})
        assert isinstance(mask, torch.Tensor)
        return mask

    return make_mask


def register() -> None:
    """Registers both functions with transformers; a second call has no effect.

    Example: `register(); AutoModel.from_pretrained(name, attn_implementation=IMPLEMENTATIONS["sdpa"])`
    """
    for stock, function in FUNCTIONS.items():
        AttentionInterface.register(IMPLEMENTATIONS[stock], function)
        AttentionMaskInterface.register(IMPLEMENTATIONS[stock], _explicit_mask(stock))
