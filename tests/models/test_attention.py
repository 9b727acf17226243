"""Our attention is the stock one, with a prefix where there is one and a mask always."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import batch_of
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModel, PreTrainedModel

from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.models import attention
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, partition
from metaprime.packing import padded_calls
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import PREFIX_SLOT, Params

IMPLEMENTATIONS = ("sdpa", "eager")


def batch(padding: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences of 3, 9 and 6 sub-words, padded to 9 + padding."""
    lengths = (3, 9, 6)
    ids = torch.randint(5, 60, (3, 9 + padding), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9 + padding) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def hidden(module: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]


@pytest.mark.parametrize("padding", [0, 4])
def test_ours_is_the_stock_attention(toy_bert: Path, padding: int) -> None:
    ids, mask = batch(padding)
    stock = [AutoModel.from_pretrained(toy_bert, attn_implementation=name).eval() for name in IMPLEMENTATIONS]
    ours = [load_encoder(str(toy_bert), name).module for name in IMPLEMENTATIONS]
    one, *others = [hidden(module, ids, mask) for module in (*stock, *ours)]
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5)
    everything = torch.ones_like(mask)
    assert (hidden(ours[0], ids, everything)[:3] - one[:3]).abs().max() > 1e-2  # the mask does matter


def injected(folder: Path, method: str, implementation: str) -> tuple[TaskModel, Params]:
    """A model with the method's modules, and random phi and head."""
    encoder = load_encoder(str(folder), implementation)
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    rows = task.encode(synthetic.read("", "qaa", "train")[:4])
    model = build_model(encoder, task, METHODS[method].config(), rows)
    draw = torch_stream(0, "random")
    own = {**partition(model).adapter, **partition(model).head}
    return model, {name: 0.3 * torch.randn(value.shape, generator=draw) for name, value in own.items()}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("method", ["head", "prefix"])
def test_a_batch_without_padding_has_a_mask_too(
    toy_bert: Path, monkeypatch: pytest.MonkeyPatch, method: str, implementation: str
) -> None:
    model, random = injected(toy_bert, method, implementation)
    ids, mask = batch(padding=0)
    ids, mask = ids + 5, torch.ones_like(mask)
    shapes = []
    with_prefix = attention.with_prefix

    def spy(prefix: object, key: torch.Tensor, value: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes.append(tuple(made.shape))
        return with_prefix(prefix, key, value, made)

    monkeypatch.setattr(attention, "with_prefix", spy)
    looped = functional_call(model, random, (batch_of(ids, mask),))
    assert shapes == [(3, 1, 9, 9)] * 2
    with sdpa_kernel(SDPBackend.MATH), padded_calls():
        run = vmap(
            lambda values, ids, mask: functional_call(model, values, (batch_of(ids, mask),)), in_dims=(None, 0, 0)
        )
        batched = run(random, ids[:, None], mask[:, None])
    torch.testing.assert_close(batched[:, 0], looped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("function", attention.FUNCTIONS.values(), ids=attention.FUNCTIONS)
def test_a_prefix_is_a_gated_mix_of_two_attentions(function: Callable[..., tuple[torch.Tensor, object]]) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 8, generator=draw) for _ in "qkv")
    pk, pv = (torch.randn(4, 3, 8, generator=draw) for _ in "kv")
    visible = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None, :].expand(2, 1, 5, 5)
    module = nn.Module()
    setattr(module, PREFIX_SLOT, lambda: (pk, pv))

    text = (q @ k.mT / 8**0.5).masked_fill(~visible, -torch.inf)
    prefix = q @ pk.mT / 8**0.5
    mass = text.logsumexp(-1, keepdim=True), prefix.logsumexp(-1, keepdim=True)
    gate = torch.sigmoid(mass[1] - mass[0])  # lambda = sum exp(prefix) / (sum exp(prefix) + sum exp(text))
    expected = (1 - gate) * text.softmax(-1) @ v + gate * prefix.softmax(-1) @ pv

    mask = visible if function is attention.FUNCTIONS["sdpa"] else torch.zeros(2, 1, 5, 5).masked_fill(~visible, -1e30)
    out, _ = function(module, q, k, v, mask)
    torch.testing.assert_close(out.transpose(1, 2), expected, rtol=0, atol=1e-6)
    plain, _ = function(nn.Module(), q, k, v, mask)
    torch.testing.assert_close(plain.transpose(1, 2), text.softmax(-1) @ v, rtol=0, atol=1e-6)
    other_scale, _ = function(module, q, k, v, mask, scaling=0.1)
    same_scale, _ = function(module, q * (0.1 * 8**0.5), k, v, mask)
    torch.testing.assert_close(other_scale, same_scale, rtol=0, atol=1e-6)


def test_registering_twice_changes_nothing(toy_bert: Path) -> None:
    ids, mask = batch()
    module = load_encoder(str(toy_bert)).module
    before = hidden(module, ids, mask)
    attention.register()
    assert torch.equal(hidden(module, ids, mask), before)
