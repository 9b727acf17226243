"""What one training pass draws: each sentence from its own key, so that padding, neighbours and processes change nothing."""

from __future__ import annotations

import torch

ODD = 0x9E3779B97F4A7C15
"""Keeps the draws of one key apart."""


class Noise:
    """The draws of a pass over B sentences with a key each, in the order in which they are asked for."""

    def __init__(self, keys_B: torch.Tensor) -> None:
        self.keys: list[int] = keys_B.flatten().tolist()
        self.calls = 0

    def seed(self) -> int:
        """One whole number for this call, of the first key."""
        self.calls += 1
        return (self.keys[0] + self.calls * ODD) % 2**63

    def rand(self, shape: torch.Size) -> torch.Tensor:
        """Uniform in [0, 1), on the CPU, of the first key: for what belongs to no sentence."""
        return torch.rand(shape, generator=torch.Generator().manual_seed(self.seed()))

    def rand_like(self, x: torch.Tensor) -> torch.Tensor:
        """Uniform in [0, 1), where x is: for x (B, L, ...) each sentence's own, position after position."""
        if len(x) != len(self.keys):  # a table of positions
            return self.rand(x.shape).to(x.device)
        self.calls += 1
        seeds = [(key + self.calls * ODD) % 2**63 for key in self.keys]
        drawn = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(x.device)
