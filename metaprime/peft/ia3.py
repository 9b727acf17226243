"""(IA)3: keys, values and the feed-forward block's inner activations, each entry times a learned factor (Liu et al. 2022).

    K <- l_k * K,  V <- l_v * V,  FFN(x) = W_2 (l_ff * f(W_1 x))

The factors start at one: the encoder unchanged. Where a layer uses its keys' projection twice (DeBERTa with `share_att_key`),
both uses are multiplied.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from metaprime.nn import Adapter, broadcast_like
from metaprime.peft.injection import rows_of
from metaprime.peft.method import Method, MethodConfig
from metaprime.types import Params, Sites


class Ia3Config(MethodConfig):
    """Nothing to set."""

    method: Literal["ia3"] = "ia3"


class Factors(nn.Module):
    """x (..., D) entry by entry times the factors, which belong to some `rows` of D; the others are not changed."""

    supports_one_pass = True

    def __init__(self, width: int, rows: range) -> None:
        super().__init__()
        self.margins = rows.start, width - rows.stop
        self.factors = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factors = nn.functional.pad(self.factors, self.margins, value=1.0) if any(self.margins) else self.factors
        return x * broadcast_like(factors, x)

    def initial(self, generator: torch.Generator) -> Params:
        return {"factors": torch.ones(self.factors.shape)}


def inject(sites: Sites, config: MethodConfig) -> Adapter:
    """Hooks the outputs of the keys' and values' projections and the input of the feed-forward block's second one."""
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(sites.layers):
        key, value = (
            Factors(projection.out_features, rows_of(layer, name))
            for name, projection in (("key", layer.key), ("value", layer.value))
        )
        inner = Factors(layer.ffn_out.in_features, range(layer.ffn_out.in_features))
        layer.key.register_forward_hook(lambda module, inputs, output, key=key: key(output))
        layer.value.register_forward_hook(lambda module, inputs, output, value=value: value(output))
        layer.ffn_out.register_forward_pre_hook(lambda module, inputs, inner=inner: (inner(inputs[0]), *inputs[1:]))
        modules[str(index)] = nn.ModuleDict({"key_factors": key, "value_factors": value, "ffn_factors": inner})
    return Adapter(config, modules)


METHOD = Method(Ia3Config, inject, "l_k * K, l_v * V, W_2 (l_ff * f(W_1 x))", "Liu et al. 2022, arXiv 2205.05638")
