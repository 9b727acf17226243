"""Defines masked-word prediction, a control task that uses the text of the examples and no labels.

It continues the encoder's pre-training and answers whether priming needs labels or only text.
Logits cover the whole vocabulary at every position, which `inner.task_chunk: auto` accounts for.

Shape suffixes: B windows, L sub-words, S special tokens, V sub-words of the vocabulary.
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
from metaprime.models.outputs import head_outputs
from metaprime.tasks.task import Task
from metaprime.types import IGNORE, Batch, MetaprimeError, Sites

SHARE, MASKED, SWAPPED = 0.15, 0.8, 0.1
"""Devlin et al. 2019 (1810.04805), section 3.1: 15 % of the sub-words are predicted; the input has
[MASK] for 80 % of them and random sub-words for 10 %."""


def masking(task: Task, tokenizer: PreTrainedTokenizerBase, new_head: Callable[[Sites], nn.Module]) -> Task:
    """Returns the masked-word task over the examples of another task.

    Args:
        task: reads and encodes the examples.
        tokenizer: supplies mask token, special tokens and vocabulary.
        new_head: builds the masked-word head, (B, L, D) -> (B, L, V).

    Raises:
        MetaprimeError: the tokenizer has no mask token.

    Example: `masking(task, tokenizer, new_head).corrupt(rows, generator)`.
    """
    if tokenizer.mask_token_id is None:
        raise MetaprimeError(
            "the encoder's tokenizer has no mask token, which masked words need; choose another encoder.name"
        )
    special_S = torch.tensor(sorted(tokenizer.all_special_ids))
    corrupt = partial(_corrupted, special_S, tokenizer.mask_token_id, len(tokenizer))
    return replace(task, new_head=new_head, corrupt=corrupt, loss=loss, outputs=head_outputs, scales=False)


def loss(logits_BLV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () in nats per hidden sub-word; 0 for a batch without one.

    Args:
        logits_BLV: scores of every sub-word of the vocabulary.
        batch: `labels` (B, L), IGNORE wherever nothing is hidden; other tensors are not used.

    Example: `loss(logits_BLV, batch)`.
    """
    labels_BL = batch["labels"]
    hidden = (labels_BL != IGNORE).sum().clamp(min=1)
    return cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="sum") / hidden


def masked(
    ids_L: torch.Tensor, special_S: torch.Tensor, mask_id: int, candidates: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hides sub-words at random, as BERT's pre-training does (Devlin et al. 2019, section 3.1).

    Args:
        ids_L: sub-word ids of any shape.
        special_S: ids that are never hidden.
        mask_id: id of the mask token.
        candidates: first id, and last one plus 1, of the random sub-words.
        generator: of the draws.

    Returns:
        Inputs and labels, each of the shape of `ids_L`.

    Example: `inputs_L, labels_L = masked(ids_L, special_S, 103, (0, 30522), generator)`.
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
    """Returns the rows with some sub-words hidden and their ids as labels."""

    def hidden(window: Window) -> Window:
        """Hides sub-words of one window."""
        inputs_L, labels_L = masked(torch.tensor(window.input_ids), special_S, mask_id, (0, vocabulary), generator)
        return replace(window, input_ids=tuple(inputs_L.tolist()), labels=tuple(labels_L.tolist()))

    return [replace(row, windows=tuple(hidden(window) for window in row.windows)) for row in rows]
