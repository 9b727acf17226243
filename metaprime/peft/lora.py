"""LoRA: a low-rank term on chosen projections (Hu et al. 2022): W x + (alpha / r) B A x.

A from the uniform distribution of `nn.Linear`, B zero: the encoder unchanged at the start. No biases.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from metaprime.peft.method import Method, MethodConfig, add_to_output, kaiming_uniform
from metaprime.types import Params, Sites

Site = Literal["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]


class LoraConfig(MethodConfig):
    """Rank r, alpha (the scale is alpha / r) and the projections that get a term."""

    method: Literal["lora"] = "lora"
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    sites: tuple[Site, ...] = Field(default=("query", "value"), min_length=1)


class LowRank(nn.Module):
    """(alpha / r) * x A^T B^T; x (..., in) to (..., out). A: (r, in), B: (out, r)."""

    def __init__(self, site: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.scale = config.alpha / config.rank
        self.lora_A = nn.Parameter(torch.zeros(config.rank, site.in_features))
        self.lora_B = nn.Parameter(torch.zeros(site.out_features, config.rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.linear(nn.functional.linear(x, self.lora_A), self.lora_B)

    def initial(self, generator: torch.Generator) -> Params:
        return {
            "lora_A": kaiming_uniform(*self.lora_A.shape, generator=generator),
            "lora_B": torch.zeros(self.lora_B.shape),
        }


def inject(sites: Sites, config: Any) -> nn.ModuleDict:
    """Adds each term to its projection's output."""
    modules = nn.ModuleDict()
    for index, layer in enumerate(sites.layers):
        terms = modules[str(index)] = nn.ModuleDict()
        for name in config.sites:
            site = getattr(layer, name)
            term = terms[name] = LowRank(site, config)
            add_to_output(site, term, of_output=False)
    return modules


METHOD = Method(LoraConfig, inject, "W x + (alpha / r) B A x")
