"""The inner loop and the outer gradient on a model of twenty weights, in float64, against independent references."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from inner_loops import changed
from torch import nn
from torch.func import functional_call

from metaprime.meta.chunks import chunks as chunks_of
from metaprime.meta.learner import InnerLoop, Outcome, Way
from metaprime.meta.maml import step as maml_step
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params

T, STEPS, INNER_LR = 3, 3, 0.5
GROUPS = ("backbone", "adapter", "head")
FIRST = InnerLoop(lr=INNER_LR, outer=GROUPS, carry=True)


class Toy(nn.Module):
    """Two inputs, three hidden units with a bottleneck of one beside them, one output: 20 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.adapter = nn.ModuleDict({"down": nn.Linear(3, 1), "up": nn.Linear(1, 3, bias=False)})
        self.head = nn.Linear(3, 1)

    def forward(self, x_B2: torch.Tensor) -> torch.Tensor:
        hidden_B3 = torch.tanh(self.backbone(x_B2))
        changed_B3 = hidden_B3 + self.adapter["up"](torch.tanh(self.adapter["down"](hidden_B3)))
        return self.head(changed_B3)[:, 0]

    def measure(self, batch: Batch) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self(batch["x"]), batch["labels"])


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def toy() -> Toy:
    model = Toy().double()
    assert sum(p.numel() for p in model.parameters()) == 20
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed)
    return model


@pytest.fixture
def loss(toy: Toy) -> Loss:
    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        logits_B = functional_call(toy, {**backbone, **fast}, (batch["x"],))
        return F.binary_cross_entropy_with_logits(logits_B, batch["labels"])

    return loss


def theta(toy: Toy) -> Params:
    return {name: p for name, p in toy.named_parameters() if name.startswith("backbone.")}


def starts(toy: Toy) -> Params:
    """Phi and head of T episodes, each its own."""
    own = [(name, p) for name, p in toy.named_parameters() if not name.startswith("backbone.")]
    return {name: p.detach() + draw(T, *p.shape, seed=50 + place) for place, (name, p) in enumerate(own)}


def episodes(count: int = T, steps: int = STEPS) -> Episodes:
    def batch(seed: int, sentences: int) -> Batch:
        return {
            "x": draw(count, sentences, 2, seed=seed),
            "labels": (draw(count, sentences, seed=seed + 1) > 0).double(),
        }

    support = tuple(batch(100 + 10 * step, 4) for step in range(steps))
    return Episodes(("qaa",) * count, tuple(range(count)), count, support, batch(900, 6))


def one(values: Params, place: int) -> Params:
    return {name: value[place] for name, value in values.items()}


def by_sgd(toy: Toy, start: Params, batch: Episodes) -> tuple[list[Toy], list[torch.Tensor]]:
    """The reference: a copy of the model per episode, moved by `torch.optim.SGD`; and the query losses there."""
    models, losses = [], []
    for place in range(len(batch.indices)):
        model = copy.deepcopy(toy)
        model.load_state_dict({**model.state_dict(), **one(start, place)})
        optimizer = torch.optim.SGD([*model.adapter.parameters(), *model.head.parameters()], lr=INNER_LR)
        for support in batch.support:
            optimizer.zero_grad()
            model.measure(one(support, place)).backward()
            optimizer.step()
        model.zero_grad()
        models.append(model)
        losses.append(model.measure(one(batch.query, place)))
    return models, losses


def assert_equal(found: Outcome, expected: Outcome, tolerance: float = 1e-10) -> None:
    for field in fields(Outcome):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_first_order_is_deepcopy_and_sgd(toy: Toy, loss: Loss, way: Way) -> None:
    batch = episodes()
    models, losses = by_sgd(toy, starts(toy), batch)
    (sum(losses) / T).backward()
    final = [dict(model.named_parameters()) for model in models]
    expected = Outcome(
        gradients={name: sum(parameters[name].grad for parameters in final) for name in final[0]},
        mean_fast={name: sum(p[name].detach() for p in final) / T for name in starts(toy)},
        last_fast={name: final[-1][name].detach() for name in starts(toy)},
        query_loss=torch.stack(losses).detach(),
        support_loss=torch.stack([support_curve(toy, starts(toy), batch, place) for place in range(T)]),
    )
    found = maml_step(loss, theta(toy), starts(toy), batch, changed(FIRST, way=way))
    assert set(found.gradients) == {name for name, _ in toy.named_parameters()}
    assert_equal(found, expected)


def support_curve(toy: Toy, start: Params, batch: Episodes, place: int) -> torch.Tensor:
    """Support loss of the first and of the last inner step, each at the values before the step."""
    before_last = replace(batch, support=batch.support[:-1])
    first = by_sgd(toy, start, replace(batch, support=()))[0][place].measure(one(batch.support[0], place))
    last = by_sgd(toy, start, before_last)[0][place].measure(one(batch.support[-1], place))
    return torch.stack([first, last]).detach()


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_second_order_is_the_derivative_of_the_adapted_query_loss(toy: Toy, loss: Loss, way: Way) -> None:
    batch, start = episodes(), starts(toy)
    direction = {name: draw(*p.shape, seed=200 + place) for place, (name, p) in enumerate(toy.named_parameters())}

    def objective(size: float) -> float:
        moved = copy.deepcopy(toy)
        for name, parameter in moved.named_parameters():
            parameter.data += size * direction[name]
        shifted = {name: value + size * direction[name] for name, value in start.items()}
        return float(torch.stack(by_sgd(moved, shifted, batch)[1]).mean().detach())

    settings = changed(FIRST, second_order=True, way=way)
    gradients = maml_step(loss, theta(toy), start, batch, settings).gradients
    slope = float(sum((gradients[name] * direction[name]).sum() for name in direction))
    differences = [(objective(size) - objective(-size)) / (2 * size) for size in (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)]
    assert abs(slope) > 1e-3
    assert min(abs(difference - slope) for difference in differences) < 1e-6 * abs(slope)


def test_first_and_second_order_differ_in_the_gradient_alone(toy: Toy, loss: Loss) -> None:
    first = maml_step(loss, theta(toy), starts(toy), episodes(), FIRST)
    second = maml_step(loss, theta(toy), starts(toy), episodes(), changed(FIRST, second_order=True))
    for name in first.gradients:
        assert (first.gradients[name] - second.gradients[name]).abs().max() > 1e-3, name
    assert_equal(replace(second, gradients=first.gradients), first)


@pytest.mark.parametrize("chunk", [1, 2, 3, None])
@pytest.mark.parametrize("second_order", [False, True])
def test_batched_is_looped(toy: Toy, loss: Loss, second_order: bool, chunk: int | None) -> None:
    settings = changed(FIRST, second_order=second_order, chunk=chunk)
    looped = maml_step(loss, theta(toy), starts(toy), episodes(), changed(settings, way=Way.LOOP))
    assert_equal(maml_step(loss, theta(toy), starts(toy), episodes(), settings), looped)


@pytest.mark.parametrize("second_order", [False, True])
def test_episodes_of_like_lengths_go_together_each_from_its_own_start(toy: Toy, loss: Loss, second_order: bool) -> None:
    batch, start = episodes(), starts(toy)
    lengths = ((90, 2, 90),) * (STEPS + 1)
    settings = changed(FIRST, second_order=second_order, subwords=10**6)
    found = [places for places, _ in chunks_of(replace(batch, lengths=lengths), settings)]
    assert found == [[1], [0, 2]]
    looped = maml_step(loss, theta(toy), start, batch, changed(settings, way=Way.LOOP))
    assert_equal(maml_step(loss, theta(toy), start, replace(batch, lengths=lengths), settings), looped)


@pytest.mark.parametrize("parts", [((0,), (1, 2)), ((0, 2), (1,)), ((2,), (1,), (0,))])
@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_parts_add_up_to_the_whole(toy: Toy, loss: Loss, way: Way, parts: tuple[tuple[int, ...], ...]) -> None:
    settings = changed(FIRST, way=way)
    batch, start = episodes(), starts(toy)
    whole = maml_step(loss, theta(toy), start, batch, settings)
    found = []
    for indices in parts:
        held = list(indices)
        slice_of_it = Episodes(
            languages=("qaa",) * len(held),
            indices=indices,
            total=T,
            support=tuple({name: value[held] for name, value in tensors.items()} for tensors in batch.support),
            query={name: value[held] for name, value in batch.query.items()},
        )
        mine = {name: value[held] for name, value in start.items()}
        found.append(maml_step(loss, theta(toy), mine, slice_of_it, settings))
    dictionaries = ("gradients", "mean_fast", "last_fast")
    total = {name: _added([getattr(part, name) for part in found]) for name in dictionaries}
    losses = {name: sum(getattr(part, name) for part in found) for name in ("query_loss", "support_loss")}
    assert_equal(Outcome(**total, **losses), whole)


@pytest.mark.parametrize("outer", [("backbone",), ("adapter",), ("head",), ("backbone", "head")])
@pytest.mark.parametrize("second_order", [False, True])
def test_outer_chooses_the_gradients_and_changes_none(
    toy: Toy, loss: Loss, second_order: bool, outer: tuple[str, ...]
) -> None:
    settings = InnerLoop(lr=INNER_LR, second_order=second_order, outer=outer)
    some = maml_step(loss, theta(toy), starts(toy), episodes(), settings)
    every = maml_step(loss, theta(toy), starts(toy), episodes(), changed(settings, outer=GROUPS))
    assert set(some.gradients) == {name for name, _ in toy.named_parameters() if name.split(".")[0] in outer}
    assert (some.mean_fast, some.last_fast) == ({}, {})
    for name, gradient in some.gradients.items():
        torch.testing.assert_close(gradient, every.gradients[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
@pytest.mark.parametrize("second_order", [False, True])
def test_a_parameter_that_the_loss_never_reaches_is_named(toy: Toy, loss: Loss, second_order: bool, way: Way) -> None:
    backbone = {**theta(toy), "backbone.pooler": draw(2, seed=3)}
    settings = changed(FIRST, second_order=second_order, way=way)

    def without(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss({name: value for name, value in backbone.items() if name != "backbone.pooler"}, fast, batch)

    with pytest.raises(
        MetaprimeError, match=r"does not depend on backbone\.pooler: .* under encoder\.sites\.unused: \[pooler\]"
    ):
        maml_step(without, backbone, starts(toy), episodes(), settings)
    adapter_only = changed(settings, outer=("adapter", "head"))
    assert maml_step(without, backbone, starts(toy), episodes(), adapter_only).gradients


@pytest.mark.parametrize("second_order", [False, True])
def test_nothing_is_written(toy: Toy, loss: Loss, second_order: bool) -> None:
    start, batch = starts(toy), episodes()
    held = [*toy.parameters(), *start.values(), *batch.query.values()]
    before = [value.detach().clone() for value in held]
    maml_step(loss, theta(toy), start, batch, changed(FIRST, second_order=second_order))
    assert all(torch.equal(value, old) for value, old in zip(held, before, strict=True))
    assert [value.requires_grad for value in start.values()] == [False] * len(start)
    assert all(parameter.grad is None for parameter in toy.parameters())


def test_without_support_the_query_is_taken_at_the_start(toy: Toy, loss: Loss) -> None:
    batch = episodes(steps=0)
    found = maml_step(loss, theta(toy), starts(toy), batch, FIRST)
    expected = torch.stack([loss(theta(toy), one(starts(toy), place), one(batch.query, place)) for place in range(T)])
    torch.testing.assert_close(found.query_loss, expected.detach(), rtol=0, atol=1e-14)
    assert torch.equal(found.support_loss, torch.zeros(T, 2, dtype=torch.float64))


def _added(parts: list[Params]) -> Params:
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]} if parts else {}
