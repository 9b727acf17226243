"""Inner steps against torch's own optimizers and clipping; learned rates by differences and by a closed form."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from inner_loops import changed
from quadratic import D, quadratic, quadratic_episodes, quadratic_start, quadratic_theta
from torch import nn
from toy_learner import (
    INNER_LR,
    STEPS,
    T,
    Toy,
    assert_close,
    by_optimizer,
    draw,
    episodes,
    reference,
    settings_of,
    starts,
    theta,
)

from metaprime.meta import LEARNERS, InnerLoop, Outcome, Way
from metaprime.meta.inner_optimizers import adam, broadcast_size, clipped, in_pieces, sgd, update_rule
from metaprime.types import IGNORE, Batch, Loss, Params

PHI = {"adapter.w": (2, 3), "head.b": (4,)}
"""Shapes of some values that an inner loop moves."""


def drawn(seed: int) -> Params:
    return {name: draw(T, *shape, seed=seed + place) for place, (name, shape) in enumerate(PHI.items())}


def test_a_step_of_sgd_is_the_gradient_times_the_step_size() -> None:
    phi, gradients = drawn(1), drawn(10)
    moved = update_rule(InnerLoop(lr=0.3), {}, 1)(0, phi, gradients)
    assert set(moved) == set(PHI)
    for name in PHI:
        torch.testing.assert_close(moved[name], phi[name] - 0.3 * gradients[name], rtol=0, atol=1e-15)
    assert sgd()(gradients) is gradients


def test_steps_of_adam_are_torchs_for_each_episode() -> None:
    phi = drawn(1)
    parameters = {name: [nn.Parameter(row.clone()) for row in value] for name, value in phi.items()}
    optimizer = torch.optim.Adam([p for rows in parameters.values() for p in rows], lr=0.05)
    update = update_rule(InnerLoop(lr=0.05, optimizer="adam"), {}, 4)
    for step in range(4):
        gradients = drawn(10 * (step + 1))
        for name, rows in parameters.items():
            for row, gradient in zip(rows, gradients[name], strict=True):
                row.grad = gradient.clone()
        optimizer.step()
        phi = update(step, phi, gradients)
    for name, rows in parameters.items():
        # Epsilon, 1e-8, is inside the root here and outside in torch.
        torch.testing.assert_close(phi[name], torch.stack([row.detach() for row in rows]), rtol=0, atol=1e-7)


def test_each_loop_has_moments_of_its_own() -> None:
    used, fresh = adam(), adam()
    used(drawn(1))
    gradients = drawn(10)
    assert not torch.allclose(used(gradients)["head.b"], fresh(gradients)["head.b"])


@pytest.mark.parametrize("limit", [0.1, 2.5, 1e6])
def test_each_episode_is_clipped_by_its_own_norm(limit: float) -> None:
    gradients = drawn(1)
    found = clipped(gradients, limit)
    for place in range(T):
        rows = {name: nn.Parameter(torch.zeros_like(value[place])) for name, value in gradients.items()}
        for name, row in rows.items():
            row.grad = gradients[name][place].clone()
        nn.utils.clip_grad_norm_(rows.values(), limit)
        for name, row in rows.items():
            torch.testing.assert_close(found[name][place], row.grad, rtol=1e-6, atol=0)
    untouched = [torch.equal(found["head.b"][place], gradients["head.b"][place]) for place in range(T)]
    assert all(untouched) == (limit == 1e6)


def test_clipping_of_a_zero_gradient_can_be_differentiated() -> None:
    gradient = torch.zeros(T, 2, dtype=torch.float64, requires_grad=True)
    clipped({"x": gradient}, 1.0)["x"].sum().backward()
    torch.testing.assert_close(gradient.grad, torch.ones(T, 2, dtype=torch.float64))


def test_a_rate_is_of_its_step_its_tensor_and_its_episode() -> None:
    rates_T = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    phi, gradients = drawn(1), drawn(10)
    update = update_rule(InnerLoop(lr=0.3), {**phi, "rates.1.adapter:w": rates_T}, 2)
    first, second = update(0, phi, gradients), update(1, phi, gradients)
    torch.testing.assert_close(first["adapter.w"], phi["adapter.w"] - 0.3 * gradients["adapter.w"])
    torch.testing.assert_close(
        second["adapter.w"], phi["adapter.w"] - rates_T[:, None, None] * gradients["adapter.w"], rtol=0, atol=1e-15
    )
    torch.testing.assert_close(second["head.b"], first["head.b"], rtol=0, atol=0)


def test_a_constraint_sees_moved_values_and_the_share_of_steps_done() -> None:
    seen: list[float] = []

    def project(values: Params, done: float) -> Params:
        seen.append(done)
        return {"adapter.w": values["adapter.w"].clamp(min=0)}

    phi, gradients = drawn(1), drawn(10)
    inner = InnerLoop(lr=0.3, project=project)
    update = update_rule(inner, {}, 4)
    moved = update(0, phi, gradients)
    update(3, phi, gradients)
    assert seen == [0.25, 1.0]
    torch.testing.assert_close(moved["adapter.w"], (phi["adapter.w"] - 0.3 * gradients["adapter.w"]).clamp(min=0))
    torch.testing.assert_close(moved["head.b"], phi["head.b"] - 0.3 * gradients["head.b"])
    update_rule(changed(inner, moves=("head",)), {}, 1)(0, phi, gradients)
    assert seen == [0.25, 1.0]


def test_a_micro_batch_counts_by_its_labels() -> None:
    """Two pieces of 3 and 1 labels in one episode, and of 0 and 2 in the other."""
    labels_TB2 = torch.tensor([[[0, 1], [0, IGNORE], [1, IGNORE]], [[IGNORE, IGNORE], [IGNORE, IGNORE], [0, 1]]])
    batch = {"labels": labels_TB2, "x": torch.arange(3.0).expand(2, 3)}
    sizes: list[tuple[int, ...]] = []

    def gradient(backbone: Params, still: Params, moving: Params, piece: Batch) -> tuple[Params, torch.Tensor]:
        sizes.append(tuple(piece["labels"].shape))
        value_T = piece["x"].sum(1)
        return {"head.b": value_T[:, None].expand(2, 4)}, 10 * value_T

    gradients, losses_T = in_pieces(gradient, 2)({}, {}, {"head.b": torch.zeros(2, 4)}, batch)
    assert sizes == [(2, 2, 2), (2, 1, 2)]
    expected_T = torch.tensor([(3 * 1 + 1 * 2) / 4, 2.0])
    torch.testing.assert_close(losses_T, 10 * expected_T)
    torch.testing.assert_close(gradients["head.b"], expected_T[:, None].expand(2, 4))
    assert in_pieces(gradient, None) is gradient


def test_a_size_is_broadcast_over_all_but_the_first_dimension() -> None:
    size_T = torch.tensor([1.0, 2.0, 3.0])
    found = broadcast_size(size_T, torch.ones(T, 2, 5))
    assert isinstance(found, torch.Tensor)
    assert found.shape == (T, 1, 1)
    assert broadcast_size(0.5, torch.ones(T, 2)) == 0.5


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


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_the_gradient_of_a_rate_is_that_of_a_product(way: Way) -> None:
    """Q = sum over tensors of prod_s (1 - a_s)^2 |x - c|^2 / 2, and theta's own distance, which no rate moves."""
    backbone, start, batch = quadratic_theta(), quadratic_start(), quadratic_episodes()
    names = ("adapter.x", "head.x")
    rates = {
        f"rates.{step}.{name.replace('.', ':')}": torch.full((T,), 0.1 + 0.1 * step + 0.05 * place, dtype=torch.float64)
        for step in range(STEPS)
        for place, name in enumerate(names)
    }
    settings = InnerLoop(lr=0.3, outer=("rates",), second_order=True).executed(way=way)
    found = LEARNERS["peft_maml"].step(quadratic, backbone, start | rates, batch, settings)
    assert set(found.gradients) == set(rates)
    for place, name in enumerate(names):
        centre = batch.query["centre"][:, (place + 1) * D : (place + 2) * D]
        squared = (start[name] - centre).square().sum(-1)
        own = [float(rates[f"rates.{step}.{name.replace('.', ':')}"][0]) for step in range(STEPS)]
        for step, rate in enumerate(own):
            expected = -math.prod((1 - a) ** 2 for a in own) / (1 - rate) * squared.mean()
            gradient = found.gradients[f"rates.{step}.{name.replace('.', ':')}"]
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
