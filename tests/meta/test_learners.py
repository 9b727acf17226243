"""Every learner against copies of the model and torch's own optimizers, in float64, on a model of fourteen weights."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import pytest
import torch
from toy_learner import (
    T,
    Toy,
    assert_close,
    by_optimizer,
    draw,
    episodes,
    measure,
    one,
    reference,
    settings_of,
    starts,
    theta,
)

from metaprime.meta import LEARNERS, Outcome, Way, maml
from metaprime.meta.learner import GROUPS
from metaprime.types import Episodes, Loss, Params

ADAPTING = {name: learner for name, learner in LEARNERS.items() if learner.adapts}
MAML_LIKE = sorted(name for name, learner in ADAPTING.items() if learner.step is maml.step)


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


@pytest.mark.parametrize("name", sorted(ADAPTING))
@pytest.mark.parametrize("changes", [{}, {"chunk": 2}, {"optimizer": "adam"}, {"clip": 0.1}, {"micro": 2}])
def test_batched_is_looped(toy: Toy, loss: Loss, name: str, changes: dict[str, object]) -> None:
    step = LEARNERS[name].step
    batched = step(loss, theta(toy), starts(toy), episodes(), settings_of(name, **changes))
    looped = step(loss, theta(toy), starts(toy), episodes(), settings_of(name, **changes, way=Way.LOOP))
    for field in fields(Outcome):
        torch.testing.assert_close(getattr(batched, field.name), getattr(looped, field.name), rtol=0, atol=1e-10)


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
