"""The bookkeeping around the algorithm, on values small enough to write down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metaprime.meta import InnerLoop
from metaprime.meta.values import detached, gradients_of, leaves_of, outcome, placed, split
from metaprime.types import Episodes, MetaprimeError, Params

T = 3
THETA = {"backbone.w": torch.tensor([[1.0, 2.0]]), "backbone.ids": torch.tensor([0, 1])}


def start() -> Params:
    return {
        "adapter.x": torch.arange(6.0).view(T, 2),
        "adapter.indices": torch.arange(T)[:, None],
        "head.b": torch.ones(T, 1),
        "rates.0.head:b": torch.full((T,), 0.1),
    }


def part(indices: tuple[int, ...], total: int = T) -> Episodes:
    return Episodes(("qaa",) * len(indices), indices, total, (), {})


def test_phi_moves_and_the_backbone_stays_out() -> None:
    moving, still = split(THETA, start(), InnerLoop(lr=0.1))
    assert set(moving) == {"adapter.x", "head.b"}
    assert set(still) == {"adapter.indices"}
    moving, still = split(THETA, start(), InnerLoop(lr=0.1, moves=("head",)))
    assert set(moving) == {"head.b"}
    assert set(still) == {"adapter.x", "adapter.indices"}


def test_a_backbone_that_moves_has_a_copy_for_each_episode() -> None:
    moving, still = split(THETA, start(), InnerLoop(lr=0.1, moves=("backbone", "head")))
    assert set(moving) == {"backbone.w", "head.b"}
    assert moving["backbone.w"].tolist() == [[[1.0, 2.0]]] * T
    assert moving["backbone.w"].data_ptr() == THETA["backbone.w"].data_ptr()
    assert set(still) == {"adapter.x", "adapter.indices", "backbone.ids"}
    assert still["backbone.ids"].tolist() == [[0, 1]] * T


def test_gradients_are_by_name_and_unreached_leaves_are_all_named() -> None:
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    found = gradients_of((x.square() * y).sum(), {"head.x": x, "head.y": y})
    assert found["head.x"].tolist() == [6.0, 12.0]
    assert found["head.y"].item() == 5.0
    with pytest.raises(
        MetaprimeError,
        match=r"does not depend on backbone\.pooler, head\.y: .* under encoder\.sites\.unused: \[pooler\]",
    ):
        gradients_of(x.sum(), {"backbone.pooler": torch.zeros(2, requires_grad=True), "head.x": x, "head.y": y})


def test_leaves_start_a_graph_of_their_own() -> None:
    source = torch.tensor([1.0], requires_grad=True)
    found = leaves_of({"head.x": 2 * source, "adapter.indices": torch.tensor([3])})
    assert found["head.x"].is_leaf
    assert found["head.x"].requires_grad
    assert not found["adapter.indices"].requires_grad
    assert [value.tolist() for value in found.values()] == [[2.0], [3]]
    assert not any(value.requires_grad for value in detached({"head.x": 2 * source}).values())


def test_values_are_placed_among_those_of_the_meta_batch() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert placed(values, part((3, 1), total=4)).tolist() == [[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert placed(values[:, 0], part((0, 1), total=2)).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(("indices", "last"), [((1, 2), True), ((0, 1), False)])
def test_the_last_values_are_those_of_the_process_that_holds_the_last_episode(
    indices: tuple[int, ...], last: bool
) -> None:
    fast = {name: value[:2].requires_grad_(value.is_floating_point()) for name, value in start().items()}
    gradients = {"backbone.w": torch.ones(1, 2)}
    query_T, curve_T2 = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    inner = InnerLoop(lr=0.1, carry=True)
    found = outcome(gradients, fast, query_T, curve_T2, part(indices), inner)
    assert found.gradients is gradients
    assert set(found.mean_fast) == set(found.last_fast) == {"adapter.x", "head.b"}
    torch.testing.assert_close(found.mean_fast["adapter.x"], torch.tensor([2.0, 4.0]) / T)
    assert found.last_fast["adapter.x"].tolist() == ([2.0, 3.0] if last else [0.0, 0.0])
    assert found.query_loss.tolist() == ([0.0, 1.0, 2.0] if last else [1.0, 2.0, 0.0])
    assert found.support_loss[indices[1]].tolist() == [7.0, 8.0]
    assert not any(value.requires_grad for value in (*found.mean_fast.values(), found.query_loss))
    silent = outcome(gradients, fast, query_T, curve_T2, part(indices), replace(inner, carry=False))
    assert (silent.mean_fast, silent.last_fast) == ({}, {})
