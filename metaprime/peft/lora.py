"""Implements LoRA: a low-rank term on chosen projections (Hu et al. 2022).

    W x + (alpha / r) B A x

A is drawn as `nn.Linear` draws weights and B is zero, which leaves the encoder unchanged at the
start. There are no biases. The term belongs to the weights W: if a layer uses them twice (DeBERTa
with `share_att_key`), it is added twice. In a fused projection, W is the third of the rows that
computes queries, keys or values.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from metaprime.nn import Adapter, dropped, kaiming_uniform, linear
from metaprime.peft.injection import add_to_output, rows_of
from metaprime.peft.method import Dropout, Method, MethodConfig
from metaprime.rng import Noise
from metaprime.types import Params, Sites

Site = Literal["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]


class TermsConfig(MethodConfig):
    """Base of a config of low-rank terms: rank r, alpha (scale alpha / r), sites and dropout."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    sites: tuple[Site, ...] = Field(default=("query", "value"), min_length=1)
    dropout: Dropout = 0.0


class LoraConfig(TermsConfig):
    """Low-rank terms on the projections in `sites`; `dropout` acts on their input in training."""

    method: Literal["lora"] = "lora"


class FfnLoraConfig(TermsConfig):
    """Low-rank terms on the feed-forward projections; `dropout` acts on their input in training."""

    method: Literal["ffn_lora"] = "ffn_lora"
    sites: tuple[Literal["ffn_in"], Literal["ffn_out"]] = ("ffn_in", "ffn_out")


class LowRank(nn.Module):
    """A low-rank term with A (r, I) and B (rows, r).

    `rows` are the rows of the projection's weight that get the term, by default all. The rest of
    the result is zero.
    """

    supports_one_pass = True

    def __init__(self, projection: nn.Linear, config: TermsConfig, rows: range | None = None) -> None:
        super().__init__()
        rows = rows or range(projection.out_features)
        self.scale, self.dropout = config.alpha / config.rank, config.dropout
        if config.dropout:
            self.noise: Noise | None = None
        self.margins = rows.start, projection.out_features - rows.stop
        self.lora_A = nn.Parameter(torch.zeros(config.rank, projection.in_features))
        self.lora_B = nn.Parameter(torch.zeros(len(rows), config.rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (alpha / r) x A^T B^T, (..., O): `term(x)`.

        Args:
            x: input of the projection, (..., I).
        """
        if self.dropout:
            x = dropped(x, self.dropout, self.noise)
        term = self.scale * linear(linear(x, self.lora_A), self.lora_B)
        return nn.functional.pad(term, self.margins) if any(self.margins) else term

    def initial(self, generator: torch.Generator) -> Params:
        """Draws A; B is zero."""
        return {
            "lora_A": kaiming_uniform(*self.lora_A.shape, generator=generator),
            "lora_B": torch.zeros(self.lora_B.shape),
        }


def inject(sites: Sites, config: Any) -> Adapter:
    """Adds a low-rank term to each projection's output: `inject(sites, LoraConfig(rank=4))`."""
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(sites.layers):
        terms = modules[str(index)] = nn.ModuleDict()
        for name in config.sites:
            projection: nn.Linear = getattr(layer, name)
            term = terms[name] = LowRank(projection, config, rows_of(layer, name))
            add_to_output(projection, term, of_output=False)
    return Adapter(config, modules)


HU = "Hu et al. 2022, arXiv 2106.09685"
LORA = Method(LoraConfig, inject, "W x + (alpha / r) B A x", HU)
FFN_LORA = Method(FfnLoraConfig, inject, "W x + (alpha / r) B A x, W the feed-forward projections", HU)
