"""Selections of each episode, by gradients that plain backward passes confirm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_learner import STEPS, T, Toy, assert_close, episodes, one, settings_of, starts, theta

from metaprime.meta.selection import backbone_gradients, select_weights
from metaprime.types import Batch, Gradients, Loss, Params

NAME = "backbone.weight"


def by_backward(toy: Toy, loss: Loss, place: int, batch: Batch) -> torch.Tensor:
    """Gradient of an episode's loss in the backbone's weight, at its own phi."""
    backbone = {name: value.clone().requires_grad_() for name, value in theta(toy).items()}
    loss(backbone, one(starts(toy), place), one(batch, place)).backward()
    gradient = backbone[NAME].grad
    assert gradient is not None
    return gradient


def ranked(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.flatten().argsort(descending=True)


def rank_by_sum(backbone: Params, gradients: Gradients) -> Params:
    """Ranks the weights by the sum of their gradients."""
    return {"adapter.indices": ranked(torch.stack([values[NAME] for values in gradients([NAME])]).sum(0))}


def test_each_episode_selects_by_its_own_support(toy: Toy, loss: Loss) -> None:
    start = starts(toy) | {"adapter.indices": torch.full((T, 4), -1)}
    inner = replace(settings_of("peft_maml"), select=rank_by_sum)

    def without_indices(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, {name: value for name, value in fast.items() if name != "adapter.indices"}, batch)

    found = select_weights(without_indices, theta(toy), start, episodes().support, inner)
    sums = [
        torch.stack([by_backward(toy, loss, place, batch) for batch in episodes().support]).sum(0) for place in range(T)
    ]
    expected = [ranked(value).tolist() for value in sums]
    assert found["adapter.indices"].tolist() == expected
    assert len({tuple(places) for places in expected}) > 1
    assert_close({name: found[name] for name in starts(toy)}, starts(toy), 0)
    assert start["adapter.indices"].tolist() == [[-1] * 4] * T


def test_without_a_selection_the_start_is_returned(toy: Toy, loss: Loss) -> None:
    start = starts(toy)
    assert select_weights(loss, theta(toy), start, episodes().support, settings_of("peft_maml")) is start


def test_learned_rates_are_kept_from_the_loss(toy: Toy, loss: Loss) -> None:
    start = starts(toy) | {"rates.0.head:bias": torch.full((T,), 0.1)}
    seen: set[str] = set()

    def watched(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        seen.update(fast)
        return loss(backbone, fast, batch)

    inner = replace(settings_of("peft_maml"), select=rank_by_sum)
    found = select_weights(watched, theta(toy), start, episodes().support, inner)
    assert seen == set(starts(toy))
    assert torch.equal(found["rates.0.head:bias"], start["rates.0.head:bias"])


def test_gradients_come_batch_after_batch_when_they_are_taken(toy: Toy, loss: Loss) -> None:
    calls: list[int] = []

    def counted(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        calls.append(1)
        return loss(backbone, fast, batch)

    batches = [one(batch, 1) for batch in episodes().support]
    backbone, fast = theta(toy), one(starts(toy), 1)
    iterator = iter(backbone_gradients(counted, backbone, fast, batches)([NAME]))
    assert calls == []
    for step in range(STEPS):
        values = next(iterator)
        assert len(calls) == step + 1
        assert set(values) == {NAME}
        torch.testing.assert_close(
            values[NAME], by_backward(toy, loss, 1, episodes().support[step]), rtol=0, atol=1e-12
        )
    with pytest.raises(StopIteration):
        next(iterator)
    assert not any(value.requires_grad for value in (*backbone.values(), *fast.values()))
