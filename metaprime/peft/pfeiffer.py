"""Pfeiffer adapter: one bottleneck per layer, around the feed-forward block's residual sum.

With z the feed-forward output plus its residual (the input of the block's layer norm), u = LN(z) and
A(u) = s (W_u ReLU(W_d u + b_d) + b_u), the layer gives LN(z + A(u)): the same frozen LN is applied twice and the
residual is the sum before it (Pfeiffer et al. 2021; code of He et al. 2022, `ffn_option=pfeiffer`). In a pre-LN encoder,
which has no such norm, z is what the layer gives, and it becomes z + A(z).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from metaprime.peft.method import Method, MethodConfig, add_to_output, kaiming_uniform
from metaprime.per_episode import linear
from metaprime.types import Params, Sites


class PfeifferConfig(MethodConfig):
    """Bottleneck width r, scale s, and how A starts.

    `init: lora` is W_d uniform, W_u zero: the encoder unchanged at the start. `init: bert` draws both from
    N(0, 0.02), as the code of He et al. does; that start is not the identity.
    """

    method: Literal["pfeiffer"] = "pfeiffer"
    bottleneck: PositiveInt = 48
    scale: PositiveFloat = 1.0
    init: Literal["lora", "bert"] = "lora"

    @property
    def identity(self) -> bool:
        return self.init == "lora"


class Bottleneck(nn.Module):
    """s * (ReLU(x W_d^T + b_d) W_u^T + b_u); x and result (..., D)."""

    per_episode = True

    def __init__(self, hidden: int, config: PfeifferConfig) -> None:
        super().__init__()
        self.config = config
        self.down_weight = nn.Parameter(torch.zeros(config.bottleneck, hidden))
        self.down_bias = nn.Parameter(torch.zeros(config.bottleneck))
        self.up_weight = nn.Parameter(torch.zeros(hidden, config.bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(linear(x, self.down_weight, self.down_bias))
        return self.config.scale * linear(inner, self.up_weight, self.up_bias)

    def initial(self, generator: torch.Generator) -> Params:
        width, hidden = self.down_weight.shape
        if self.config.init == "lora":
            down, up = kaiming_uniform(width, hidden, generator=generator), torch.zeros(hidden, width)
        else:
            down = 0.02 * torch.randn(width, hidden, generator=generator)
            up = 0.02 * torch.randn(hidden, width, generator=generator)
        return {
            "down_weight": down,
            "down_bias": torch.zeros(width),
            "up_weight": up,
            "up_bias": torch.zeros(hidden),
        }


def inject(sites: Sites, config: Any) -> nn.ModuleDict:
    """Hooks every layer's last norm, or in a pre-LN encoder the layer itself."""
    modules = nn.ModuleDict()
    for index, layer in enumerate(sites.layers):
        adapter = modules[str(index)] = Bottleneck(sites.hidden, config)
        if layer.ffn_norm is None:
            add_to_output(layer.layer, adapter, of_output=True)
        else:
            _around_norm(layer.ffn_norm, adapter)
    return modules


def _around_norm(norm: nn.Module, adapter: nn.Module) -> None:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = module.forward(inputs[0] + adapter(output))  # not module(): it would call this hook
        return summed

    norm.register_forward_hook(hook)


METHOD = Method(PfeifferConfig, inject, "LN(z + s (W_u ReLU(W_d LN(z) + b_d) + b_u)), z = FFN output + residual")
