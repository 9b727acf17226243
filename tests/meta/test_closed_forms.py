"""Reptile and learned rates where everything can be written down: a quadratic loss, whose inner loop is a contraction.

L(x) = |x - c|^2 / 2 has x - c shrink by (1 - alpha) at every step, whatever the support is.
"""

from __future__ import annotations

import math

import pytest
import torch

from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.meta.learner import GROUPS
from metaprime.types import Batch, Episodes, Params

T, D, STEPS = 3, 4, 3


def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
    """Half the squared distance of theta, phi and head, one after the other, from the batch's centre."""
    values = {**backbone, **fast}
    x = torch.cat([values[f"{group}.x"] for group in GROUPS], dim=-1)
    return (x - batch["centre"]).square().sum(-1) / 2


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def theta() -> Params:
    return {"backbone.x": draw(D, seed=1)}


@pytest.fixture
def start() -> Params:
    return {"adapter.x": draw(T, D, seed=2), "head.x": draw(T, D, seed=3)}


@pytest.fixture
def batch() -> Episodes:
    """Every step of an episode has the same centre."""
    centre = {"centre": draw(T, 3 * D, seed=4), "labels": torch.zeros(T, 1, 1, dtype=torch.int64)}
    return Episodes(("qaa",) * T, tuple(range(T)), T, (centre,) * STEPS, centre)


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_reptile_goes_the_contracted_way(theta: Params, start: Params, batch: Episodes, way: Way) -> None:
    alpha = 0.3
    settings = InnerLoop(lr=alpha, moves=GROUPS, outer=GROUPS, carry=True).executed(way=way)
    found = LEARNERS["reptile"].step(loss, theta, start, batch, settings)
    left = (1 - alpha) ** (STEPS + 1)  # the query is one more step
    x = {"backbone.x": theta["backbone.x"].expand(T, D), **start}
    for place, (name, value) in enumerate(x.items()):
        centre = batch.query["centre"][:, place * D : (place + 1) * D]
        gone = (1 - left) * (value - centre) / (alpha * (STEPS + 1))
        torch.testing.assert_close(found.gradients[name], gone.mean(0), rtol=0, atol=1e-12)
        if name != "backbone.x":
            torch.testing.assert_close(
                found.last_fast[name], (centre + left * (value - centre))[-1], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_the_gradient_of_a_rate_is_that_of_a_product(theta: Params, start: Params, batch: Episodes, way: Way) -> None:
    """Q = sum over tensors of prod_s (1 - a_s)^2 |x - c|^2 / 2, and theta's own distance, which no rate moves."""
    names = ("adapter.x", "head.x")
    rates = {
        f"rates.{step}.{name.replace('.', ':')}": torch.full((T,), 0.1 + 0.1 * step + 0.05 * place, dtype=torch.float64)
        for step in range(STEPS)
        for place, name in enumerate(names)
    }
    settings = InnerLoop(lr=0.3, outer=("rates",), second_order=True).executed(way=way)
    found = LEARNERS["peft_maml"].step(loss, theta, start | rates, batch, settings)
    assert set(found.gradients) == set(rates)
    for place, name in enumerate(names):
        centre = batch.query["centre"][:, (place + 1) * D : (place + 2) * D]
        squared = (start[name] - centre).square().sum(-1)
        own = [float(rates[f"rates.{step}.{name.replace('.', ':')}"][0]) for step in range(STEPS)]
        for step, rate in enumerate(own):
            expected = -math.prod((1 - a) ** 2 for a in own) / (1 - rate) * squared.mean()
            gradient = found.gradients[f"rates.{step}.{name.replace('.', ':')}"]
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
