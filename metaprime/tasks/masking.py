"""Masked words, a control: the text of the examples without their labels, some sub-words hidden, to be guessed.

It continues what an encoder was pre-trained by: does priming need the labels, or only the text? Logits are
over the whole vocabulary at every position, which `inner.task_chunk: auto` accounts for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from metaprime.data.rows import Row, Window
from metaprime.models.task_model import head_outputs
from metaprime.tasks.task import Task
from metaprime.types import IGNORE, Batch, MetaprimeError, Sites

SHARE, MASKED, SWAPPED = 0.15, 0.8, 0.1
"""Devlin et al. 2019 (1810.04805), section 3.1: 15 % of the sub-words are guessed; of them 80 % read [MASK], 10 % random ones."""


def masking(task: Task, tokenizer: PreTrainedTokenizerBase, new_head: Callable[[Sites], nn.Module]) -> Task:
    """Returns the masked-word task over the examples of another task.

    Args:
        task: whose examples are read.
        tokenizer: whose mask token hides sub-words.
        new_head: gives the masked-word head, (B, L, D) -> (B, L, V).

    Raises:
        MetaprimeError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise MetaprimeError("the encoder's tokenizer has no mask token, without which no word can be masked")
    special_S = torch.tensor(sorted(tokenizer.all_special_ids))
    corrupt = partial(_corrupted, special_S, tokenizer.mask_token_id, len(tokenizer))
    return replace(task, new_head=new_head, corrupt=corrupt, loss=loss, outputs=head_outputs)


def loss(logits_BLV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy in nats per hidden sub-word; 0 for a batch without one."""
    labels_BL = batch["labels"]
    hidden = (labels_BL != IGNORE).sum().clamp(min=1)
    return cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="sum") / hidden


def masked(
    ids_L: torch.Tensor, special_S: torch.Tensor, mask_id: int, candidates: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hides sub-words at random.

    Args:
        ids_L: sub-word ids of any shape.
        special_S: ids that are never hidden.
        mask_id: id of the mask token.
        candidates: random sub-words are drawn from the ids between these two.
        generator: of the draws.

    Returns:
        Inputs and labels, each of the shape of `ids_L`.
    """
    chance_L = torch.rand(ids_L.shape, generator=generator)
    chosen_L = (chance_L < SHARE) & ~torch.isin(ids_L, special_S)
    labels_L = torch.where(chosen_L, ids_L, IGNORE)
    kind_L = torch.rand(ids_L.shape, generator=generator)
    random_L = torch.randint(*candidates, ids_L.shape, generator=generator)
    inputs_L = torch.where(chosen_L & (kind_L < MASKED), mask_id, ids_L)
    return torch.where(chosen_L & (kind_L >= 1 - SWAPPED), random_L, inputs_L), labels_L


def _corrupted(
    special_S: torch.Tensor, mask_id: int, vocabulary: int, rows: Sequence[Row], generator: torch.Generator
) -> list[Row]:
    def hidden(window: Window) -> Window:
        inputs_L, labels_L = masked(torch.tensor(window.input_ids), special_S, mask_id, (0, vocabulary), generator)
        return replace(window, input_ids=tuple(inputs_L.tolist()), labels=tuple(labels_L.tolist()))

    return [replace(row, windows=tuple(hidden(window) for window in row.windows)) for row in rows]
