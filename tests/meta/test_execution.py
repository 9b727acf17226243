"""The three ways against one episode after another by plain autograd; which attention kernels are allowed."""

from __future__ import annotations

import pytest
import torch
from inner_loops import changed
from toy_learner import T, Toy, draw, episodes, one, starts, theta

from metaprime.meta import InnerLoop, Way
from metaprime.meta.execution import attention_kernels, computed, episode, looped, one_pass, vmapped
from metaprime.types import Batch, Episodes, Loss, Params

INNER = InnerLoop(lr=0.1)
HEAD = ("head.weight", "head.bias")


def leading(loss: Loss) -> Loss:
    """A loss of one episode as one that accepts a leading T."""
    return lambda backbone, fast, batch: torch.stack(
        [loss(backbone, one(fast, place), one(batch, place)) for place in range(len(batch["labels"]))]
    )


def split_head(values: Params) -> tuple[Params, Params]:
    return (
        {name: value for name, value in values.items() if name not in HEAD},
        {name: value for name, value in values.items() if name in HEAD},
    )


def by_hand(loss: Loss, toy: Toy, batch: Batch) -> tuple[Params, torch.Tensor]:
    """Gradient of each episode's loss in its own head, and the losses."""
    gradients, losses = [], []
    for place in range(len(batch["labels"])):
        fast = {name: value.clone().requires_grad_() for name, value in one(starts(toy), place).items()}
        value = loss(theta(toy), fast, one(batch, place))
        gradients.append(dict(zip(HEAD, torch.autograd.grad(value, [fast[name] for name in HEAD]), strict=True)))
        losses.append(value.detach())
    return {name: torch.stack([each[name] for each in gradients]) for name in HEAD}, torch.stack(losses)


def first_episode(batch: Episodes) -> Batch:
    return {name: value[:1] for name, value in batch.query.items()}


@pytest.mark.parametrize("way", [Way.ONE_PASS, Way.VMAP])
@pytest.mark.parametrize("second_order", [False, True])
def test_gradients_and_losses_are_those_of_single_episodes(toy: Toy, loss: Loss, way: Way, second_order: bool) -> None:
    batch = episodes().query
    functions = computed(
        leading(loss) if way is Way.ONE_PASS else loss, changed(INNER, way=way, second_order=second_order)
    )
    gradients, losses_T = by_hand(loss, toy, batch)
    still, moving = split_head(starts(toy))
    found, found_T = functions.gradient(theta(toy), still, moving, batch)
    assert set(found) == set(HEAD)
    for name in HEAD:
        torch.testing.assert_close(found[name], gradients[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(found_T.detach(), losses_T, rtol=0, atol=1e-12)
    torch.testing.assert_close(functions.losses(theta(toy), starts(toy), batch), losses_T, rtol=0, atol=1e-12)


def test_a_loop_computes_one_episode(toy: Toy, loss: Loss) -> None:
    batch = first_episode(episodes())
    still, moving = split_head({name: value[:1] for name, value in starts(toy).items()})
    functions = computed(loss, changed(INNER, way=Way.LOOP))
    gradients, losses_T = by_hand(loss, toy, batch)
    found, found_T = functions.gradient(theta(toy), still, moving, batch)
    for name in HEAD:
        torch.testing.assert_close(found[name], gradients[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(found_T.detach(), losses_T, rtol=0, atol=1e-12)
    assert functions.losses(theta(toy), still | moving, batch).shape == (1,)


@pytest.mark.parametrize("differentiable", [False, True])
def test_only_a_differentiable_gradient_has_a_gradient(toy: Toy, loss: Loss, differentiable: bool) -> None:
    """The second derivative in theta, by central differences of the gradient."""
    batch, (still, moving) = first_episode(episodes()), split_head(starts(toy))
    still, moving = ({name: value[:1] for name, value in part.items()} for part in (still, moving))
    gradient = looped(loss, differentiable).gradient

    def total(backbone: Params) -> torch.Tensor:
        return torch.stack(
            [value.square().sum() for value in gradient(backbone, still, moving, batch)[0].values()]
        ).sum()

    backbone = {name: value.clone().requires_grad_() for name, value in theta(toy).items()}
    value = total(backbone)
    assert value.requires_grad == differentiable
    if differentiable:
        (slope,) = torch.autograd.grad(value, [backbone["backbone.weight"]])
        direction, size = draw(*slope.shape, seed=7), 1e-5
        ends = [total({"backbone.weight": theta(toy)["backbone.weight"] + sign * size * direction}) for sign in (1, -1)]
        difference = (ends[0] - ends[1]).detach() / (2 * size)
        torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-6, atol=1e-9)


def test_values_that_the_loss_does_not_reach_have_a_zero_gradient(toy: Toy, loss: Loss) -> None:
    still, moving = split_head(starts(toy))
    moving = moving | {"adapter.unused": draw(T, 2, seed=3)}

    def without(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return loss(backbone, {name: value for name, value in fast.items() if name != "adapter.unused"}, batch)

    for functions in (one_pass(leading(without), False), vmapped(without)):
        found, _ = functions.gradient(theta(toy), still, moving, episodes().query)
        assert torch.equal(found["adapter.unused"], torch.zeros(T, 2, dtype=torch.float64))


def test_values_that_are_leaves_already_stay_attached(toy: Toy, loss: Loss) -> None:
    """Second order differentiates through the values that the inner loop moved."""
    still, moving = split_head({name: value[:1] for name, value in starts(toy).items()})
    initial = {name: value.clone().requires_grad_() for name, value in moving.items()}
    found, _ = looped(loss, True).gradient(
        theta(toy), still, {name: 2 * value for name, value in initial.items()}, first_episode(episodes())
    )
    assert torch.autograd.grad(found["head.weight"].sum(), [initial["head.weight"]])[0].count_nonzero() > 0


def test_an_episode_has_no_leading_dimension() -> None:
    values = {"a": torch.arange(6).view(3, 2), "b": torch.arange(3)}
    assert {name: value.tolist() for name, value in episode(values, 1).items()} == {"a": [2, 3], "b": 1}


@pytest.mark.parametrize(
    ("way", "second_order", "device", "plain_only"),
    [
        (Way.LOOP, False, "cpu", False),
        (Way.ONE_PASS, False, "cpu", False),
        (Way.VMAP, False, "cuda", False),
        (Way.VMAP, False, "cpu", True),
        (Way.LOOP, True, "cpu", True),
        (Way.ONE_PASS, True, "cuda", True),
    ],
)
def test_fused_attention_is_off_where_it_cannot_be_differentiated_or_batched(
    way: Way, second_order: bool, device: str, plain_only: bool
) -> None:
    before = torch.backends.cuda.flash_sdp_enabled()
    with attention_kernels(changed(INNER, way=way, second_order=second_order), torch.device(device)):
        assert torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled() == (before and not plain_only)
    assert torch.backends.cuda.flash_sdp_enabled() == before
    assert before
