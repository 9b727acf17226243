"""Prompt tuning against the stock encoder over embeddings put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dense_bert import IDS, hidden, randomised

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import prompt


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_it_is_the_encoder_over_vectors_and_words(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder, stock = (load_encoder(str(toy_encoder(model_type))) for _ in range(2))
    modules = randomised(prompt.inject(resolve(encoder.module, encoder.layout), prompt.PromptConfig(length=3)))
    words = stock.module.get_input_embeddings()(IDS)
    joined = torch.cat([modules["prompt"].vectors.data.expand(2, -1, -1), words], dim=1)
    with torch.no_grad():
        out = stock.module(inputs_embeds=joined, attention_mask=torch.ones(joined.shape[:2], dtype=torch.int64))
    torch.testing.assert_close(hidden(encoder.module), out.last_hidden_state[:, 3:], rtol=0, atol=1e-6)
