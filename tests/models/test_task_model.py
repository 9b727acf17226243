"""Backbone, adapter and head by name: nothing in two groups, nothing lost, values in and out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, assign, functional_loss, initial_values, partition
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import Batch, MetaprimeError, trainable


@pytest.fixture(params=METHODS)
def model(toy_bert: Path, request: pytest.FixtureRequest) -> TaskModel:
    return build(toy_bert, request.param)[0]


def build(folder: Path, method: str) -> tuple[TaskModel, Batch]:
    encoder = load_encoder(str(folder))
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    rows = task.encode(synthetic.read("", "qaa", "train")[:4])
    return build_model(encoder, task, METHODS[method].config(), rows), task.collate(rows)


def test_groups_are_disjoint_and_complete(model: TaskModel) -> None:
    state = partition(model)
    groups = [set(state.backbone), set(state.adapter), set(state.head)]
    own = dict([*model.named_parameters(), *model.adapter.named_buffers("adapter")])
    assert set.union(*groups) == set(own)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(
        name.startswith(f"{kind}.")
        for kind, names in zip(("backbone", "adapter", "head"), groups, strict=True)
        for name in names
    )
    assert all(
        value is own[name] for part in (state.backbone, state.adapter, state.head) for name, value in part.items()
    )


def test_unused_parameters_belong_to_no_group(model: TaskModel) -> None:
    whole, state = partition(model), partition(model, unused=("pooler.", "embeddings.word"))
    gone = {
        "backbone.pooler.dense.weight",
        "backbone.pooler.dense.bias",
        "backbone.embeddings.word_embeddings.weight",
    }
    assert set(whole.backbone) - set(state.backbone) == gone
    assert (set(state.adapter), set(state.head)) == (set(whole.adapter), set(whole.head))


def test_initial_values_are_a_pure_function_of_the_generator(model: TaskModel) -> None:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for group in ("adapter", "head"):
        own = getattr(partition(model), group)
        torch.manual_seed(1)
        one = initial_values(model, group, torch_stream(0, "draw"))
        torch.manual_seed(2)
        again = initial_values(model, group, torch_stream(0, "draw"))
        other = initial_values(model, group, torch_stream(1, "draw"))
        assert one.keys() == own.keys()
        assert all(value.shape == own[name].shape and value.dtype == own[name].dtype for name, value in one.items())
        assert all(torch.equal(value, again[name]) for name, value in one.items())
        if any(name.endswith((".factors", ".delta")) for name in one):  # ones and zeros, whatever the generator
            assert all(torch.equal(value, other[name]) for name, value in trainable(one).items())
            continue
        assert all(any(value.any() for value in drawn.values()) for drawn in (one, other) if drawn)
        assert not any(torch.equal(value, other[name]) for name, value in one.items() if value.any())
        drawn = [value.flatten() for value in one.values() if value.any() and value.numel() > 8]
        assert len({tuple(value[:8].tolist()) for value in drawn}) == len(drawn)  # no two modules draw alike
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_assigning_copies(model: TaskModel) -> None:
    values = {name: torch.randn(value.shape) for name, value in partition(model).head.items()}
    parameters = dict(model.named_parameters())
    assign(model, values)
    for name, value in values.items():
        assert parameters[name] is model.get_parameter(name)
        assert torch.equal(parameters[name], value)
        value.zero_()
        assert parameters[name].any()
        assert parameters[name].requires_grad


def test_assigning_what_does_not_fit_is_refused(toy_bert: Path) -> None:
    model, _ = build(toy_bert, "head")
    with pytest.raises(MetaprimeError, match=r"head\.weight of shape \(2, 32\) does not fit this model \(\(7, 32\)\)"):
        assign(model, {"head.weight": torch.zeros(2, 32)})
    with pytest.raises(MetaprimeError, match=r"adapter\.0\.keys of shape \(1,\) .* \(no such parameter\): the peft"):
        assign(model, {"adapter.0.keys": torch.zeros(1)})


def test_the_loss_reads_the_values_it_is_given(toy_bert: Path) -> None:
    model, batch = build(toy_bert, "pfeiffer")
    state = partition(model)
    draw = torch.Generator().manual_seed(0)
    random = {
        name: value + 0.1 * torch.randn(value.shape, generator=draw)
        for part in (state.backbone, state.adapter, state.head)
        for name, value in part.items()
    }
    before = [parameter.detach().clone() for parameter in model.parameters()]
    seen = []

    def measure(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        seen.append(batch["labels"])
        return logits.square().mean()

    backbone = {name: value for name, value in random.items() if name.startswith("backbone.")}
    fast = {name: value for name, value in random.items() if name not in backbone}
    found = functional_loss(model, measure)(backbone, fast, batch)
    assert seen[0] is batch["labels"]
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert float(found.detach()) == float(functional_call(model, random, (batch,)).square().mean().detach())
    assign(model, random)
    assert float(found.detach()) == pytest.approx(float(model(batch).square().mean().detach()), rel=1e-6)


def test_a_parameter_with_two_names_is_read_under_both(toy_bert: Path) -> None:
    model, batch = build(toy_bert, "head")
    first, second = (model.backbone.get_submodule(f"encoder.layer.{n}.output.dense") for n in (0, 1))
    second.weight = first.weight
    state = partition(model)
    name = "backbone.encoder.layer.0.output.dense.weight"
    assert name in state.backbone
    assert name.replace("layer.0", "layer.1") not in state.backbone

    def measure(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return logits.square().mean()

    noise = torch.randn(first.weight.shape, generator=torch.Generator().manual_seed(0))
    moved = {**state.backbone, name: state.backbone[name] + 0.1 * noise}
    found = functional_loss(model, measure)(moved, state.head, batch)
    assign(model, moved)
    expected = measure(model(batch), batch)
    torch.testing.assert_close(found, expected)
