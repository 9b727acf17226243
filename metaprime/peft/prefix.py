"""Prefix tuning: l learned keys and values before every self-attention's own (Li & Liang 2021).

K <- [P_k; K], V <- [P_v; V]. The prefixes are raw keys and values, not projected, one pair per layer; positions do
not shift. Direct parametrisation, entries from N(0, 0.02) (`prefix_nomlp` in the code of He et al. 2022), which is
not the identity: softmax weight goes to the prefix from the start.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import nn

from metaprime.peft.method import Method, MethodConfig
from metaprime.types import PREFIX_SLOT, Params, Sites


class PrefixConfig(MethodConfig):
    """Prefix length l."""

    method: Literal["prefix"] = "prefix"
    length: PositiveInt = 16

    @property
    def identity(self) -> bool:
        return False


class Prefix(nn.Module):
    """Keys and values of one layer, each (H, l, D / H), H being the heads that keys and values have."""

    per_episode = True

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


def inject(sites: Sites, config: Any) -> nn.ModuleDict:
    """Leaves each layer's prefix where `models.attention` looks for it."""
    modules = nn.ModuleDict()
    for index, layer in enumerate(sites.layers):
        prefix = modules[str(index)] = Prefix(sites.heads, config.length, sites.head_width)
        # A function, so that the attention module does not adopt the prefix as a child of the backbone.
        setattr(layer.attention, PREFIX_SLOT, lambda prefix=prefix: prefix())
    return modules


METHOD = Method(PrefixConfig, inject, "Attn(Q, [P_k; K], [P_v; V])", "Li & Liang 2021, arXiv 2101.00190")
