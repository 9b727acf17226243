"""What is noticed while a run trains, and what it says."""

from __future__ import annotations

import logging

import pytest
import torch

from metaprime.config.sections import OuterConfig
from metaprime.meta import Outcome
from metaprime.priming.guards import (
    HALVINGS,
    LEAST_LOSSES,
    STILL_STEPS,
    WINDOW,
    Diverged,
    Guards,
    check_finite,
    check_weights,
)
from metaprime.types import MetaprimeError, Params, State

NAN, INF = float("nan"), float("inf")


def outcome(query: list[float], support: list[list[float]] | None = None, gradients: Params | None = None) -> Outcome:
    return Outcome(gradients or {}, {}, {}, torch.tensor(query), torch.tensor(support or [[1.0, 1.0]] * len(query)))


def test_a_loss_that_is_not_finite_names_step_and_languages() -> None:
    languages = ["qaa", "qab", "qac", "qab"]
    fine = [[1.0, 1.0]] * 4
    check_finite(outcome([1.0, 2.0, 3.0, 4.0], fine), 0, languages)
    nan, inf = float("nan"), float("inf")
    with pytest.raises(MetaprimeError, match=r"step 8: the loss of language qab is not finite; .*checkpoint is kept"):
        check_finite(outcome([1.0, nan, 3.0, inf], fine), 7, languages)
    with pytest.raises(MetaprimeError, match="language qaa, qac is"):
        check_finite(outcome([1.0, 2.0, 3.0, 4.0], [[nan, 1.0], [1.0, 1.0], [1.0, inf], [1.0, 1.0]]), 7, languages)


def test_what_is_not_finite_is_named_with_its_group() -> None:
    fine = {"backbone.a": torch.ones(2), "adapter.0.up": torch.ones(2)}
    broken = fine | {"adapter.0.up": torch.tensor([1.0, NAN]), "adapter.1.up": torch.tensor([INF])}
    for weights, gradients, words in (
        (broken, broken, r"the weights of adapter \(first adapter\.0\.up\) were not finite before this step"),
        (fine, broken, r"the weights are finite, the outer gradients of adapter \(first adapter\.0\.up\) are not"),
        (fine, fine, "inner loop's values are not"),
    ):
        with pytest.raises(Diverged, match=words):
            check_finite(outcome([NAN], None, gradients), 0, ["qaa"], weights)
    check_weights(State({"backbone.a": torch.ones(2)}, {}, {}), 3)
    with pytest.raises(Diverged, match=r"step 3: the weights of head \(first head\.bias\) are not finite"):
        check_weights(State({"backbone.a": torch.ones(2)}, {}, {"head.bias": torch.tensor([INF])}), 3)


def fed(losses: list[float], config: OuterConfig, guards: Guards) -> None:
    for step, loss in enumerate(losses):
        guards.check(config, outcome([loss, loss]), step)
        guards.note(outcome([loss, loss]), {}, step)


def test_divergence_is_told_once_for_each_excursion(caplog: pytest.LogCaptureFixture) -> None:
    steady = [1.0] * LEAST_LOSSES
    with caplog.at_level(logging.WARNING):
        fed([*steady, 9.9, 10.1, 30.0, 1.0, 11.0], OuterConfig(divergence=10), Guards())
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"step {LEAST_LOSSES + 2}",
        f"step {LEAST_LOSSES + 5}",
    ]
    assert "query loss 10.1 is 10 times the running median 1" in caplog.text
    caplog.clear()
    # Too early to say.
    fed([1.0] * (LEAST_LOSSES - 1) + [50.0], OuterConfig(divergence=10), Guards())
    fed([*steady, 50.0], OuterConfig(divergence=None), Guards())
    fed([*steady, 50.0], OuterConfig(divergence=10), Guards(shown=False))
    assert caplog.text == ""


def test_with_rollback_divergence_ends_the_try() -> None:
    with pytest.raises(Diverged, match=r"step 11: the query loss 50 is 50 times .*lower outer\.lr"):
        fed([1.0] * 10 + [50.0], OuterConfig(divergence=10, rollback=True), Guards())
    assert issubclass(Diverged, MetaprimeError)
    assert HALVINGS == 3


def test_what_steers_the_run_survives_a_checkpoint() -> None:
    guards, again = Guards(), Guards()
    fed([0.1 * step for step in range(1, WINDOW + 9)], OuterConfig(divergence=None), guards)
    guards.slow_down(2)
    assert len(guards.recent) == WINDOW
    again.restore(guards.state())
    assert (again.recent, again.halvings) == (guards.recent, 2)
    again.clear()
    assert again.state() == {"recent": [], "halvings": 0}


def test_an_adapter_that_nothing_reaches_is_named_after_some_steps(caplog: pytest.LogCaptureFixture) -> None:
    guards = Guards()
    dead = {f"adapter.0.{part}": torch.zeros(2, 2) for part in ("down", "up")}
    # As behind a zero up-projection.
    half = {"adapter.1.down": torch.zeros(2, 2), "adapter.1.up": torch.tensor([0.0, 1e-30])}
    for step in range(STILL_STEPS + 5):
        assert ("adapter.0" in caplog.text) == (step >= STILL_STEPS)
        guards.note(outcome([1.0], None, {"backbone.x": torch.zeros(1), **dead, **half}), {}, step)
    (record,) = caplog.records
    assert "adapter.0 has had no gradient for 10 steps" in record.getMessage()
    caplog.clear()
    alive = {**dead, "adapter.0.up": torch.ones(2, 2)}
    # A gradient now and then is one.
    for step in range(3 * STILL_STEPS):
        guards.note(outcome([1.0], None, alive if step % 9 == 0 else dead), {}, step)
    assert caplog.text == ""


def test_a_carried_adapter_that_the_inner_loop_does_not_move_is_named(caplog: pytest.LogCaptureFixture) -> None:
    guards = Guards()
    now = {"adapter.0.up": torch.tensor([0.3]), "adapter.1.up": torch.tensor([0.7])}
    for step in range(STILL_STEPS):
        carried = {"adapter.0.up": torch.tensor([0.3]), "adapter.1.up": torch.tensor([0.8]), "head.bias": torch.ones(1)}
        guards.note(Outcome({}, carried, carried, torch.ones(1), torch.ones(1, 2)), now, step)
    (record,) = caplog.records
    assert "adapter.0 has had no gradient" in record.getMessage()
