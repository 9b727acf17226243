"""Counter-based random streams, each a pure function of its address.

Every draw in metaprime (episodes, initial phi and head, K-shot samples, batch order, synthetic text)
has an address: (seed, purpose, meta-step, episode, ...). A resumed run therefore repeats the draws
of an uninterrupted one, and N processes make the draws of one process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_key(seed: int, *address: str | int) -> int:
    """Returns the 64-bit key of an address: BLAKE2b of its unambiguous text, equal on every platform.

    Args:
        seed: the run's seed.
        address: purpose and numbers of the draw; 1 and "1" are different parts.

    Example: `stream_key(0, "episode", 3)`
    """
    text = "\x1f".join([f"i{seed}", *(f"{type(part).__name__[0]}{part}" for part in address)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, *address: str | int) -> np.random.Generator:
    """Returns a NumPy generator over the Philox stream (Salmon et al. 2011) of an address.

    Example: `stream(0, "episode", 3).choice(100, size=8)`
    """
    return np.random.Generator(np.random.Philox(key=stream_key(seed, *address)))


def torch_stream(seed: int, *address: str | int) -> torch.Generator:
    """Returns a torch CPU generator for an address; CPU draws are equal on every device they move to.

    Example: `torch.rand(4, generator=torch_stream(0, "head"))`
    """
    import torch

    return torch.Generator().manual_seed(stream_key(seed, *address) % 2**63)


ODD = 0x9E3779B97F4A7C15
"""Weyl increment that separates successive draws from one key."""


class Noise:
    """A counter-based source of dropout draws for one pass over B sentences.

    Each call of a method makes new draws from the same keys.

    Attributes:
        keys: one integer for each sentence, from a tensor `(B,)`, or `(T, B)` flattened.
        calls: number of draws so far.

    Example: `Noise(batch[NOISE]).rand_like(hidden_BLD)`
    """

    def __init__(self, keys_B: torch.Tensor) -> None:
        self.keys: list[int] = keys_B.flatten().tolist()
        self.calls = 0

    def seed(self) -> int:
        """Returns an integer seed for this call, derived from the first key."""
        self.calls += 1
        return (self.keys[0] + self.calls * ODD) % 2**63

    def rand(self, shape: torch.Size) -> torch.Tensor:
        """Draws uniform values in [0, 1) on the CPU from the first key, for tensors without sentences."""
        import torch

        return torch.rand(shape, generator=torch.Generator().manual_seed(self.seed()))

    def rand_like(self, x: torch.Tensor) -> torch.Tensor:
        """Draws uniform values in [0, 1) on the device of x.

        Args:
            x: `(B, L, ...)`, each sentence drawn from its own key, position by position; a tensor with
                another first dimension is drawn from the first key.

        Returns:
            A tensor of the shape of x.
        """
        import torch

        # A table of positions has no sentences.
        if len(x) != len(self.keys):
            return self.rand(x.shape).to(x.device)
        self.calls += 1
        seeds = [(key + self.calls * ODD) % 2**63 for key in self.keys]
        drawn = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(x.device)
