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
