"""A toy model and its loss, for every file here."""

from __future__ import annotations

import pytest
from toy_learner import Toy, loss_of, toy_model

from metaprime.types import Loss


@pytest.fixture
def toy() -> Toy:
    return toy_model()


@pytest.fixture
def loss(toy: Toy) -> Loss:
    return loss_of(toy)
