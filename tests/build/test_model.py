"""What the rooms make together: how long a sentence each architecture can take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaprime.build.data import build_task
from metaprime.config.loading import load_config
from metaprime.data.rows import Example
from metaprime.models.encoder import load_encoder


@pytest.mark.parametrize(("architecture", "longest"), [("bert", 130), ("roberta", 128), ("xlm-roberta", 128)])
def test_the_longest_sentence_is_what_the_positions_leave(
    toy_encoder: Callable[[str], Path], architecture: str, longest: int
) -> None:
    """The toys have 130 positions; RoBERTa's and XLM-R's count from the padding id + 1."""
    encoder = load_encoder(str(toy_encoder(architecture)))
    config = load_config(None, ["data.max_length=512"])
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = task.encode([Example(("a",) * 300, ("O",) * 300, "x:1"), Example(("a",), ("O",), "x:2")])
    assert max(len(window.input_ids) for window in rows[0].windows) == longest
    batch = task.collate(rows)
    assert batch["input_ids"][-1, 3:].eq(encoder.module.config.pad_token_id).all()
    assert encoder.module.config.pad_token_id == (0 if architecture == "bert" else 1)
    with torch.no_grad():
        hidden = encoder.module(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        assert bool(torch.isfinite(hidden).all())
        one_more = torch.full((1, longest + 1), 5)
        with pytest.raises((IndexError, RuntimeError)):
            encoder.module(input_ids=one_more, attention_mask=torch.ones_like(one_more))
