"""What a loss detaches is recorded, and comes back in the same order once it is held."""

from __future__ import annotations

import torch

from metaprime.preflight.constants import Constants
from metaprime.types import Batch, Params


def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
    """A product, one factor of which is taken as constant."""
    return (fast["adapter.a"] * fast["adapter.a"].detach() * batch["x"]).sum()


def passed(constants: Constants, a: float, x: float = 1.0) -> float:
    fast = {"adapter.a": torch.tensor([a], requires_grad=True)}
    return constants.loss({}, fast, {"x": torch.tensor([x])}).item()


def test_held_parts_come_back_in_order_and_from_the_first_again() -> None:
    constants = Constants(loss)
    assert [passed(constants, a) for a in (2.0, 3.0)] == [4.0, 9.0]
    constants.hold()
    assert [passed(constants, 10.0) for _ in range(4)] == [20.0, 30.0, 20.0, 30.0]


def test_only_parts_with_a_gradient_count() -> None:
    constants = Constants(lambda backbone, fast, batch: (fast["adapter.a"] * batch["x"].detach()).sum())
    passed(constants, 2.0)
    assert not constants.present
    constants = Constants(loss)
    passed(constants, 2.0)
    assert constants.present


def test_outside_the_loss_nothing_is_changed() -> None:
    constants = Constants(loss)
    passed(constants, 2.0)
    constants.hold()
    assert torch.ones(1).detach().item() == 1.0
