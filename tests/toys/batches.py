"""Batches as models take them."""

from __future__ import annotations

import torch

from metaprime.types import Batch


def batch_of(ids_BL: torch.Tensor, mask_BL: torch.Tensor | None = None) -> Batch:
    """A batch without labels; without a mask, nothing is padded."""
    return {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL) if mask_BL is None else mask_BL}
