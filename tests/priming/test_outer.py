"""The outer step against a hand-built optimizer; what it refuses."""

from __future__ import annotations

import pytest
import torch

from metaprime.config.sections import OuterConfig
from metaprime.priming.outer import outer_loop
from metaprime.types import MetaprimeError, Params, State

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "backbone": {"backbone.dense.weight": (3, 2), "backbone.dense.bias": (3,), "backbone.norm.weight": (4,)},
    "adapter": {"adapter.down": (2, 2)},
    "head": {"head.weight": (5, 3), "head.bias": (5,)},
}


def state() -> State:
    draw = torch.Generator().manual_seed(0)
    groups = {
        group: {name: torch.randn(shape, generator=draw).requires_grad_() for name, shape in shapes.items()}
        for group, shapes in SHAPES.items()
    }
    return State(**groups)


def gradients(values: Params, step: int) -> Params:
    draw = torch.Generator().manual_seed(100 + step)
    return {name: 3 * torch.randn(value.shape, generator=draw) for name, value in values.items()}


@pytest.mark.parametrize("clip", [None, 0.7, 1e6])
@pytest.mark.parametrize("groups", [("backbone",), ("backbone", "head"), ("backbone", "adapter", "head")])
def test_it_is_adamw_with_clipping_and_schedule(clip: float | None, groups: tuple[str, ...]) -> None:
    config = OuterConfig(lr=0.1, head_lr=0.02, steps=5, warmup=0.4, weight_decay=0.3, epsilon=1e-3, clip=clip)
    ours, theirs = state(), state()
    outer = outer_loop(ours, config, groups)
    hand = torch.optim.AdamW(
        [
            {"params": [value], "lr": rate, "weight_decay": 0.3 if value.dim() > 1 else 0.0}
            for group in groups
            for rate in [0.02 if group == "head" else 0.1]
            for value in getattr(theirs, group).values()
        ],
        eps=1e-3,
    )
    peaks = [group["lr"] for group in hand.param_groups]
    learning: Params = {name: value for group in groups for name, value in getattr(theirs, group).items()}
    assert list(outer.learning) == list(learning)
    for step, factor in enumerate((0.5, 1.0, 0.75, 0.5, 0.25)):
        found = gradients(learning, step)
        norm = outer.step(step, gradients(learning, step), ["qaa"], halvings=0)
        whole = torch.cat([value.flatten() for value in found.values()]).norm().item()
        assert norm == pytest.approx(whole)
        shrink = min(1.0, clip / (whole + 1e-6)) if clip else 1.0
        for name, value in learning.items():
            value.grad = found[name].clone() * shrink
        for group, peak in zip(hand.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        hand.step()
    everything = {**ours.backbone, **ours.adapter, **ours.head}
    expected = {**theirs.backbone, **theirs.adapter, **theirs.head}
    start = state()
    for name, value in everything.items():
        assert torch.allclose(value, expected[name], rtol=1e-5, atol=1e-7), name
        moved = not torch.equal(value, {**start.backbone, **start.adapter, **start.head}[name])
        assert moved == (name.split(".")[0] in groups)


def test_a_group_without_its_own_rate_takes_the_first() -> None:
    outer = outer_loop(state(), OuterConfig(lr=0.1, adapter_lr=0.5), ("backbone", "adapter", "head"))
    rates = {outer.names[id(p)]: group["peak"] for group in outer.adamw.param_groups for p in group["params"]}
    assert rates == {name: 0.5 if name.startswith("adapter") else 0.1 for shapes in SHAPES.values() for name in shapes}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_moves_nothing(bad: float, clip: float | None) -> None:
    values = state()
    outer = outer_loop(values, OuterConfig(lr=2e-3, clip=clip), ("backbone",))
    before = {name: value.detach().clone() for name, value in values.backbone.items()}
    found = gradients(values.backbone, 0)
    found["backbone.dense.weight"][0, 0] = bad
    with pytest.raises(MetaprimeError, match=r"step 42: the outer gradient's norm is (nan|inf); lower outer\.lr"):
        outer.step(41, found, ["qaa"], halvings=0)
    assert all(torch.equal(values.backbone[name], value) for name, value in before.items())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_named_with_group_parameter_and_languages(clip: float | None) -> None:
    values = state()
    outer = outer_loop(values, OuterConfig(lr=2e-3, clip=clip), ("backbone", "head"))
    found = gradients({**values.backbone, **values.head}, 0)
    found["backbone.norm.weight"][1] = float("nan")
    found["head.bias"][0] = float("inf")
    with pytest.raises(
        MetaprimeError,
        match=r"not finite: backbone \(first backbone\.norm\.weight\), head \(first head\.bias\); .*meta-batch: qaa, qac$",
    ):
        outer.step(41, found, ["qac", "qaa", "qac"], halvings=0)
    huge = {name: torch.full_like(value, 3e38) for name, value in {**values.backbone, **values.head}.items()}
    with pytest.raises(MetaprimeError, match=r"norm is inf; .*none alone, only their sum"):
        outer.step(0, huge, ["qaa"], halvings=0)


def test_a_halving_halves_every_rate() -> None:
    outer = outer_loop(state(), OuterConfig(lr=0.1, head_lr=0.02, steps=5, warmup=0.4), ("backbone", "head"))
    outer.step(0, gradients(outer.learning, 0), ["qaa"], halvings=2)
    assert outer.rate == 0.1 * 0.5 / 4
    assert sorted({group["lr"] for group in outer.adamw.param_groups}) == [0.02 * 0.5 / 4, 0.1 * 0.5 / 4]
