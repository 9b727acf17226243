"""Prompt tuning against the stock encoder over embeddings put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dense_bert import IDS, hidden, randomised

from metaprime.build.data import build_task
from metaprime.config.loading import load_config
from metaprime.data.rows import Example
from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import prompt
from metaprime.types import MetaprimeError


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_it_is_the_encoder_over_vectors_and_words(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder, stock = (load_encoder(str(toy_encoder(model_type))) for _ in range(2))
    modules = randomised(prompt.inject(resolve(encoder.module, encoder.layout), prompt.PromptConfig(length=3)))
    words = stock.module.get_input_embeddings()(IDS)
    joined = torch.cat([modules["prompt"].vectors.data.expand(2, -1, -1), words], dim=1)
    with torch.no_grad():
        out = stock.module(inputs_embeds=joined, attention_mask=torch.ones(joined.shape[:2], dtype=torch.int64))
    torch.testing.assert_close(hidden(encoder.module), out.last_hidden_state[:, 3:], rtol=0, atol=1e-6)


def test_one_that_leaves_no_room_is_refused_by_its_own_key(toy_bert: Path) -> None:
    config = load_config(None, [f"encoder.name={toy_bert}", "peft={method: prompt, length: 125}"])
    with pytest.raises(MetaprimeError, match=r"peft\.length 125: this encoder has 130 positions, .* at most 122"):
        build_task(config.task, config.data, load_encoder(str(toy_bert)), config.peft)


def test_sentences_leave_room_for_it(toy_bert: Path) -> None:
    """130 positions: a sentence of 128 sub-words is read in windows of 114."""
    longest = {}
    for method in ("head", "prompt"):
        keys = [f"encoder.name={toy_bert}", "learner.name=multitask", "data.max_length=500", "transfer.methods=[head]"]
        config = load_config(None, [*keys, f"peft.method={method}"])
        task = build_task(config.task, config.data, load_encoder(str(toy_bert)), config.peft)
        row = task.encode([Example(("a",) * 400, ("O",) * 400)])[0]
        longest[method] = max(len(window.input_ids) for window in row.windows)
    assert longest == {"head": 130, "prompt": 130 - 16}
