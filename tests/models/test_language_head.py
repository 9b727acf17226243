"""The masked-word head alone gives what the whole language model gives, and keeps sharing the encoder's embedding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import batch_of
from torch.func import functional_call
from transformers import AutoModelForMaskedLM

from metaprime.models.encoder import load_encoder
from metaprime.models.language_head import load_language_head
from metaprime.models.sites import LAYOUTS
from metaprime.models.task_model import TaskModel, assign, initial_values, partition
from metaprime.nn import Adapter
from metaprime.rng import torch_stream


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_logits_are_the_language_models(toy_encoder: Callable[..., Path], architecture: str) -> None:
    folder = toy_encoder(architecture, speaks=True)
    encoder = load_encoder(str(folder), "eager")
    head = load_language_head(encoder, encoder.module.get_input_embeddings())
    model = TaskModel(encoder.module, Adapter(), head).eval()
    drawn = initial_values(model, "head", torch_stream(0, "any"))
    state = partition(model)
    assert set(drawn) == set(state.head)
    whole = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids_BL = torch.randint(5, 300, (3, 11), generator=torch.Generator().manual_seed(0))
    mask_BL = torch.ones_like(ids_BL)
    expected = whole(input_ids=ids_BL, attention_mask=mask_BL).logits
    torch.testing.assert_close(model(batch_of(ids_BL)), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for value in state.head.values():
            value.zero_()
    assign(model, drawn)  # what priming begins from
    torch.testing.assert_close(model(batch_of(ids_BL)), expected, rtol=1e-5, atol=1e-5)


def test_the_shared_embedding_moves_both_ends(toy_encoder: Callable[..., Path]) -> None:
    encoder = load_encoder(str(toy_encoder("bert", speaks=True)))
    embedding = encoder.module.get_input_embeddings()
    model = TaskModel(encoder.module, Adapter(), load_language_head(encoder, embedding)).eval()
    state = partition(model)
    (name,) = (name for name, value in state.backbone.items() if value is embedding.weight)
    assert not any(value.shape == embedding.weight.shape for value in state.head.values())
    ids_BL = torch.randint(5, 300, (2, 7), generator=torch.Generator().manual_seed(0))
    unread = 399  # not among the inputs: only its logit can tell
    changed = state.backbone[name].detach().clone()
    changed[unread] += 1.0
    before = model(batch_of(ids_BL))
    after = functional_call(model, {name: changed}, (batch_of(ids_BL),))
    assert (before[..., unread] != after[..., unread]).all()
    others = torch.arange(before.shape[-1]) != unread
    torch.testing.assert_close(before[..., others], after[..., others])
