"""Randomness as a function of its address, not a state.

Every draw in metaprime (episodes, initial phi and head, K-shot samples, batch order, synthetic text) is keyed by what
it is for: (seed, purpose, meta-step, episode, ...). Resuming therefore skips nothing, and N processes see exactly what
one process would.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_key(seed: int, *address: str | int) -> int:
    """A 64-bit key for one address: BLAKE2b of its unambiguous text form, equal on every platform and version."""
    text = "\x1f".join([f"i{seed}", *(f"{type(part).__name__[0]}{part}" for part in address)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, *address: str | int) -> np.random.Generator:
    """NumPy generator over the counter-based Philox stream of one address."""
    return np.random.Generator(np.random.Philox(key=stream_key(seed, *address)))


def torch_stream(seed: int, *address: str | int) -> torch.Generator:
    """Torch CPU generator of one address: values drawn on the CPU are the same whatever device they move to."""
    import torch

    return torch.Generator().manual_seed(stream_key(seed, *address) % 2**63)


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
        import torch

        return torch.rand(shape, generator=torch.Generator().manual_seed(self.seed()))

    def rand_like(self, x: torch.Tensor) -> torch.Tensor:
        """Uniform in [0, 1), where x is: for x (B, L, ...) each sentence's own, position after position."""
        import torch

        if len(x) != len(self.keys):  # a table of positions
            return self.rand(x.shape).to(x.device)
        self.calls += 1
        seeds = [(key + self.calls * ODD) % 2**63 for key in self.keys]
        drawn = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(x.device)
