"""Priming's meta-step on real encoders with real PEFT modules: against SGD on plain models, and batched against looped."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inner_loops import changed
from transformers.models.modernbert import modeling_modernbert

from metaprime.build.model import build_model
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS
from metaprime.priming.starts import Starts
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Task, Text
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params, trainable

ARCHITECTURES = ("bert", "roberta", "xlm-roberta")
ADAPTING = [name for name, method in METHODS.items() if not method.moves_backbone]
T, INNER_LR = 3, 0.1
RESET = {"adapter": "reset", "head": "reset"}
SETTINGS = InnerLoop(lr=INNER_LR, outer=("backbone", "adapter", "head"), carry=True)


def ways_of(model: TaskModel) -> list[Way]:
    """The ways that this model can be carried out in."""
    return [Way.ONE_PASS, Way.VMAP, Way.LOOP] if model.supports_one_pass else [Way.VMAP, Way.LOOP]


Builder = Callable[..., tuple[TaskModel, Task, Episodes]]


@pytest.fixture(scope="module")
def build(toy_encoder: Callable[[str], Path]) -> Builder:
    """A model as the loops make it, its task, and a meta-batch of T episodes with two inner steps."""

    def build(architecture: str, method: str, attention: str = "sdpa") -> tuple[TaskModel, Task, Episodes]:
        encoder = load_encoder(str(toy_encoder(architecture)), attention)
        text = Text(Subwords(encoder.tokenizer), Lengths(64))
        task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
        pools = {name: task.encode(synthetic.read("", name, "train")[:30]) for name in ("qaa", "qaf")}
        model = build_model(encoder, task, METHODS[method].config(), pools["qaa"])
        shape = EpisodeShape(episodes=T, support=2, steps=2, query=3, tau=0)
        batch = EpisodeSampler(pools, shape, seed=1).meta_batch(0, range(T), task.collate)
        lengths = {
            int(n) for tensors in (*batch.support, batch.query) for n in tensors["attention_mask"].sum(-1).flatten()
        }
        assert len(lengths) > 3  # so that there is padding, and not the same in each batch
        return model, task, batch

    return build


def random_start(model: TaskModel) -> Params:
    """Phi and head of T episodes, each its own and none at a special point such as zero."""
    values = Starts(model, partition(model), RESET, seed=0).values(step=0, indices=range(T))
    draw = torch_stream(0, "start")
    own = next(model.parameters()).dtype
    moved = trainable(values).items()
    return {**values, **{k: (v + 0.2 * torch.randn(v.shape, generator=draw)).to(own) for k, v in moved}}


def run(model: TaskModel, task: Task, batch: Episodes, settings: InnerLoop, loss: Loss | None = None):
    state = partition(model, unused=("pooler.",))
    step = LEARNERS["peft_maml"].step
    return step(loss or functional_loss(model, task.loss), state.backbone, random_start(model), batch, settings)


def at(values: Params, place: int) -> Params:
    return {name: value[place] for name, value in values.items()}


@pytest.mark.parametrize("method", ADAPTING)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_order_is_sgd_on_a_model_of_its_own(build: Builder, architecture: str, method: str) -> None:
    model, task, batch = build(architecture, method)
    model.double()
    start, initial = random_start(model), model.state_dict()
    other = build(architecture, method)[0].double()  # built anew: hooks hold on to the modules they were made with
    moving = [p for name, p in other.named_parameters() if not name.startswith("backbone.")]
    theta = {name: p for name, p in other.named_parameters() if name.startswith("backbone.") and "pooler" not in name}

    def measured(tensors: Batch) -> torch.Tensor:
        found = task.loss(other(tensors), tensors)
        penalty = other.penalty(dict(other.named_parameters()))
        return found if penalty is None else found + penalty

    losses, adapted, expected = [], [], {name: torch.zeros_like(p) for name, p in other.named_parameters()}
    for place in range(T):
        other.load_state_dict({**initial, **at(start, place)})
        optimizer = torch.optim.SGD(moving, lr=INNER_LR)
        for tensors in batch.support:
            other.zero_grad()
            measured(at(tensors, place)).backward()
            optimizer.step()
        other.zero_grad()
        query_loss = measured(at(batch.query, place))
        (query_loss / T).backward()
        losses.append(query_loss.detach())
        adapted.append({name: value.detach().clone() for name, value in other.named_parameters()})
        for name, parameter in other.named_parameters():
            expected[name] += 0 if parameter.grad is None else parameter.grad

    for way in ways_of(model):
        found = run(model, task, batch, changed(SETTINGS, way=way))
        assert set(found.gradients) == {*theta, *trainable(start)}
        for name, gradient in found.gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-10)
        for name in trainable(start):
            torch.testing.assert_close(found.last_fast[name], adapted[-1][name], rtol=0, atol=1e-10)
            mean = torch.stack([one[name] for one in adapted]).mean(0)
            torch.testing.assert_close(found.mean_fast[name], mean, rtol=0, atol=1e-10)
            if not name.endswith("key.delta"):  # the same on every score of a query, which softmax takes away
                assert not torch.allclose(adapted[-1][name], start[name][-1])  # the inner loop did move it
        torch.testing.assert_close(found.query_loss, torch.stack(losses), rtol=0, atol=1e-10)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ADAPTING)
def test_batched_is_looped(build: Builder, method: str, attention: str) -> None:
    model, task, batch = build("bert", method, attention)  # the other architectures: tests/test_matrix.py
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model.to(dtype)
        looped = run(model, task, batch, changed(SETTINGS, way=Way.LOOP))
        for chunk, way in itertools.product((None, 2), ways_of(model)):
            batched = run(model, task, batch, changed(SETTINGS, chunk=chunk, way=way))
            for part in ("gradients", "last_fast", "mean_fast"):
                torch.testing.assert_close(
                    getattr(batched, part), getattr(looped, part), rtol=tolerance, atol=tolerance
                )
            torch.testing.assert_close(batched.query_loss, looped.query_loss, rtol=0, atol=tolerance)
            torch.testing.assert_close(batched.support_loss, looped.support_loss, rtol=0, atol=tolerance)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ADAPTING)
def test_second_order_batched_is_looped(build: Builder, method: str, attention: str) -> None:
    model, task, batch = build("bert", method, attention)
    model.double()
    settings = changed(SETTINGS, second_order=True)
    looped = run(model, task, batch, changed(settings, way=Way.LOOP))
    batched = run(model, task, batch, changed(settings, way=Way.VMAP))
    torch.testing.assert_close(batched.gradients, looped.gradients, rtol=1e-10, atol=1e-10)
    together = run(model, task, batch, changed(settings, way=ways_of(model)[0]))
    torch.testing.assert_close(together.gradients, looped.gradients, rtol=1e-10, atol=1e-10)
    first = run(model, task, batch, SETTINGS)
    name = "backbone.encoder.layer.0.attention.self.value.weight"
    assert not torch.allclose(batched.gradients[name], first.gradients[name], rtol=1e-3)


@pytest.mark.parametrize("method", ["pfeiffer", "prefix", "lora"])
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "modernbert"])
def test_second_order_is_the_slope_of_the_adapted_query_loss(
    build: Builder, monkeypatch: pytest.MonkeyPatch, architecture: str, method: str
) -> None:
    """Central differences along one direction through theta, phi and head, with SDPA's plain kernel, in float64 throughout:
    ModernBERT as transformers has it rounds its rotated queries and keys to float32.
    """

    def rotated(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1) -> Any:
        cos, sin = (part.unsqueeze(unsqueeze_dim) for part in (cos, sin))
        return tuple(x * cos + modeling_modernbert.rotate_half(x) * sin for x in (q, k))

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", rotated)
    model, task, batch = build(architecture, method)
    model.double()
    loss, step = functional_loss(model, task.loss), LEARNERS["peft_maml"].step
    theta, start = partition(model, unused=("pooler.",)).backbone, random_start(model)
    draw = torch_stream(0, "direction")
    direction = {
        name: torch.randn(v.shape, generator=draw, dtype=torch.float64) for name, v in {**theta, **start}.items()
    }
    for name in start:
        direction[name] = direction[name][:1].expand_as(start[name])  # one gradient for all episodes' starts

    def objective(size: float) -> float:
        moved = [{name: v.detach() + size * direction[name] for name, v in part.items()} for part in (theta, start)]
        return float(step(loss, *moved, batch, SETTINGS).query_loss.mean())

    gradients = step(loss, theta, start, batch, changed(SETTINGS, second_order=True)).gradients
    slope = sum(float((gradients[name] * direction[name][0 if name in start else ...]).sum()) for name in direction)
    differences = [
        (objective(size) - objective(-size)) / (2 * size) for size in (1e-5, 1e-6, 1e-7)
    ]  # small: a ReLU may turn
    assert abs(slope) > 1e-3
    assert min(abs(difference - slope) for difference in differences) < 1e-6 * abs(slope)


def test_an_unused_pooler_that_is_not_left_out_is_named(build: Builder) -> None:
    model, task, batch = build("bert", "head")
    step, loss = LEARNERS["peft_maml"].step, functional_loss(model, task.loss)
    with pytest.raises(MetaprimeError, match=r"does not depend on backbone\.pooler\.dense\.weight, backbone\.pooler"):
        step(loss, partition(model).backbone, random_start(model), batch, SETTINGS)
