"""Masked words: the text of the sentences without their tags, every so often a sub-word hidden, to be guessed.

What an encoder was pre-trained by, gone on with: is it the tags that priming needs, or only the text? Logits are over the
whole vocabulary at every position: which `inner.task_chunk: auto` reckons with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from metaprime.data.rows import Row, Window
from metaprime.tasks.task import Task
from metaprime.types import IGNORE, MetaprimeError, Sites

SHARE, HIDDEN, SWAPPED = 0.15, 0.8, 0.1
"""Devlin et al. 2019 (1810.04805), section 3.1: 15 % of the sub-words are guessed; of them 80 % read [MASK], 10 % random ones."""


def masking(task: Task, tokenizer: PreTrainedTokenizerBase, new_head: Callable[[Sites], nn.Module]) -> Task:
    """The masked-word task over the sentences of another task.

    Raises:
        MetaprimeError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise MetaprimeError("the encoder's tokenizer has no mask token, without which no word can be masked")
    special_S = torch.tensor(sorted(tokenizer.all_special_ids))
    corrupt = partial(_corrupted, special_S, tokenizer.mask_token_id, len(tokenizer))
    return replace(task, name="masked words", new_head=new_head, corrupt=corrupt)


def masked(
    ids_L: torch.Tensor, special_S: torch.Tensor, mask_id: int, candidates: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of any shape; random sub-words are drawn from the ids between the two `candidates`."""
    chance_L = torch.rand(ids_L.shape, generator=generator)
    chosen_L = (chance_L < SHARE) & ~torch.isin(ids_L, special_S)
    labels_L = torch.where(chosen_L, ids_L, IGNORE)
    kind_L = torch.rand(ids_L.shape, generator=generator)
    random_L = torch.randint(*candidates, ids_L.shape, generator=generator)
    inputs_L = torch.where(chosen_L & (kind_L < HIDDEN), mask_id, ids_L)
    return torch.where(chosen_L & (kind_L >= 1 - SWAPPED), random_L, inputs_L), labels_L


def _corrupted(
    special_S: torch.Tensor, mask_id: int, vocabulary: int, rows: Sequence[Row], generator: torch.Generator
) -> list[Row]:
    def hidden(window: Window) -> Window:
        inputs_L, labels_L = masked(torch.tensor(window.input_ids), special_S, mask_id, (0, vocabulary), generator)
        return replace(window, input_ids=tuple(inputs_L.tolist()), labels=tuple(labels_L.tolist()))

    return [replace(row, windows=tuple(hidden(window) for window in row.windows)) for row in rows]
