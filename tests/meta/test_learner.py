"""Every learner learns: twenty outer steps lower its query loss. Also the small algebra that all of them share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metaprime.meta import LEARNERS, InnerLoop
from metaprime.meta.learner import Outcome, in_groups
from metaprime.types import Batch, Episodes, Params

T, TAGS, WORDS = 4, 3, 12


class Tagger(nn.Module):
    """A vector per sub-word, a bottleneck beside it, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Embedding(WORDS, 6)
        self.adapter = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))
        self.head = nn.Linear(6, TAGS)

    def forward(self, ids_BL: torch.Tensor, adapts: bool) -> torch.Tensor:
        hidden_BLD = self.backbone(ids_BL)
        return self.head(hidden_BLD + self.adapter(hidden_BLD) if adapts else hidden_BLD)


def batch(sentences: int, seed: int) -> Batch:
    """Each word has its tag, in all languages but for one shift per language: both theta and phi have work."""
    ids = torch.randint(0, WORDS, (T, sentences, 5), generator=torch.Generator().manual_seed(seed))
    shift_T11 = (torch.arange(T) % 2)[:, None, None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids + shift_T11) % TAGS}


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("name", LEARNERS)
def test_twenty_outer_steps_lower_the_query_loss(name: str, second_order: bool) -> None:
    torch.manual_seed(0)
    learner, model = LEARNERS[name], Tagger()
    if second_order and not learner.second_order:
        return  # refused by the config
    groups: dict[str, Params] = {"backbone": {}, "adapter": {}, "head": {}}
    for path, parameter in model.named_parameters():
        groups[path.split(".")[0]][path] = parameter
    fast = {**(groups["adapter"] if learner.injects else {}), **groups["head"]}

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        logits_BLC = functional_call(model, {**backbone, **fast}, (batch["input_ids"], learner.injects))
        return F.cross_entropy(logits_BLC.flatten(0, 1), batch["labels"].flatten())

    outer = tuple({*learner.outer, "head"})
    settings = InnerLoop(lr=0.5, moves=learner.inner, second_order=second_order, outer=outer)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    batches = Episodes(("qaa",) * T, tuple(range(T)), T, (batch(3, 1), batch(3, 2)), batch(6, 3))
    curve = []
    for _ in range(21):
        start = {path: value.detach().expand(T, *value.shape) for path, value in fast.items()}
        outcome = learner.step(loss, groups["backbone"], start, batches, settings)
        for path, gradient in outcome.gradients.items():
            model.get_parameter(path).grad = gradient
        optimizer.step()
        curve.append(float(outcome.query_loss.mean()))
    assert curve[-1] < (0.7 if "backbone" in learner.outer else 0.9) * curve[0]  # a narrow adapter alone gets less far


def test_a_learner_says_what_it_does() -> None:
    assert [name for name, learner in LEARNERS.items() if not learner.adapts] == [
        "multitask",
        "multitask_peft",
        "masked_words",
    ]
    assert all("<-" in learner.formula for learner in LEARNERS.values())
    assert {name: learner.simulates for name, learner in LEARNERS.items()} == {
        "peft_maml": "peft",
        "inner_peft": "peft",
        "maml": "full",
        "anil": "head",
        "reptile": "full",
        "multitask": "full",
        "multitask_peft": "peft",
        "masked_words": None,
    }


def test_names_are_grouped_by_their_first_part() -> None:
    names = ["backbone.a", "backbone.head.b", "adapter.0.a", "head.weight", "headless.x"]
    assert in_groups(names, ("head",)) == ["head.weight"]
    assert in_groups(names, ("adapter", "backbone")) == ["backbone.a", "backbone.head.b", "adapter.0.a"]
    assert in_groups(names, ()) == []


def test_sums_are_by_name_and_leave_tensors_alone() -> None:
    def part(a: torch.Tensor, b: torch.Tensor) -> Outcome:
        return Outcome({"a": a, "b": b}, {"b": b}, {}, b, b)

    shared = torch.tensor([1.0, 2.0])
    found = part(shared, shared)
    found += part(torch.ones(2), torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(found.gradients, {"a": torch.tensor([2.0, 3.0]), "b": torch.tensor([4.0, 6.0])})
    torch.testing.assert_close(found.mean_fast["b"], torch.tensor([4.0, 6.0]))
    torch.testing.assert_close(found.query_loss, torch.tensor([4.0, 6.0]))
    assert shared.tolist() == [1.0, 2.0]  # two gradients may be one tensor
