"""Implements BitFit: every bias of the encoder moves, and nothing else (Ben Zaken et al. 2022).

    b <- b + delta

Delta is zero at the start; layer norms have one too. It is added to the output of each module that
has a bias, which is the same function, leaves the backbone's values alone and lets each episode
have its own delta. The delta of a key projection adds a constant to all scores of a query, which
softmax cancels (except in DeBERTa, where keys meet positions): it is part of the definition, and
moves only by rounding.
"""

from __future__ import annotations

import torch
from torch import nn

from metaprime.nn import Adapter, broadcast_like
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.settings import BitfitConfig
from metaprime.types import MetaprimeError, Params, Sites


class Shift(nn.Module):
    """The delta of one module's bias, (D,)."""

    supports_one_pass = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x + delta: `shift(x)`.

        Args:
            x: output of the module, (..., D).
        """
        return x + broadcast_like(self.delta, x)

    def initial(self, generator: torch.Generator) -> Params:
        """Returns a delta of zero."""
        return {"delta": torch.zeros(self.delta.shape)}


def inject(sites: Sites, config: MethodConfig) -> Adapter:
    """Hooks the output of every module that has a bias: `inject(sites, BitfitConfig())`.

    Raises:
        MetaprimeError: no module has a bias, or one with a bias is a convolution.
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
