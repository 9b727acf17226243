"""Implements LoRA: a low-rank term on chosen projections (Hu et al. 2022).

    W x + (alpha / r) B A x

A is drawn as `nn.Linear` draws weights and B is zero, which leaves the encoder unchanged at the
start. There are no biases. The term belongs to the weights W: if a layer uses them twice (DeBERTa
with `share_att_key`), it is added twice. In a fused projection, W is the third of the rows that
computes queries, keys or values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter, dropped, kaiming_uniform, linear
from metaprime.peft.injection import add_to_output, rows_of
from metaprime.peft.method import Method
from metaprime.peft.settings import FfnLoraConfig, LoraConfig, TermsConfig
from metaprime.rng import Noise
from metaprime.types import Params, Sites


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
