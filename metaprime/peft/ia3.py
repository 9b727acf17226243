"""Implements (IA)3: learned factors on keys, values and feed-forward activations (Liu et al. 2022).

    K <- l_k * K,  V <- l_v * V,  FFN(x) = W_2 (l_ff * f(W_1 x))

The factors start at one, which leaves the encoder unchanged. If a layer uses its key projection
twice (DeBERTa with `share_att_key`), both uses are multiplied.
"""

from __future__ import annotations

import torch
from torch import nn

from metaprime.nn import Adapter, broadcast_like
from metaprime.peft.injection import rows_of
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.settings import OWN_RATES, Ia3Config
from metaprime.types import Params, Sites


class Factors(nn.Module):
    """Factors of some `rows` of D entries; all other entries have the factor one."""

    supports_one_pass = True

    def __init__(self, width: int, rows: range) -> None:
        super().__init__()
        self.margins = rows.start, width - rows.stop
        self.factors = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x times the factors, entry by entry: `factors(x)`.

        Args:
            x: (..., D).
        """
        factors = nn.functional.pad(self.factors, self.margins, value=1.0) if any(self.margins) else self.factors
        return x * broadcast_like(factors, x)

    def initial(self, generator: torch.Generator) -> Params:
        """Returns factors of one."""
        return {"factors": torch.ones(self.factors.shape)}


def inject(sites: Sites, config: MethodConfig) -> Adapter:
    """Hooks outputs of `key` and `value`, inputs of `ffn_out`: `inject(sites, Ia3Config())`."""
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


METHOD = Method(
    Ia3Config,
    inject,
    "l_k * K, l_v * V, W_2 (l_ff * f(W_1 x))",
    "Liu et al. 2022, arXiv 2205.05638",
    rate=OWN_RATES["ia3"],
)
