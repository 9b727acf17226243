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
        """Draws `weight` (C, D) and `bias` (C,): `head.initial(torch_stream(0, "head"))`."""
        return {
            "weight": 0.02 * torch.randn(self.weight.shape, generator=generator),
            "bias": torch.zeros(self.bias.shape),
        }
