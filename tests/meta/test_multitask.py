"""The control without an inner loop: ordinary training on all sentences of an episode at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metaprime.meta import multitask
from metaprime.meta.learner import InnerLoop, Way
from metaprime.types import IGNORE, Batch, Episodes, Loss, Params

T, WORDS, TAGS = 2, 9, 3
SETTINGS = InnerLoop(lr=0.1, outer=("backbone", "head"))


class Tagger(nn.Module):
    """A sub-word's vector plus the mean of its sentence's; what padding adds to that mean would show."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Embedding(WORDS, 4)
        self.head = nn.Linear(4, TAGS)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden_BLD = self.backbone(input_ids)
        visible_BL1 = attention_mask[..., None].to(hidden_BLD)
        mean_B1D = (hidden_BLD * visible_BL1).sum(1, keepdim=True) / visible_BL1.sum(1, keepdim=True)
        return self.head(torch.tanh(hidden_BLD + mean_B1D))


@pytest.fixture
def model() -> Tagger:
    torch.manual_seed(0)
    return Tagger().double()


@pytest.fixture
def loss(model: Tagger) -> Loss:
    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        logits_BLC = functional_call(model, {**backbone, **fast}, (batch["input_ids"], batch["attention_mask"]))
        return F.cross_entropy(logits_BLC.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)

    return loss


def batch(sentences: int, length: int, seed: int, padded: int = 0) -> Batch:
    """(T, B, L): the first and last position carry no label, nor do `padded` further ones of each last sentence."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (T, sentences, length), generator=draw)
    labels = torch.randint(0, TAGS, (T, sentences, length), generator=draw)
    mask = torch.ones_like(ids)
    labels[..., [0, -1]] = IGNORE
    if padded:
        ids[:, -1, -padded:], mask[:, -1, -padded:], labels[:, -1, -padded:] = 0, 0, IGNORE
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def meta_batch() -> Episodes:
    return Episodes(("qaa", "qab"), (0, 1), T, (batch(2, 5, 1), batch(2, 8, 2, padded=3)), batch(3, 6, 3, padded=1))


def parameters(model: Tagger) -> tuple[Params, Params]:
    own = dict(model.named_parameters())
    backbone = {name: value for name, value in own.items() if name.startswith("backbone.")}
    head = {name: value.detach().expand(T, *value.shape) for name, value in own.items() if name not in backbone}
    return backbone, head


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_the_gradient_is_that_of_the_pooled_mean_loss(model: Tagger, loss: Loss, way: Way) -> None:
    batches = meta_batch()
    means = []
    for place in range(T):
        summed, count = 0.0, 0
        for tensors in (*batches.support, batches.query):
            for ids, mask, labels in zip(*(tensors[name][place] for name in tensors), strict=True):
                length = int(mask.sum())  # each sentence by itself: no padding anywhere
                logits_LC = model(ids[None, :length], torch.ones(1, length))[0]
                summed = summed + F.cross_entropy(logits_LC, labels[:length], ignore_index=IGNORE, reduction="sum")
                count += int((labels != IGNORE).sum())
        means.append(summed / count)
    (sum(means) / T).backward()
    settings = InnerLoop(lr=0.1, outer=("backbone", "head")).executed(way=way)
    found = multitask.step(loss, *parameters(model), batches, settings)
    assert set(found.gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.gradients[name], parameter.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.query_loss, torch.stack(means).detach(), rtol=0, atol=1e-12)


def test_wider_padding_changes_nothing(model: Tagger, loss: Loss) -> None:
    batches = meta_batch()
    fill = {"input_ids": 0, "attention_mask": 0, "labels": IGNORE}
    wider = {name: F.pad(tensor, (0, 7), value=fill[name]) for name, tensor in batches.query.items()}
    padded = Episodes(batches.languages, batches.indices, T, batches.support, wider)
    narrow = multitask.step(loss, *parameters(model), batches, SETTINGS)
    wide = multitask.step(loss, *parameters(model), padded, SETTINGS)
    torch.testing.assert_close(wide.gradients, narrow.gradients, rtol=0, atol=1e-14)
