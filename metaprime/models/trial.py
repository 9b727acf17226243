"""Tries an encoder on a few sub-words: whether it runs, and whether a word sees those behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from metaprime.types import Direction, MetaprimeError

TRIED = 9
"""Sub-words of the trial; few enough for the shortest sliding window."""

UNCHANGED = 1e-6
"""Largest change of a state, relative to the largest state, that counts as none."""


@torch.no_grad()
def try_encoder(name: str, module: nn.Module, tokenizer: PreTrainedTokenizerBase, direction: Direction) -> None:
    """Runs an encoder twice, with another sub-word at the end of the second input, and compares earlier states.

    Args:
        name: name of the encoder, for messages.
        module: the encoder in evaluation mode.
        tokenizer: its tokenizer, for ordinary sub-words.
        direction: `encoder.direction`.

    Raises:
        MetaprimeError: the encoder does not run, or no state depends on a later sub-word although
            `direction` is `both`.

    Example: `try_encoder("some/encoder", encoder.module, encoder.tokenizer, "both")`
    """
    special = set(tokenizer.all_special_ids)
    ordinary = [number for number in sorted(tokenizer.get_vocab().values()) if number not in special]
    if len(ordinary) <= TRIED:
        return
    step = len(ordinary) // (TRIED + 1)
    *ids, other = ordinary[step // 2 :: step][: TRIED + 1]
    before, after = (_states(name, module, [*ids[:-1], last]) for last in (ids[-1], other))
    change = (before - after)[:, :-1].abs().max()
    if direction == "both" and change <= UNCHANGED * before.abs().max():
        raise MetaprimeError(
            f"encoder.name {name!r}: in this {type(module).__name__} no word sees those behind it, as in a decoder, but "
            "metaprime needs an encoder with bidirectional attention: give an encoder, or set encoder.direction: causal to "
            "take it as it is"
        )


def _states(name: str, module: nn.Module, ids: list[int]) -> torch.Tensor:
    """Returns the last hidden states (1, L, D) of sub-words, called as in training."""
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
    }
    try:
        states: torch.Tensor = module(**batch).last_hidden_state
    except MetaprimeError as error:
        raise MetaprimeError(f"encoder.name {name!r}: {error}") from None
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise MetaprimeError(
            f"encoder.name {name!r}: this {type(module).__name__} does not run on {len(ids)} sub-words, given as input_ids "
            f"with an attention_mask, to a last_hidden_state: {type(error).__name__}: {reason}. Give an encoder that does"
        ) from error
    return states
