"""Our way through DeBERTa-v2's attention is the stock module's, to the last digits, and a prefix is what it should be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import prefix
from metaprime.rng import torch_stream

VARIANTS: dict[str, dict[str, Any]] = {
    "mdeberta-v3": {},
    "keys of their own": {"share_att_key": False},
    "content to position": {"pos_att_type": "c2p"},
    "position to content": {"share_att_key": False, "pos_att_type": "p2c"},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 40},
    "absolute positions": {"relative_attention": False, "position_biased_input": True, "pos_att_type": None},
    "convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
}
LENGTHS = (20, 7)
MASK = (torch.arange(20) < torch.tensor(LENGTHS)[:, None]).long()
IDS = torch.randint(5, 60, (2, 20), generator=torch_stream(0, "ids")) * MASK


def hidden(module: PreTrainedModel) -> torch.Tensor:
    return module(input_ids=IDS, attention_mask=MASK).last_hidden_state[MASK.bool()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_stock_attention(changed_toy: Callable[..., Path], variant: str, attention: str) -> None:
    folder = changed_toy("deberta-v2", **VARIANTS[variant])
    stock, ours = AutoModel.from_pretrained(folder).eval(), load_encoder(str(folder), attention).module
    torch.testing.assert_close(hidden(ours), hidden(stock), rtol=0, atol=3e-6)
    stock.double(), ours.double()
    torch.testing.assert_close(hidden(ours), hidden(stock), rtol=0, atol=1e-6)  # stock takes a square root in float32
    for module in (stock, ours):
        hidden(module).square().sum().backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), stock.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_only_this_copy_is_bound(toy_encoder: Callable[[str], Path]) -> None:
    folder = toy_encoder("deberta-v2")
    encoder = load_encoder(str(folder))
    other = copy.deepcopy(encoder.module)
    attention, copied = (module.encoder.layer[0].attention.self for module in (encoder.module, other))
    assert attention.forward.__self__ is attention
    assert copied.forward.__self__ is copied
    assert "forward" not in vars(AutoModel.from_pretrained(folder).encoder.layer[0].attention.self)
    assert type(attention).forward.__module__.startswith("transformers.")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_a_prefix_is_attended_without_position(changed_toy: Callable[..., Path], shared: bool, attention: str) -> None:
    """Against the stock module's own terms: its scores, with the prefix's q.k beside them under the same scale."""
    encoder, seen = load_encoder(str(changed_toy("deberta-v2", share_att_key=shared)), attention), {}
    modules = prefix.inject(resolve(encoder.module, encoder.layout), prefix.PrefixConfig(length=5))
    for parameter in modules.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_stream(0, "phi", parameter.numel()))
    layer = encoder.module.encoder.layer[1].attention.self
    layer.register_forward_hook(
        lambda module, args, kwargs, output: seen.update(kwargs, x=args[0], out=output[0]), with_kwargs=True
    )
    hidden(encoder.module)
    query, key, value = (
        layer.transpose_for_scores(projection(seen["x"]), 4)
        for projection in (layer.query_proj, layer.key_proj, layer.value_proj)
    )
    bias = layer.disentangled_attention_bias(query, key, seen["relative_pos"], seen["rel_embeddings"], 3).view(
        2, 4, 20, 20
    )
    for sentence, length in enumerate(LENGTHS):
        for head in range(4):
            q, k, v = (states[4 * sentence + head, :length] for states in (query, key, value))
            text = q @ k.T / (8 * 3) ** 0.5 + bias[sentence, head, :length, :length]
            before = q @ modules["1"].keys[head].T / (8 * 3) ** 0.5
            weights = torch.softmax(torch.cat([before, text], dim=1), dim=1)
            expected = weights @ torch.cat([modules["1"].values[head], v])
            found = seen["out"][sentence, :length, 8 * head : 8 * head + 8]
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)
