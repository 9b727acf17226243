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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from metaprime import packing
from metaprime.nn import for_each
from metaprime.packing import NotPackable, Packing
from metaprime.types import BESIDE_SLOT, PREFIX_SLOT, MetaprimeError

IMPLEMENTATIONS = {"sdpa": "metaprime_sdpa", "eager": "metaprime_eager"}


class Attend(Protocol):
    """An attention function as transformers calls it.

    Args:
        module: the attention module, whose slots may hold a prefix and a term.
        query: `(B, H, L, D / H)`.
        key, value: `(B, K, L, D / H)`.
        attention_mask: `(B, H, L, L)`, H may be 1; boolean (True: visible) or added to the scores. In a
            packed call `(1, 1, L, L)`, what hides sub-words of one window from each other, or None.
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
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        position_bias: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


PrefixStates = tuple[torch.Tensor, torch.Tensor] | None
"""Keys and values of a prefix for every window, each (B, K, P, D / H); None: there is none."""


def prefix_of(module: nn.Module, key_BKLd: torch.Tensor) -> PrefixStates:
    """Returns the module's prefix for every window of a batch; None if it has none.

    Args:
        module: an attention module, whose PREFIX_SLOT may hold a prefix.
        key_BKLd: `(B, K, L, D / H)`.

    Returns:
        Keys and values, each `(B, K, P, D / H)`.

    Example: `prefix = prefix_of(module, key)`
    """
    slot = getattr(module, PREFIX_SLOT, None)
    if slot is None:
        return None
    row = packing.current()
    windows = len(key_BKLd) if row is None else len(row.lengths)
    key, value = (for_each(states.to(key_BKLd.dtype), 3, windows) for states in slot())
    return key, value


def with_prefix(
    prefix: PrefixStates,
    key_BKLd: torch.Tensor,
    value_BKLd: torch.Tensor,
    mask_BHLL: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Prepends a prefix, if there is one, to keys, values and mask.

    The prefix is visible to every query, even under a sliding window, and positions do not shift
    (He et al. 2022, prefix `concat`).

    Args:
        prefix: keys and values, each `(B, K, P, D / H)`.
        key_BKLd: `(B, K, L, D / H)`.
        value_BKLd: `(B, K, L, D / H)`.
        mask_BHLL: `(B, H, L, L)`, boolean or additive; None: all is visible.

    Returns:
        Keys and values `(B, K, P + L, D / H)`, and the mask `(B, H, L, P + L)` or None.

    Example: `key, value, mask = with_prefix(prefix_of(module, key), key, value, mask)`
    """
    if prefix is None:
        return key_BKLd, value_BKLd, mask_BHLL
    key, value = (torch.cat(pair, dim=2) for pair in zip(prefix, (key_BKLd, value_BKLd), strict=True))
    if mask_BHLL is None:
        return key, value, None
    visible = True if mask_BHLL.dtype == torch.bool else 0.0
    return key, value, F.pad(mask_BHLL, (prefix[0].shape[-2], 0), value=visible)


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


def _biased(mask_BHLL: torch.Tensor | None, bias_HLL: torch.Tensor | None) -> torch.Tensor | None:
    """Returns the mask with a bias of the scores in it."""
    if bias_HLL is None or mask_BHLL is None:
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


Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, float | None],
    tuple[torch.Tensor, torch.Tensor | None],
]
"""`kernel(query, key, value, mask, dropout, scaling)` returns the output of the heads `(B, H, L, D / H)`
and the weights `(B, H, L, P + L)` or None; key and value have H heads, and no mask hides nothing."""


def fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> tuple[torch.Tensor, None]:
    """Computes attention by torch's fused kernels; a `Kernel`.

    Args:
        query: `(B, H, L, D / H)`.
        key, value: `(B, H, P + L, D / H)`.
        mask: `(B, H, L, P + L)`, boolean or additive, or None.
        dropout: probability that a weight is dropped.
        scaling: factor of the scores; by default one over the square root of D / H.
    """
    # Most fused kernels have no gradient for the mask. An additive mask may be learned, so it takes the plain kernel.
    learned = mask is not None and mask.is_floating_point() and torch.is_grad_enabled()
    with sdpa_kernel(SDPBackend.MATH) if learned else contextlib.nullcontext():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling), None


def step_by_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes attention in single operations, differentiable any number of times; a `Kernel`.

    Args:
        query: `(B, H, L, D / H)`.
        key, value: `(B, H, P + L, D / H)`.
        mask: `(B, H, L, P + L)`, boolean or additive, or None.
        dropout: probability that a weight is dropped.
        scaling: factor of the scores; by default one over the square root of D / H.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(-1, -2) * scale
    if mask is not None:
        hidden = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, hidden) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(torch.softmax(scores, dim=-1), dropout)
    return weights @ value, weights


def attention(kernel: Kernel) -> Attend:
    """Returns the attention function over a kernel: `attention(fused)`.

    In a packed call (`metaprime.packing`) query, key and value are one row of sub-words, and the mask is
    what hides sub-words of one window from each other, such as a sliding window: `(1, 1, L, L)` or None.
    Raises a MetaprimeError for an argument that would change the result.
    """

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        position_bias: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        _refuse_unknown(module, others)
        row, prefix = packing.current(), prefix_of(module, key)

        def heads(
            states: Sequence[torch.Tensor], mask: torch.Tensor | None, prefix: PrefixStates
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            key, value, mask = with_prefix(prefix, states[1], states[2], mask)
            key, value = (per_query_head(each, states[0].shape[1]) for each in (key, value))
            return kernel(states[0], key, value, mask, dropout, scaling)

        if row is None:
            out, weights = heads((query, key, value), _biased(attention_mask, position_bias), prefix)
            return with_beside(module, query, out).transpose(1, 2).contiguous(), weights
        if position_bias is not None:
            raise NotPackable(f"{type(module).__name__} adds a bias of positions to its scores")
        if row.window_by_window(query) and not hasattr(module, BESIDE_SLOT):
            outs = [heads(*window)[0] for window in _windows(row, (query, key, value), attention_mask, prefix)]
            return torch.cat(outs, dim=2).transpose(1, 2), None
        padded = [row.pad(states.transpose(1, 2)).transpose(1, 2) for states in (query, key, value)]
        out, _ = heads(padded, _padded(attention_mask, row), prefix)
        return row.pack(with_beside(module, padded[0], out).transpose(1, 2)), None

    return attend


def _windows(
    row: Packing, states: Sequence[torch.Tensor], mask: torch.Tensor | None, prefix: PrefixStates
) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor | None, PrefixStates]]:
    """Yields query, key and value of each window of a row, `(1, H, L_b, D / H)`, with its mask and its prefix."""
    each = zip(row.lengths, *(part.split(row.lengths, dim=2) for part in states), strict=True)
    for place, (length, *own) in enumerate(each):
        visible = None if mask is None else mask[..., :length, :length]
        yield tuple(own), visible, None if prefix is None else (prefix[0][place, None], prefix[1][place, None])


def _padded(pattern_11LL: torch.Tensor | None, row: Packing) -> torch.Tensor:
    """Returns the mask of a packed call's padded batch, `(B, 1, 1, L)` or `(B, 1, L, L)`, boolean or additive."""
    real_B11L = row.mask.ne(0)[:, None, None]
    if pattern_11LL is None:
        return real_B11L
    if pattern_11LL.dtype == torch.bool:
        return real_B11L & pattern_11LL
    return pattern_11LL.masked_fill(~real_B11L, torch.finfo(pattern_11LL.dtype).min)


FUNCTIONS: dict[str, Attend] = {"sdpa": attention(fused), "eager": attention(step_by_step)}


def _explicit_mask(stock: str) -> Any:
    """Returns the stock mask function with the options that omit masks switched off.

    In a packed call it returns what hides sub-words of one window from each other, `(1, 1, L, L)`, or
    None if nothing does.
    """

    def make_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
        given = {**kwargs, "allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
        row = packing.current()
        if row is not None:
            longest = row.mask.shape[1]
            given |= {"batch_size": 1, "q_length": longest, "kv_length": longest, "attention_mask": None}
        mask = ALL_MASK_ATTENTION_FUNCTIONS[stock](*args, **given)
        assert isinstance(mask, torch.Tensor)
        return mask if row is None or _hides(mask) else None

    return make_mask


def _hides(mask: torch.Tensor) -> bool:
    """Returns True if a mask, boolean or additive, hides anything."""
    return bool((~mask if mask.dtype == torch.bool else mask).any())


def register() -> None:
    """Registers both functions with transformers; a second call has no effect.

    Example: `register(); AutoModel.from_pretrained(name, attn_implementation=IMPLEMENTATIONS["sdpa"])`
    """
    for stock, function in FUNCTIONS.items():
        AttentionInterface.register(IMPLEMENTATIONS[stock], function)
        AttentionMaskInterface.register(IMPLEMENTATIONS[stock], _explicit_mask(stock))
