"""Every learner against copies of the model and torch's own optimizers, in float64, on a model of fourteen weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from inner_loops import changed
from torch import nn
from torch.func import functional_call

from metaprime.meta import LEARNERS, InnerLoop, Outcome, Way
from metaprime.meta.learner import GROUPS
from metaprime.types import IGNORE, Batch, Episodes, Loss, Params

T, STEPS, INNER_LR = 3, 3, 0.4
ADAPTING = {name: learner for name, learner in LEARNERS.items() if learner.adapts}
MAML_LIKE = sorted(set(ADAPTING) - {"reptile"})


class Toy(nn.Module):
    """Two inputs, two hidden units, two classes; the adapter is a bottleneck of one beside the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2, bias=False)
        self.adapter = nn.ModuleDict({"down": nn.Linear(2, 1, bias=False), "up": nn.Linear(1, 2, bias=False)})
        self.head = nn.Linear(2, 2)

    def forward(self, x_BL2: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.backbone(x_BL2))
        return self.head(hidden + self.adapter["up"](torch.tanh(self.adapter["down"](hidden))))


def measure(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def toy() -> Toy:
    model = Toy().double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed)
    return model


@pytest.fixture
def loss(toy: Toy) -> Loss:
    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return measure(functional_call(toy, {**backbone, **fast}, (batch["x"],)), batch["labels"])

    return loss


def theta(toy: Toy) -> Params:
    return {name: p.detach() for name, p in toy.named_parameters() if name.startswith("backbone.")}


def starts(toy: Toy) -> Params:
    own = [(name, p) for name, p in toy.named_parameters() if not name.startswith("backbone.")]
    return {name: p.detach() + 0.3 * draw(T, *p.shape, seed=50 + place) for place, (name, p) in enumerate(own)}


def episodes() -> Episodes:
    """Support of five windows of three positions, a third of them without a label; query of four."""

    def batch(seed: int, windows: int) -> Batch:
        labels = (draw(T, windows, 3, seed=seed + 1) > 0).long()
        return {
            "x": draw(T, windows, 3, 2, seed=seed),
            "labels": labels.masked_fill(draw(T, windows, 3, seed=seed + 2) > 0.5, IGNORE),
        }

    return Episodes(
        ("qaa",) * T, tuple(range(T)), T, tuple(batch(100 + 10 * s, 5) for s in range(STEPS)), batch(900, 4)
    )


def one(values: Params, place: int) -> Params:
    return {name: value[place] for name, value in values.items()}


def settings_of(name: str, **changes: object) -> InnerLoop:
    outer = tuple(group for group in GROUPS if group in LEARNERS[name].outer or group != "backbone")
    return changed(InnerLoop(lr=INNER_LR, moves=LEARNERS[name].inner, outer=outer, carry=True), **changes)


def by_optimizer(
    toy: Toy,
    batch: Episodes,
    groups: tuple[str, ...],
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=INNER_LR),
    clip: float | None = None,
    query_too: bool = False,
) -> list[Toy]:
    """The reference: a copy of the model per episode whose chosen groups torch's own optimizer moves."""
    models = []
    for place in range(T):
        model = copy.deepcopy(toy)
        model.load_state_dict({**model.state_dict(), **one(starts(toy), place)})
        chosen = [p for name, p in model.named_parameters() if name.split(".")[0] in groups]
        optimizer = make(chosen)
        for support in (*batch.support, *((batch.query,) if query_too else ())):
            optimizer.zero_grad()
            tensors = one(support, place)
            measure(model(tensors["x"]), tensors["labels"]).backward()
            if clip:
                nn.utils.clip_grad_norm_(chosen, clip)
            optimizer.step()
        models.append(model)
    return models


def reference(toy: Toy, models: list[Toy], batch: Episodes) -> Params:
    """Gradient of the mean query loss at the adapted copies, by name."""
    for model in models:
        model.zero_grad()
    losses = [
        measure(model(batch.query["x"][place]), batch.query["labels"][place]) for place, model in enumerate(models)
    ]
    torch.stack(losses).mean().backward()
    parameters = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([own[name].grad for own in parameters]).sum(0) for name in parameters[0]}


def assert_close(found: Params, expected: Params, tolerance: float = 1e-10) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_the_list_is_whole() -> None:
    trained = {"multitask", "multitask_peft", "masked_words"}
    assert set(LEARNERS) == {"peft_maml", "inner_peft", "maml", "anil", "reptile"} | trained
    assert {name: learner.inner for name, learner in ADAPTING.items()} == {
        "peft_maml": ("adapter", "head"),
        "inner_peft": ("adapter",),
        "anil": ("head",),
        "maml": GROUPS,
        "reptile": GROUPS,
    }


@pytest.mark.parametrize("name", MAML_LIKE)
@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_first_order_is_deepcopy_and_sgd(toy: Toy, loss: Loss, name: str, way: Way) -> None:
    batch = episodes()
    models = by_optimizer(toy, batch, LEARNERS[name].inner)
    found = LEARNERS[name].step(loss, theta(toy), starts(toy), batch, settings_of(name, way=way))
    assert_close(found.gradients, reference(toy, models, batch))
    final = [dict(model.named_parameters()) for model in models]
    assert_close(found.mean_fast, {n: torch.stack([own[n].detach() for own in final]).mean(0) for n in starts(toy)})


@pytest.mark.parametrize("name", MAML_LIKE)
def test_second_order_is_the_derivative_of_the_adapted_query_loss(toy: Toy, loss: Loss, name: str) -> None:
    """Central differences along a random direction of all starting values, best of several step sizes."""
    batch, learner = episodes(), LEARNERS[name]
    settings = settings_of(name, second_order=True)
    direction = {key: draw(*p.shape, seed=200 + place) for place, (key, p) in enumerate(toy.named_parameters())}

    def objective(size: float) -> float:
        moved_theta = {key: value + size * direction[key] for key, value in theta(toy).items()}
        moved_start = {key: value + size * direction[key] for key, value in starts(toy).items()}
        return float(learner.step(loss, moved_theta, moved_start, batch, settings).query_loss.mean())

    gradients = learner.step(loss, theta(toy), starts(toy), batch, settings).gradients
    slope = float(sum((gradients[key] * direction[key]).sum() for key in direction))
    differences = [(objective(size) - objective(-size)) / (2 * size) for size in (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)]
    assert abs(slope) > 1e-3
    assert min(abs(difference - slope) for difference in differences) < 1e-6 * abs(slope)
    first = learner.step(loss, theta(toy), starts(toy), batch, settings_of(name)).gradients
    assert any((first[key] - gradients[key]).abs().max() > 1e-4 for key in gradients)


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_reptile_moves_to_where_episodes_end(toy: Toy, loss: Loss, way: Way) -> None:
    batch = episodes()
    models = by_optimizer(toy, batch, GROUPS, query_too=True)
    found = LEARNERS["reptile"].step(loss, theta(toy), starts(toy), batch, settings_of("reptile", way=way))
    expected = {}
    for name in dict(toy.named_parameters()):
        before = [(theta(toy) | one(starts(toy), place))[name] for place in range(T)]
        after = [dict(model.named_parameters())[name].detach() for model in models]
        travelled = torch.stack([b - a for b, a in zip(before, after, strict=True)]).mean(0)
        expected[name] = travelled / (INNER_LR * (STEPS + 1))
    assert_close(found.gradients, expected)
    # A step of size alpha (n + 1) against this gradient is the step of size one that the method describes.
    moved = theta(toy)["backbone.weight"] - INNER_LR * (STEPS + 1) * found.gradients["backbone.weight"]
    mean = torch.stack([model.backbone.weight.detach() for model in models]).mean(0)
    torch.testing.assert_close(moved, mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ADAPTING))
@pytest.mark.parametrize("changes", [{}, {"chunk": 2}, {"optimizer": "adam"}, {"clip": 0.1}, {"micro": 2}])
def test_batched_is_looped(toy: Toy, loss: Loss, name: str, changes: dict[str, object]) -> None:
    step = LEARNERS[name].step
    batched = step(loss, theta(toy), starts(toy), episodes(), settings_of(name, **changes))
    looped = step(loss, theta(toy), starts(toy), episodes(), settings_of(name, **changes, way=Way.LOOP))
    for field in fields(Outcome):
        torch.testing.assert_close(getattr(batched, field.name), getattr(looped, field.name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("clip", [None, 0.05, 100.0])
@pytest.mark.parametrize("name", ["peft_maml", "maml"])
def test_adam_and_clipping_are_torchs(toy: Toy, loss: Loss, name: str, clip: float | None) -> None:
    batch = episodes()
    models = by_optimizer(toy, batch, LEARNERS[name].inner, lambda p: torch.optim.Adam(p, lr=0.05), clip)
    settings = settings_of(name, lr=0.05, optimizer="adam", clip=clip)
    found = LEARNERS[name].step(loss, theta(toy), starts(toy), batch, settings)
    assert_close(found.gradients, reference(toy, models, batch), 1e-6)
    plain = by_optimizer(toy, batch, LEARNERS[name].inner, clip=clip)
    found = LEARNERS[name].step(loss, theta(toy), starts(toy), batch, settings_of(name, clip=clip))
    assert_close(found.gradients, reference(toy, plain, batch), 1e-6)


def test_adam_can_be_differentiated_where_a_gradient_is_zero(toy: Toy, loss: Loss) -> None:
    """W_down gets none at a zero W_up: the slope of a root there would be infinite."""
    start = starts(toy) | {"adapter.up.weight": torch.zeros(T, 2, 1, dtype=torch.float64)}
    settings = settings_of("peft_maml", lr=0.05, optimizer="adam", second_order=True)
    gradients = LEARNERS["peft_maml"].step(loss, theta(toy), start, episodes(), settings).gradients
    assert all(torch.isfinite(value).all() for value in gradients.values())


@pytest.mark.parametrize("micro", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("second_order", [False, True])
def test_micro_batches_change_nothing(toy: Toy, loss: Loss, micro: int, second_order: bool) -> None:
    step = LEARNERS["peft_maml"].step
    whole = step(loss, theta(toy), starts(toy), episodes(), settings_of("peft_maml", second_order=second_order))
    pieces = settings_of("peft_maml", second_order=second_order, micro=micro)
    safe = lambda b, f, batch: torch.nan_to_num(loss(b, f, batch))  # noqa: E731  # a piece may have no label at all
    found = step(safe, theta(toy), starts(toy), episodes(), pieces)
    for field in fields(Outcome):
        torch.testing.assert_close(getattr(found, field.name), getattr(whole, field.name), rtol=0, atol=1e-12)


def test_multitask_peft_trains_adapter_and_head_and_leaves_theta(toy: Toy, loss: Loss) -> None:
    learner = LEARNERS["multitask_peft"]
    assert (learner.adapts, learner.injects) == (False, True)
    batch = episodes()
    found = learner.step(loss_of_padded(loss), theta(toy), starts(toy), with_ids(batch), settings_of("multitask_peft"))
    assert set(found.gradients) == set(starts(toy))
    expected: Params = {}
    for place in range(T):
        model = copy.deepcopy(toy)
        model.load_state_dict({**model.state_dict(), **one(starts(toy), place)})
        everything = [one(part, place) for part in (*batch.support, batch.query)]
        x = torch.cat([part["x"] for part in everything])
        measure(model(x), torch.cat([part["labels"] for part in everything])).backward()
        for key, p in model.named_parameters():
            expected[key] = expected.get(key, 0) + p.grad / T
    assert_close(found.gradients, {key: expected[key] for key in starts(toy)})


def with_ids(batch: Episodes) -> Episodes:
    """The toy's inputs where the pooling of batches looks for tokens: the number of a position in a table of inputs."""
    parts = [*batch.support, batch.query]
    table = torch.cat([part["x"].reshape(-1, 2) for part in parts])
    made, first = [], 0
    for part in parts:
        count = part["labels"].numel()
        ids = torch.arange(first, first + count).view(part["labels"].shape)
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": part["labels"]})
        first += count
    with_ids.table = table  # type: ignore[attr-defined]
    return replace(batch, support=tuple(made[:-1]), query=made[-1])


def loss_of_padded(loss: Loss) -> Loss:
    return lambda backbone, fast, batch: loss(
        backbone,
        fast,
        {"x": with_ids.table[batch["input_ids"]], "labels": batch["labels"]},  # type: ignore[attr-defined]
    )


def with_rates(toy: Toy, groups: tuple[str, ...]) -> Params:
    """The starts, and a rate of its own for every moved tensor at every step."""
    moved = [name for name, _ in toy.named_parameters() if name.split(".")[0] in groups]
    places = [(step, name) for step in range(STEPS) for name in moved]
    rates = {
        f"rates.{step}.{name.replace('.', ':')}": torch.full((T,), 0.2 + 0.05 * place, dtype=torch.float64)
        for place, (step, name) in enumerate(places)
    }
    return starts(toy) | rates


@pytest.mark.parametrize("name", ["peft_maml", "anil", "maml"])
@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_learned_rates_at_the_common_value_change_nothing(toy: Toy, loss: Loss, name: str, way: Way) -> None:
    plain = LEARNERS[name].step(loss, theta(toy), starts(toy), episodes(), settings_of(name, way=way))
    start = {
        key: torch.full_like(value, INNER_LR) if key.startswith("rates.") else value
        for key, value in with_rates(toy, LEARNERS[name].inner).items()
    }
    settings = settings_of(name, way=way)
    learned = changed(settings, outer=(*settings.outer, "rates"))
    found = LEARNERS[name].step(loss, theta(toy), start, episodes(), learned)
    assert_close({k: v for k, v in found.gradients.items() if not k.startswith("rates.")}, plain.gradients)
    assert_close(found.mean_fast, plain.mean_fast)


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("name", ["peft_maml", "maml"])
def test_the_gradient_of_a_rate_is_what_another_rate_would_have_cost(
    toy: Toy, loss: Loss, name: str, second_order: bool
) -> None:
    """Second order: central differences of the whole. First order: of the last step's rates, whose gradient is exact."""
    batch, start = episodes(), with_rates(toy, LEARNERS[name].inner)
    settings = settings_of(name, second_order=second_order, outer=("rates",))
    gradients = LEARNERS[name].step(loss, theta(toy), start, batch, settings).gradients
    assert set(gradients) == {key for key in start if key.startswith("rates.")}
    chosen = [key for key in gradients if second_order or key.startswith(f"rates.{STEPS - 1}.")]

    def objective(key: str, size: float) -> float:
        shifted = start | {key: start[key] + size}
        return float(LEARNERS[name].step(loss, theta(toy), shifted, batch, settings).query_loss.mean())

    for key in chosen:
        slopes = [(objective(key, size) - objective(key, -size)) / (2 * size) for size in (1e-3, 1e-4, 1e-5)]
        assert min(abs(slope - float(gradients[key])) for slope in slopes) < 1e-7, key
    assert max(abs(float(gradients[key])) for key in chosen) > 1e-3
