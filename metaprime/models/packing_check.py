"""Checks that an encoder with an adapter in it computes the same from a row of sub-words as from a padded batch."""

from __future__ import annotations

import torch

from metaprime.models.injection_check import both_episodes, outputs_of_both
from metaprime.models.task_model import TaskModel
from metaprime.types import Batch

LEAST = 4
"""Windows of the trial; a batch with fewer is repeated."""


@torch.no_grad()
def why_padded(model: TaskModel, batch: Batch) -> str:
    """Returns the reason why batches of a model must stay padded; empty if it can work on packed rows.

    A trial compares the outputs of windows of different lengths, packed and padded, and, where episodes can
    share a pass, of two episodes in one row.

    Args:
        model: a model whose backbone has `packing.packed_calls`, in evaluation mode.
        batch: tensors `(B, L)`.

    Example: `model.variant(padded=why_padded(model, batch))`
    """
    name, uneven = type(model.backbone).__name__, _uneven(batch)
    packed, padded = model.variant(padded=""), model.variant(padded="the reference of a trial")
    try:
        pairs = [outputs_of_both(padded, packed, uneven)]
        if model.supports_one_pass:
            pairs.append((both_episodes(padded, uneven), both_episodes(packed, uneven)))
    # An architecture may fail in any way; whatever it is, padded batches remain, and the reason is said.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        return f"{name} does not run on a row of sub-words ({type(error).__name__}: {reason})"
    same = all(torch.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in pairs)
    return "" if same else f"{name} computes other states from a row of sub-words than from a padded batch"


def _uneven(batch: Batch) -> Batch:
    """Returns the batch with windows cut to different lengths, at least `LEAST` of them."""
    whole = len(batch["input_ids"])
    repeated = {
        name: tensor.repeat(-(-LEAST // whole), *(1 for _ in tensor.shape[1:])) for name, tensor in batch.items()
    }
    mask_BL = repeated["attention_mask"]
    windows, longest = mask_BL.shape
    lengths_B = torch.linspace(longest, max(1, longest // 4), windows, device=mask_BL.device).long()
    cut_BL = (torch.arange(longest, device=mask_BL.device) < lengths_B[:, None]).to(mask_BL)
    # Every window keeps its first position, which no tokenizer pads.
    return {**repeated, "attention_mask": mask_BL * cut_BL}
