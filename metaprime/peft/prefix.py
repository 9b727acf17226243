"""Prefix tuning: l learned keys and values before every self-attention's own (Li & Liang 2021).

K <- [P_k; K], V <- [P_v; V]. The prefixes are raw keys and values, not projected, one pair per layer; positions do not shift.
They are not the identity: softmax weight goes to the prefix from the start. Two parametrisations, as in the code of He et al.
(2022): directly, entries from N(0, 0.02) (`prefix_nomlp`); or through an MLP of width m over l vectors that all layers share,
P = W_2 tanh(W_1 E + b_1) + b_2, initialised as PyTorch does (`prefix`). Of it, a transfer stores what it gives.

Hugging Face's peft feeds the prefix through the cache, after which words begin at position l: so they do with `shift_positions`.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import nn
from torch.func import functional_call

from metaprime.nn import Adapter, kaiming_uniform, linear
from metaprime.peft.method import Method, MethodConfig
from metaprime.types import PREFIX_SLOT, MetaprimeError, Params, Sites, strip_prefix

PAST = "past_key_values_length"
"""What an encoder that can be a decoder tells its embeddings of how much is cached."""


class PrefixConfig(MethodConfig):
    """Prefix length l; `mlp` is the width m of the MLP that it comes from in training, null for none.

    `shift_positions` counts the prefix among the positions, as Hugging Face's peft does; it takes l of them from the words.
    """

    method: Literal["prefix"] = "prefix"
    length: PositiveInt = 16
    mlp: PositiveInt | None = None
    shift_positions: bool = False

    @property
    def identity(self) -> bool:
        return False

    @property
    def positions(self) -> int:
        return self.length if self.shift_positions else 0


class Prefix(nn.Module):
    """Keys and values of one layer, each (H, l, D / H), H being the heads that keys and values have."""

    supports_one_pass = True

    def __init__(self, heads: int, length: int, head_width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(heads, length, head_width))
        self.values = nn.Parameter(torch.zeros(heads, length, head_width))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values

    def initial(self, generator: torch.Generator) -> Params:
        shape = self.keys.shape
        return {
            "keys": 0.02 * torch.randn(shape, generator=generator),
            "values": 0.02 * torch.randn(shape, generator=generator),
        }


class Inner(nn.Module):
    """tanh(W_1 E + b_1), which all layers read: (l, m)."""

    supports_one_pass = True

    def __init__(self, length: int, hidden: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, hidden))
        self.weight = nn.Parameter(torch.zeros(width, hidden))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self) -> torch.Tensor:
        return torch.tanh(linear(self.vectors, self.weight, self.bias))

    def initial(self, generator: torch.Generator) -> Params:
        vectors = torch.randn(self.vectors.shape, generator=generator)
        return {"vectors": vectors, **_linear_start(self.weight, generator)}


class Outer(nn.Module):
    """One layer's part of W_2 and b_2: (l, m) to keys and values, each (H, l, D / H)."""

    supports_one_pass = True

    def __init__(self, heads: int, head_width: int, width: int) -> None:
        super().__init__()
        self.shape = (2, heads, head_width)
        self.weight = nn.Parameter(torch.zeros(2 * heads * head_width, width))
        self.bias = nn.Parameter(torch.zeros(2 * heads * head_width))

    def forward(self, inner_Pm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both_P2Hd = linear(inner_Pm, self.weight, self.bias).unflatten(-1, self.shape)
        keys_PHd, values_PHd = both_P2Hd.unbind(-3)
        return keys_PHd.transpose(-3, -2), values_PHd.transpose(-3, -2)

    def initial(self, generator: torch.Generator) -> Params:
        return _linear_start(self.weight, generator)


def inject(sites: Sites, config: Any) -> Adapter:
    """Leaves each layer's prefix where `models.attention` looks for it."""
    if config.shift_positions:
        _shift_positions(sites.encoder, config.length)
    modules: dict[str, nn.Module] = {}
    given: list[torch.Tensor] = []  # what all layers read, from the encoder's start to its end
    if config.mlp:
        inner = modules["inner"] = Inner(config.length, sites.hidden, config.mlp)

        def begin(module: nn.Module, inputs: Any) -> None:
            given[:] = [inner()]

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            given.clear()

        sites.encoder.register_forward_pre_hook(begin)
        sites.encoder.register_forward_hook(end)
    for index, layer in enumerate(sites.layers):
        # Functions, so that the attention module does not adopt the prefix as a child of the backbone.
        if config.mlp:
            outer = modules[str(index)] = Outer(sites.heads, sites.head_width, config.mlp)
            setattr(layer.attention, PREFIX_SLOT, lambda outer=outer: outer(given[0]))
        else:
            prefix = modules[str(index)] = Prefix(sites.heads, config.length, sites.head_width)
            setattr(layer.attention, PREFIX_SLOT, lambda prefix=prefix: prefix())
    return PrefixAdapter(config, modules)


def _shift_positions(encoder: nn.Module, length: int) -> None:
    """From now on the words begin at a later position.

    Raises:
        MetaprimeError: this encoder's embeddings know no cache, as peft's prefix needs it too.
    """
    embeddings = getattr(encoder, "embeddings", None)
    if embeddings is None or PAST not in inspect.signature(embeddings.forward).parameters:
        raise MetaprimeError(
            f"peft.shift_positions: {type(encoder).__name__} does not count its words' positions from what is cached, and peft "
            "has no prefix for it: leave it out"
        )

    def shift(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**named, PAST: length}

    embeddings.register_forward_pre_hook(shift, with_kwargs=True)


class PrefixAdapter(Adapter):
    """The prefixes of all layers, and the MLP that they come from, if there is one."""

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns the prefixes that the MLP gives, as those of a prefix without one."""
        if not self.config.mlp:
            return self.config, values
        inner_Pm = functional_call(self["inner"], strip_prefix("inner", values), ())
        kept: Params = {}
        for index in (name for name in self if name != "inner"):
            keys, states = functional_call(self[index], strip_prefix(index, values), (inner_Pm,))
            kept |= {f"{index}.keys": keys.contiguous(), f"{index}.values": states.contiguous()}
        return self.config.model_copy(update={"mlp": None}), kept


def _linear_start(weight: torch.Tensor, generator: torch.Generator) -> Params:
    """Weight and bias as `nn.Linear` starts with them, both uniform in +-1/sqrt(in)."""
    rows, columns = weight.shape
    bias = kaiming_uniform(rows, columns, generator=generator)[:, 0].clone()
    return {"weight": kaiming_uniform(rows, columns, generator=generator), "bias": bias}


METHOD = Method(PrefixConfig, inject, "Attn(Q, [P_k; K], [P_v; V])", "Li & Liang 2021, arXiv 2101.00190")
