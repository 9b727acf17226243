"""Implements bottleneck adapters: the design space of He et al. (2022, 2110.04366).

    A(x) = s (drop(f(W_d x + b_d)) W_u + b_u),   h <- h + A(x)

`at` (the block) and `insertion` (the order) define h and x:

    insertion     at: attention                                       at: ffn
    sequential    h = x = the block's projected output                h = x = the feed-forward output
    parallel      h = the heads' context before W_o, x = its input    h = the feed-forward output, x = the block's input
    pfeiffer      (none)                                              h = z = feed-forward output + residual, x = LN(z)

`pfeiffer` computes LN(z + A(LN(z))): the same frozen layer norm twice, and the residual is the sum
before it (Pfeiffer et al. 2021; `ffn_option=pfeiffer` in the code of He et al.). In a pre-LN
encoder, which has no such norm, z is the layer's output, and becomes z + A(z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter, broadcast_like, dropped, kaiming_uniform, linear
from metaprime.peft.injection import add_between, add_to_output
from metaprime.peft.method import Method
from metaprime.peft.settings import (
    BottleneckConfig,
    DesignConfig,
    HoulsbyConfig,
    ParallelAttentionConfig,
    ParallelConfig,
    PfeifferConfig,
    ScaledParallelConfig,
)
from metaprime.rng import Noise
from metaprime.types import LayerSites, Params, Sites

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


class Bottleneck(nn.Module):
    """One bottleneck A, from x (..., I) to a change (..., O), and its composition with h."""

    supports_one_pass = True

    def __init__(self, rows_in: int, rows_out: int, config: DesignConfig) -> None:
        super().__init__()
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        if config.layer_norm == "in":
            self.norm_weight = nn.Parameter(torch.zeros(rows_in))
            self.norm_bias = nn.Parameter(torch.zeros(rows_in))
        self.down_weight = nn.Parameter(torch.zeros(config.bottleneck, rows_in))
        self.down_bias = nn.Parameter(torch.zeros(config.bottleneck))
        self.up_weight = nn.Parameter(torch.zeros(rows_out, config.bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(rows_out))
        if config.composition == "learned":
            self.scale = nn.Parameter(torch.zeros(1))
        if config.composition == "gated":
            self.gate = nn.Parameter(torch.zeros(1))
        if config.dropout:
            self.noise: Noise | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns A(x), (..., O): `adapter(x)`.

        Args:
            x: (..., I).
        """
        if self.config.layer_norm == "in":
            # `layer_norm` gets no weights: torch 2.13 computes a wrong second derivative for them
            # under vmap (test_traps.py).
            x = nn.functional.layer_norm(x, x.shape[-1:]) * broadcast_like(self.norm_weight, x) + broadcast_like(
                self.norm_bias, x
            )
        activated = self.activation(linear(x, self.down_weight, self.down_bias))
        if self.config.dropout:
            activated = dropped(activated, self.config.dropout, self.noise)
        change = linear(activated, self.up_weight, self.up_bias)
        return change * (broadcast_like(self.scale, x) if self.config.composition == "learned" else self.config.scale)

    def compose(self, h: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Returns h after the adapter: `adapter.compose(h, adapter(x))`.

        Args:
            h: (..., O).
            change: A(x), (..., O).
        """
        if self.config.composition != "gated":
            return h + change
        return h + broadcast_like(self.gate, h) * (change - h)

    def initial(self, generator: torch.Generator) -> Params:
        """Draws W_d, and W_u with `init: bert`; the other values are constants."""
        (width, rows_in), rows_out = self.down_weight.shape, len(self.up_bias)
        if self.config.init == "lora":
            down, up = kaiming_uniform(width, rows_in, generator=generator), torch.zeros(rows_out, width)
        else:
            down = 0.02 * torch.randn(width, rows_in, generator=generator)
            up = 0.02 * torch.randn(rows_out, width, generator=generator)
        return {
            **({"norm_weight": torch.ones(rows_in)} if self.config.layer_norm == "in" else {}),
            **({"norm_bias": torch.zeros(rows_in)} if self.config.layer_norm == "in" else {}),
            "down_weight": down,
            "down_bias": torch.zeros(width),
            "up_weight": up,
            "up_bias": torch.zeros(rows_out),
            **({"scale": torch.full((1,), self.config.scale)} if self.config.composition == "learned" else {}),
            **({"gate": torch.zeros(1)} if self.config.composition == "gated" else {}),
        }


def inject(sites: Sites, config: Any) -> Adapter:
    """Adds an adapter to each block in `at` of every layer: `inject(sites, PfeifferConfig())`."""
    modules: dict[str, nn.Module] = {}
    for index, layer in enumerate(sites.layers):
        modules[str(index)] = nn.ModuleDict({at: BUILDERS[config.insertion, at](layer, config) for at in config.at})
    return Adapter(config, modules)


def _after(projection: nn.Linear, config: DesignConfig) -> Bottleneck:
    """Adds an adapter after a block's output projection."""
    adapter = Bottleneck(projection.out_features, projection.out_features, config)
    add_to_output(projection, adapter, of_output=True, compose=adapter.compose)
    return adapter


def _beside_attention(layer: LayerSites, config: DesignConfig) -> Bottleneck:
    """Adds an adapter parallel to the attention heads."""
    # It taps the value projection, because DeBERTa uses those of queries and keys twice.
    adapter = Bottleneck(layer.value.in_features, layer.attention_out.in_features, config)
    add_between(layer.value, adapter, layer.attention_out, before=True, compose=adapter.compose)
    return adapter


def _beside_ffn(layer: LayerSites, config: DesignConfig) -> Bottleneck:
    """Adds an adapter parallel to the feed-forward block."""
    adapter = Bottleneck(layer.ffn_in.in_features, layer.ffn_out.out_features, config)
    add_between(layer.ffn_in, adapter, layer.ffn_out, before=False, compose=adapter.compose)
    return adapter


def _around_norm(layer: LayerSites, config: DesignConfig) -> Bottleneck:
    """Adds an adapter around a post-LN layer's last norm, or after a pre-LN layer."""
    adapter = Bottleneck(layer.ffn_out.out_features, layer.ffn_out.out_features, config)

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        # `module(...)` would call this hook again.
        normalised: torch.Tensor = module.forward(inputs[0] + adapter(output))
        return normalised

    if layer.ffn_norm is None:
        add_to_output(layer.layer, adapter, of_output=True)
    else:
        layer.ffn_norm.register_forward_hook(hook)
    return adapter


BUILDERS: dict[tuple[str, str], Callable[[LayerSites, DesignConfig], Bottleneck]] = {
    ("sequential", "attention"): lambda layer, config: _after(layer.attention_out, config),
    ("sequential", "ffn"): lambda layer, config: _after(layer.ffn_out, config),
    ("parallel", "attention"): _beside_attention,
    ("parallel", "ffn"): _beside_ffn,
    ("pfeiffer", "ffn"): _around_norm,
}

HE = "He et al. 2022, arXiv 2110.04366"
BOTTLENECK = Method(BottleneckConfig, inject, "h + s (f(x W_d + b_d) W_u + b_u), h and x of your choice", HE)
HOULSBY = Method(
    HoulsbyConfig,
    inject,
    "h + s (f(h W_d + b_d) W_u + b_u), after attention and FFN",
    "Houlsby et al. 2019, arXiv 1902.00751",
)
PFEIFFER = Method(
    PfeifferConfig,
    inject,
    "LN(z + s (f(LN(z) W_d + b_d) W_u + b_u)), z = FFN output + residual",
    "Pfeiffer et al. 2021, arXiv 2005.00247",
    short="AT",
)
PARALLEL = Method(ParallelConfig, inject, "FFN(x) + s (f(x W_d + b_d) W_u + b_u)", HE)
SCALED_PARALLEL = Method(ScaledParallelConfig, inject, "FFN(x) + s (f(x W_d + b_d) W_u + b_u)", HE)
PARALLEL_ATTENTION = Method(ParallelAttentionConfig, inject, "Attn(x) + s (f(x W_d + b_d) W_u + b_u), before W_o", HE)
