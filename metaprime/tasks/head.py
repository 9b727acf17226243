"""Defines the linear output layer of tagging and classification."""

from __future__ import annotations

import torch
from torch import nn

from metaprime.nn import linear
from metaprime.types import Params


class LinearHead(nn.Linear):
    """Linear layer from D to C, drawn like Hugging Face's classification heads.

    Weights are drawn from N(0, 0.02^2), biases are zero.
    """

    supports_one_pass = True

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns logits (B, ..., C): `head(hidden)`.

        Args:
            hidden: the encoder's output (B, L, D), or one state of each text (B, D).
        """
        return linear(hidden, self.weight, self.bias)

    def initial(self, generator: torch.Generator) -> Params:
        """Draws `weight` (C, D) and, if it has one, `bias` (C,): `head.initial(torch_stream(0, "head"))`."""
        # The attribute is None in a layer without a bias, which its annotation does not say.
        bias: torch.Tensor | None = self.bias
        return {
            "weight": 0.02 * torch.randn(self.weight.shape, generator=generator),
            **({} if bias is None else {"bias": torch.zeros(bias.shape)}),
        }
