"""BitFit: every bias of the encoder moves, and nothing else (Ben Zaken et al. 2022).

b <- b + delta, layer norms' included, delta zero at the start. It is added to the output of each module that has a bias,
which is the same function, leaves the backbone's own values alone, and gives each episode a delta of its own.
That of a keys' projection adds the same to every score of a query, which softmax takes away again (not so in DeBERTa, where
keys meet positions): it belongs to the definition, and stays where it is but for rounding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from metaprime.nn import Adapter, broadcast_like
from metaprime.peft.method import Method, MethodConfig
from metaprime.types import MetaprimeError, Params, Sites


class BitfitConfig(MethodConfig):
    """Nothing to set."""

    method: Literal["bitfit"] = "bitfit"


class Shift(nn.Module):
    """x (..., D) plus delta (D)."""

    supports_one_pass = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + broadcast_like(self.delta, x)

    def initial(self, generator: torch.Generator) -> Params:
        return {"delta": torch.zeros(self.delta.shape)}


def inject(sites: Sites, config: MethodConfig) -> Adapter:
    """Hooks the output of every module of the encoder that has a bias.

    Raises:
        MetaprimeError: none has, or one is a convolution.
    """
    biased = {
        path: module for path, module in sites.owners.items() if "bias" in dict(module.named_parameters(recurse=False))
    }
    if not biased:
        raise MetaprimeError(
            "peft.method bitfit: no module of this encoder has a bias, as is usual in ModernBERT and EuroBERT; "
            "ia3 is as small and fits every encoder"
        )
    modules: dict[str, nn.Module] = {}
    for path, module in biased.items():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            raise MetaprimeError(
                f"peft.method bitfit: {path} is a convolution, whose bias is not supported; use another method"
            )
        shift = modules[path.replace(".", ":")] = Shift(module.get_parameter("bias").numel())
        module.register_forward_hook(lambda module, inputs, output, shift=shift: shift(output))
    return Adapter(config, modules)


METHOD = Method(BitfitConfig, inject, "b + delta for every bias b", "Ben Zaken et al. 2022, arXiv 2106.10199")
