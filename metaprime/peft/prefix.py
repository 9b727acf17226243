"""Implements prefix tuning: l learned keys and values in every self-attention (Li & Liang 2021).

    K <- [P_k; K],  V <- [P_v; V]

The prefixes are raw keys and values, not projected, one pair per layer; positions do not shift.
They change the encoder from the start, because softmax gives them weight. There are two
parametrisations, as in the code of He et al. (2022): direct, with entries from N(0, 0.02)
(`prefix_nomlp`); or by an MLP of width m over l vectors E that all layers share,
P = W_2 tanh(W_1 E + b_1) + b_2, initialised as PyTorch does (`prefix`). A transfer stores the MLP's
output, not the MLP.

Hugging Face's peft passes the prefix through the cache, after which words begin at position l;
`shift_positions` does the same.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from metaprime.nn import Adapter, kaiming_uniform, linear
from metaprime.peft.method import Method
from metaprime.peft.settings import PrefixConfig
from metaprime.types import PREFIX_SLOT, MetaprimeError, Params, Sites, strip_prefix

PAST = "past_key_values_length"
"""Argument of the embeddings of encoders that can be decoders: the number of cached positions."""


class Prefix(nn.Module):
    """The prefix of one layer: keys and values (H, l, D / H), for H heads of keys and values."""

    supports_one_pass = True

    def __init__(self, heads: int, length: int, head_width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(heads, length, head_width))
        self.values = nn.Parameter(torch.zeros(heads, length, head_width))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns keys and values, each (H, l, D / H)."""
        return self.keys, self.values

    def initial(self, generator: torch.Generator) -> Params:
        """Draws keys and values from N(0, 0.02)."""
        shape = self.keys.shape
        return {
            "keys": 0.02 * torch.randn(shape, generator=generator),
            "values": 0.02 * torch.randn(shape, generator=generator),
        }


class Inner(nn.Module):
    """The part of the MLP that all layers share: tanh(W_1 E + b_1), (l, m)."""

    supports_one_pass = True

    def __init__(self, length: int, hidden: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, hidden))
        self.weight = nn.Parameter(torch.zeros(width, hidden))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self) -> torch.Tensor:
        """Returns tanh(W_1 E + b_1), (l, m)."""
        return torch.tanh(linear(self.vectors, self.weight, self.bias))

    def initial(self, generator: torch.Generator) -> Params:
        """Draws the vectors E from N(0, 1), W_1 and b_1 as `nn.Linear` does."""
        vectors = torch.randn(self.vectors.shape, generator=generator)
        return {"vectors": vectors, **_linear_start(self.weight, generator)}


class Outer(nn.Module):
    """The part of W_2 and b_2 that computes one layer's keys and values, each (H, l, D / H)."""

    supports_one_pass = True

    def __init__(self, heads: int, head_width: int, width: int) -> None:
        super().__init__()
        self.shape = (2, heads, head_width)
        self.weight = nn.Parameter(torch.zeros(2 * heads * head_width, width))
        self.bias = nn.Parameter(torch.zeros(2 * heads * head_width))

    def forward(self, inner_Pm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns keys and values, each (H, l, D / H): `keys, values = outer(inner())`.

        Args:
            inner_Pm: output of `Inner`, (l, m).
        """
        both_P2Hd = linear(inner_Pm, self.weight, self.bias).unflatten(-1, self.shape)
        keys_PHd, values_PHd = both_P2Hd.unbind(-3)
        return keys_PHd.transpose(-3, -2), values_PHd.transpose(-3, -2)

    def initial(self, generator: torch.Generator) -> Params:
        """Draws W_2 and b_2 as `nn.Linear` does."""
        return _linear_start(self.weight, generator)


def inject(sites: Sites, config: Any) -> Adapter:
    """Adds a prefix to the attention of every layer: `inject(sites, PrefixConfig(length=30))`.

    `models.attention` finds it in the slot PREFIX_SLOT of the attention module.

    Raises:
        MetaprimeError: `shift_positions` is set and the encoder cannot shift positions.
    """
    if config.shift_positions:
        _shift_positions(sites.encoder, config.length)
    modules: dict[str, nn.Module] = {}
    # Output of `Inner` during a pass of the encoder, empty otherwise.
    shared: list[torch.Tensor] = []
    if config.mlp:
        inner = modules["inner"] = Inner(config.length, sites.hidden, config.mlp)

        def begin(module: nn.Module, inputs: Any) -> None:
            shared[:] = [inner()]

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            shared.clear()

        sites.encoder.register_forward_pre_hook(begin)
        sites.encoder.register_forward_hook(end)
    for index, layer in enumerate(sites.layers):
        # The slot holds a function, because a module would become a child of the backbone.
        if config.mlp:
            outer = modules[str(index)] = Outer(sites.heads, sites.head_width, config.mlp)
            setattr(layer.attention, PREFIX_SLOT, lambda outer=outer: outer(shared[0]))
        else:
            prefix = modules[str(index)] = Prefix(sites.heads, config.length, sites.head_width)
            setattr(layer.attention, PREFIX_SLOT, lambda prefix=prefix: prefix())
    return PrefixAdapter(config, modules)


def _shift_positions(encoder: nn.Module, length: int) -> None:
    """Adds a hook by which the words begin at position `length`.

    Raises:
        MetaprimeError: the encoder's embeddings have no argument for cached positions.
    """
    embeddings = getattr(encoder, "embeddings", None)
    if embeddings is None or PAST not in inspect.signature(embeddings.forward).parameters:
        raise MetaprimeError(
            f"peft.shift_positions: the embeddings of {type(encoder).__name__} cannot shift positions by a cache, which Hugging "
            "Face's peft needs too: set it to false"
        )

    def shift(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**named, PAST: length}

    embeddings.register_forward_pre_hook(shift, with_kwargs=True)


class PrefixAdapter(Adapter):
    """The prefixes of all layers, and the MLP that computes them, if there is one."""

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns config and values of the same prefixes without an MLP: `adapter.collapse(phi)`.

        Args:
            values: phi by local name: keys and values (H, l, D / H), or the weights of the MLP.
        """
        if not self.config.mlp:
            return self.config, values
        inner_Pm = functional_call(self["inner"], strip_prefix("inner", values), ())
        kept: Params = {}
        for index in (name for name in self if name != "inner"):
            keys, states = functional_call(self[index], strip_prefix(index, values), (inner_Pm,))
            kept |= {f"{index}.keys": keys.contiguous(), f"{index}.values": states.contiguous()}
        return self.config.model_copy(update={"mlp": None}), kept


def _linear_start(weight: torch.Tensor, generator: torch.Generator) -> Params:
    """Draws weight and bias as `nn.Linear` does, both uniform in +-1/sqrt(in)."""
    rows, columns = weight.shape
    bias = kaiming_uniform(rows, columns, generator=generator)[:, 0].clone()
    return {"weight": kaiming_uniform(rows, columns, generator=generator), "bias": bias}


METHOD = Method(PrefixConfig, inject, "Attn(Q, [P_k; K], [P_v; V])", "Li & Liang 2021, arXiv 2101.00190")
