"""Each check of a meta-gradient on a model of a few weights: right gradients pass, and an error has the size that was planted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from metaprime.interop import learn2learn
from metaprime.meta import LEARNERS, InnerLoop, Outcome, Way
from metaprime.meta.learner import GROUPS, in_groups
from metaprime.preflight.gradient_checks import (
    SIZES,
    Bench,
    Check,
    _direction,
    against_differences,
    against_learn2learn,
    against_optimizer,
    batched_against_looped,
    between_orders,
)
from metaprime.types import Batch, Episodes, MetaprimeError, Params

T, STEPS, LR = 2, 2, 0.3
ADAPTING = [name for name, learner in LEARNERS.items() if learner.adapts]
SECOND = [name for name, learner in LEARNERS.items() if learner.second_order]


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
    """The squared error of a small regression, whose second derivatives are not constant."""
    # A learner that moves the backbone has it among the fast values.
    values = {**backbone, **fast}
    hidden = torch.tanh(batch["x"] @ values["backbone.w"])
    predicted = hidden @ values["head.v"] + torch.tanh(batch["x"] @ values["adapter.a"])
    return (predicted - batch["y"]).square().mean()


def bench_of(name: str, **changes: Any) -> Bench:
    """T episodes of five support and four query sentences."""

    def batch(seed: int, sentences: int) -> Batch:
        return {"x": draw(T, sentences, 3, seed=seed), "y": draw(T, sentences, seed=seed + 1)}

    inner = InnerLoop(lr=LR, moves=LEARNERS[name].inner, outer=GROUPS).executed(way=Way.VMAP)
    return Bench(
        name=name,
        learner=LEARNERS[name],
        loss=loss,
        backbone={"backbone.w": draw(3, 2, seed=1)},
        start={"adapter.a": draw(T, 3, seed=2), "head.v": draw(T, 2, seed=3)},
        batch=Episodes(
            ("qaa",) * T, tuple(range(T)), T, tuple(batch(10 * step, 5) for step in range(1, STEPS + 1)), batch(90, 4)
        ),
        inner=replace(inner, **changes),
        differences=1e-6,
        equality=1e-10,
    )


def wrong(bench: Bench, change: Callable[[Outcome, InnerLoop], Outcome]) -> Bench:
    """The same with a learner whose outcome is changed."""

    def step(loss: Any, backbone: Any, start: Any, batch: Any, inner: InnerLoop) -> Outcome:
        return change(bench.learner.step(loss, backbone, start, batch, inner), inner)

    return replace(bench, learner=replace(bench.learner, step=step))


def scaled(outcome: Outcome, group: str, by: float) -> Outcome:
    names = in_groups(list(outcome.gradients), (group,))
    return replace(outcome, gradients={**outcome.gradients, **{name: by * outcome.gradients[name] for name in names}})


def unrolled(bench: Bench, second_order: bool) -> Params:
    """The meta-gradient of a learner that moves adapter and head, by autograd through a loop that is written out."""
    summed = dict.fromkeys((*bench.backbone, *bench.start), torch.zeros((), dtype=torch.float64))
    for index in range(T):
        backbone = {name: value.clone().requires_grad_() for name, value in bench.backbone.items()}
        start = {name: value[index].clone().requires_grad_() for name, value in bench.start.items()}
        fast = start
        for support in bench.batch.support:
            batch = {name: value[index] for name, value in support.items()}
            moves = torch.autograd.grad(loss(backbone, fast, batch), list(fast.values()), create_graph=True)
            steps = dict(zip(fast, moves, strict=True))
            fast = {name: v - LR * (steps[name] if second_order else steps[name].detach()) for name, v in fast.items()}
        query = {name: value[index] for name, value in bench.batch.query.items()}
        values = {**backbone, **start}
        found = torch.autograd.grad(loss(backbone, fast, query), list(values.values()))
        for name, gradient in zip(values, found, strict=True):
            summed[name] = summed[name] + gradient / T
    return summed


def test_verdicts() -> None:
    verdicts = [Check("x", value, tolerance).verdict for value in (None, 1e-9, 1e-3, math.nan) for tolerance in (1e-6,)]
    assert verdicts == ["not checked", "passed", "failed", "failed"]
    assert Check("x", 0.5).verdict == "information"


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_passes_all_checks(name: str) -> None:
    bench = bench_of(name)
    slopes = list(against_differences(bench))
    assert [check.what.rpartition(": ")[2] for check in slopes] == list(GROUPS)
    assert [check.verdict for check in slopes] == ["passed"] * 3, slopes
    assert all(check.remark.endswith(f"the best of {len(SIZES)}") for check in slopes)
    assert {batched_against_looped(bench, order, "").verdict for order in bench.orders} == {"passed"}
    if bench.learner.adapts:
        assert against_optimizer(bench).verdict == "passed"


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("peft_maml", {False: "first order", True: "second order"}),
        ("reptile", {False: "displacement"}),
        ("multitask", {False: "gradient"}),
    ],
)
def test_gradients_are_called_by_their_order(name: str, orders: dict[bool, str]) -> None:
    bench = bench_of(name)
    assert bench.orders == orders
    names = {check.what.partition(" = ")[0] for check in against_differences(bench)}
    assert names == {{"displacement": "one inner step"}.get(orders[max(orders)], orders[max(orders)])}
    assert batched_against_looped(bench, False, "").what == f"{orders[False]}: batched = looped"


@pytest.mark.parametrize("second_order", [False, True])
def test_gradients_are_those_of_a_loop_that_is_written_out(second_order: bool) -> None:
    bench = bench_of("peft_maml")
    expected = unrolled(bench, second_order)
    for name, gradient in bench.gradients(second_order=second_order).items():
        assert torch.allclose(gradient, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("group", GROUPS)
def test_a_planted_error_has_its_size_in_its_group_alone(group: str) -> None:
    bench = wrong(bench_of("peft_maml"), lambda outcome, inner: scaled(outcome, group, 1.001))
    by_group = {check.what.rpartition(": ")[2]: check for check in against_differences(bench)}
    assert {name for name, check in by_group.items() if check.verdict == "failed"} == {group}
    # The slope that is given is a thousandth too large.
    assert by_group[group].value == pytest.approx(1 - 1 / 1.001, rel=1e-3)
    found = against_optimizer(bench)
    assert (found.verdict, found.value) == ("failed", pytest.approx(1e-3, rel=1e-6))


def test_a_first_order_gradient_is_no_slope_of_second_order() -> None:
    right = bench_of("peft_maml")
    bench = replace(right, learner=replace(right.learner, step=lambda *parts: _first_order(right, *parts)))
    assert [check.verdict for check in against_differences(bench)] == ["failed"] * 3
    assert against_optimizer(bench).verdict == "passed"


def _first_order(right: Bench, *parts: Any) -> Outcome:
    *others, inner = parts
    return right.learner.step(*others, replace(inner, second_order=False))


def test_a_gradient_of_zero_fails_and_says_so() -> None:
    bench = wrong(bench_of("peft_maml"), lambda outcome, inner: scaled(outcome, "head", 0.0))
    *_, head = against_differences(bench)
    assert (head.verdict, head.remark) == ("failed", "this gradient is zero")
    assert math.isnan(head.value or 0)
    assert against_optimizer(bench).value == pytest.approx(1)


@pytest.mark.parametrize("name", sorted({*SECOND} & {*ADAPTING}))
def test_the_order_of_the_config_changes_no_check(name: str) -> None:
    bench = bench_of(name, second_order=True)
    assert against_optimizer(bench) == against_optimizer(bench_of(name))
    assert {check.verdict for check in against_differences(bench)} == {"passed"}


def test_a_learner_with_another_outer_loss_is_compared_with_that_alone() -> None:
    def seen_again(episodes: Episodes) -> Episodes:
        return replace(episodes, query=episodes.support[-1])

    right = LEARNERS["peft_maml"]

    def step(loss: Any, backbone: Params, start: Params, batch: Episodes, inner: InnerLoop) -> Outcome:
        return right.step(loss, backbone, start, seen_again(batch), inner)

    bench = bench_of("peft_maml")
    undeclared = replace(bench, learner=replace(right, step=step))
    found = against_optimizer(undeclared)
    assert (found.verdict, found.value) == ("not checked", None)
    assert "this learner's outer loss is " in found.remark
    assert found.remark.endswith(": another objective")
    assert {check.verdict for check in against_differences(undeclared)} == {"passed"}
    # A learner that says which episodes it sees is compared on those.
    declared = replace(bench, learner=replace(right, step=step, passes=seen_again))
    assert against_optimizer(declared).verdict == "passed"


@pytest.mark.parametrize("name", ["peft_maml", "multitask_peft"])
def test_what_is_detached_on_purpose_is_held_constant(name: str) -> None:
    def normed(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        size = (backbone["backbone.w"].norm() + fast["adapter.a"].norm()).detach()
        return loss(backbone, {**fast, "head.v": fast["head.v"] / size}, batch)

    bench = replace(bench_of(name), loss=normed)
    slopes = list(against_differences(bench))
    assert {check.verdict for check in slopes} == {"passed"}, slopes
    assert all("; parts that the forward pass detaches" in check.remark for check in slopes)
    planted = list(against_differences(wrong(bench, lambda outcome, inner: scaled(outcome, "adapter", 1.001))))
    assert [check.verdict for check in planted] == ["passed", "failed", "passed"]


@pytest.mark.parametrize("name", ADAPTING)
@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_clipping_is_that_of_torch(name: str, clip: float) -> None:
    assert against_optimizer(bench_of(name, clip=clip)).verdict == "passed"


def test_an_optimizer_that_torch_computes_otherwise_is_not_compared() -> None:
    found = against_optimizer(bench_of("peft_maml", optimizer="adam"))
    assert (found.verdict, found.what) == ("not checked", "first order = torch.optim.SGD on copies")
    assert found.remark.startswith("inner.optimizer adam: ")


def test_without_the_reference_backend_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn2learn, "installed", lambda: False)
    monkeypatch.setattr(learn2learn, "step_of", lambda name: pytest.fail("was asked"))
    found = against_learn2learn(bench_of("peft_maml"), True)
    assert (found.verdict, found.what) == ("not checked", "second order = learn2learn")
    assert found.remark.startswith("not installed")


@pytest.mark.parametrize("second_order", [False, True])
def test_the_reference_backend_gets_the_same_meta_step_without_rates(
    second_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def step_of(name: str) -> Callable[..., Outcome]:
        def step(loss: Any, backbone: Params, start: Params, batch: Episodes, inner: InnerLoop) -> Outcome:
            asked.append((name, set(start), inner.second_order, inner.outer))
            return LEARNERS[name].step(loss, backbone, start, batch, inner)

        return step

    monkeypatch.setattr(learn2learn, "installed", lambda: True)
    monkeypatch.setattr(learn2learn, "step_of", step_of)
    bench = bench_of("peft_maml")
    assert against_learn2learn(bench, second_order).value == 0
    assert asked == [("peft_maml", {"adapter.a", "head.v"}, second_order, GROUPS)]
    found = against_learn2learn(wrong(bench, lambda outcome, inner: scaled(outcome, "adapter", 1.001)), second_order)
    assert (found.verdict, found.value) == ("failed", pytest.approx(1e-3, rel=1e-6))


def test_a_meta_step_that_the_reference_backend_lacks_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def step_of(name: str) -> Any:
        raise MetaprimeError(f"learn2learn does not compute {name}")

    monkeypatch.setattr(learn2learn, "installed", lambda: True)
    monkeypatch.setattr(learn2learn, "step_of", step_of)
    found = against_learn2learn(bench_of("multitask"), False)
    assert found == Check("gradient = learn2learn", remark="learn2learn does not compute multitask")


def test_episodes_that_cannot_be_together_are_not_compared() -> None:
    found = batched_against_looped(bench_of("peft_maml"), True, "a layer asks for a value")
    assert found == Check("second order: batched = looped", remark="cannot be batched: a layer asks for a value")


def test_batched_and_looped_are_both_run_and_differ_by_what_is_planted() -> None:
    ways = []

    def off(outcome: Outcome, inner: InnerLoop) -> Outcome:
        ways.append(inner.execution.way)
        return scaled(outcome, "backbone", 1 if inner.execution.way is Way.LOOP else 1 + 1e-6)

    found = batched_against_looped(wrong(bench_of("peft_maml"), off), False, "")
    assert ways == [Way.VMAP, Way.LOOP]
    assert (found.verdict, found.value) == ("failed", pytest.approx(1e-6, rel=1e-3))


@pytest.mark.parametrize("name", SECOND)
def test_the_orders_are_compared_by_cosine_and_distance(name: str) -> None:
    bench = bench_of(name)
    checks = {check.what: check for check in between_orders(bench)}
    assert len(checks) == 2 * len(GROUPS)
    assert {check.verdict for check in checks.values()} == {"information"}
    first, second = (bench.gradients(second_order=order) for order in (False, True))
    for group in GROUPS:
        one, two = (torch.cat([g[n].flatten() for n in in_groups(list(g), (group,))]) for g in (first, second))
        cosine = checks[f"first against second order, cosine: {group}"].value
        assert cosine == pytest.approx(torch.cosine_similarity(one, two, dim=0).item())
        distance = checks[f"first against second order, distance: {group}"].value
        assert distance == pytest.approx(((one - two).norm() / two.norm()).item())


def test_moving_takes_what_the_direction_names_and_leaves_the_bench() -> None:
    bench = bench_of("peft_maml")
    before = {name: value.clone() for name, value in {**bench.backbone, **bench.start}.items()}
    direction = {"backbone.w": draw(3, 2, seed=7), "adapter.a": draw(3, seed=8)}
    moved = bench.moved(direction, 0.5)
    assert torch.equal(moved.backbone["backbone.w"], before["backbone.w"] + 0.5 * direction["backbone.w"])
    for index in range(T):
        assert torch.equal(moved.start["adapter.a"][index], before["adapter.a"][index] + 0.5 * direction["adapter.a"])
    assert torch.equal(moved.start["head.v"], before["head.v"])
    assert all(torch.equal(value, before[name]) for name, value in {**bench.backbone, **bench.start}.items())
    assert (moved.batch, moved.inner) == (bench.batch, bench.inner)


def test_a_direction_has_norm_1_a_slope_and_something_beside_the_gradient() -> None:
    gradients = bench_of("peft_maml").gradients(second_order=True)
    direction = _direction(gradients)
    flat, steep = (torch.cat([values[name].flatten() for name in gradients]) for values in (direction, gradients))
    assert flat.norm().item() == pytest.approx(1)
    assert 0.3 < torch.cosine_similarity(flat, steep, dim=0).item() < 0.99
    assert all(torch.equal(value, direction[name]) for name, value in _direction(gradients).items())
    flat = torch.cat([v.flatten() for v in _direction({n: torch.zeros_like(v) for n, v in gradients.items()}).values()])
    assert flat.norm().item() == pytest.approx(1)
