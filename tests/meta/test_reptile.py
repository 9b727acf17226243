"""Reptile against copies of the model moved by torch, and where its way can be written down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from quadratic import D, quadratic, quadratic_episodes, quadratic_start, quadratic_theta
from toy_learner import (
    INNER_LR,
    STEPS,
    T,
    Toy,
    assert_close,
    by_optimizer,
    episodes,
    measure,
    one,
    settings_of,
    starts,
    theta,
)

from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.meta.learner import GROUPS
from metaprime.meta.reptile import displacement, step
from metaprime.types import Batch, Gradients, Loss, Params


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


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_reptile_goes_the_contracted_way(way: Way) -> None:
    backbone, start, batch = quadratic_theta(), quadratic_start(), quadratic_episodes()
    alpha = 0.3
    settings = InnerLoop(lr=alpha, moves=GROUPS, outer=GROUPS, carry=True).executed(way=way)
    found = LEARNERS["reptile"].step(quadratic, backbone, start, batch, settings)
    left = (1 - alpha) ** (STEPS + 1)  # the query is one more step
    x = {"backbone.x": backbone["backbone.x"].expand(T, D), **start}
    for place, (name, value) in enumerate(x.items()):
        centre = batch.query["centre"][:, place * D : (place + 1) * D]
        gone = (1 - left) * (value - centre) / (alpha * (STEPS + 1))
        torch.testing.assert_close(found.gradients[name], gone.mean(0), rtol=0, atol=1e-12)
        if name != "backbone.x":
            torch.testing.assert_close(
                found.last_fast[name], (centre + left * (value - centre))[-1], rtol=0, atol=1e-12
            )


def test_chunks_are_parts_of_one_mean(toy: Toy, loss: Loss) -> None:
    settings = settings_of("reptile")
    whole = displacement(loss, theta(toy), starts(toy), episodes(), settings)
    cut = step(loss, theta(toy), starts(toy), episodes(), settings.executed(chunk=2))
    assert_close(cut.gradients, whole.gradients, 1e-14)
    first = {name: value[:1] for name, value in starts(toy).items()}
    alone = replace(
        episodes(),
        languages=("qaa",),
        indices=(0,),
        support=tuple({name: value[:1] for name, value in batch.items()} for batch in episodes().support),
        query={name: value[:1] for name, value in episodes().query.items()},
    )
    rest = {name: value[1:] for name, value in starts(toy).items()}
    others = replace(
        episodes(),
        languages=("qaa",) * 2,
        indices=(1, 2),
        support=tuple({name: value[1:] for name, value in batch.items()} for batch in episodes().support),
        query={name: value[1:] for name, value in episodes().query.items()},
    )
    found = displacement(loss, theta(toy), first, alone, settings)
    found += displacement(loss, theta(toy), rest, others, settings)
    assert_close(found.gradients, whole.gradients, 1e-14)


def test_only_outer_groups_and_floating_point_values_are_displaced(toy: Toy, loss: Loss) -> None:
    start = starts(toy) | {"adapter.indices": torch.arange(T)[:, None]}
    settings = replace(settings_of("reptile"), outer=("adapter",))

    def without_indices(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, {name: value for name, value in fast.items() if name != "adapter.indices"}, batch)

    found = step(without_indices, theta(toy), start, episodes(), settings)
    assert set(found.gradients) == {"adapter.down.weight", "adapter.up.weight"}


def test_losses_are_those_of_the_first_and_the_last_step(toy: Toy, loss: Loss) -> None:
    """The last step is the query batch's, whose loss is measured before it."""
    batch = episodes()
    found = step(loss, theta(toy), starts(toy), batch, settings_of("reptile"))
    models = by_optimizer(toy, batch, GROUPS)
    for place, model in enumerate(models):
        last = measure(model(batch.query["x"][place]), batch.query["labels"][place]).detach()
        first = loss(theta(toy), one(starts(toy), place), one(batch.support[0], place))
        torch.testing.assert_close(found.query_loss[place], last, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.support_loss[place], torch.stack([first, last]), rtol=0, atol=1e-12)


def test_weights_are_selected_by_the_query_sentences_too(toy: Toy, loss: Loss) -> None:
    counts: list[int] = []

    def select(backbone: Params, gradients: Gradients) -> Params:
        counts.append(len(list(gradients(["backbone.weight"]))))
        return {}

    step(loss, theta(toy), starts(toy), episodes(), replace(settings_of("reptile"), select=select))
    assert counts == [STEPS + 1] * T
