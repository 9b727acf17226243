"""`metaprime doctor --gradients`: every learner passes, and each kind of wrong gradient is found by the check that is for it."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprime.config.sections import Config
from metaprime.interop import learn2learn
from metaprime.meta import LEARNERS, Learner, Outcome, Way
from metaprime.meta.learner import in_groups
from metaprime.preflight import gradients
from metaprime.preflight.gradient_checks import Check
from metaprime.preflight.gradients import GradientReport, examine_gradients

MakeConfig = Callable[..., Config]
THEIRS = ("peft_maml", "inner_peft", "maml", "anil")


def check(report: GradientReport, what: str) -> Check:
    (found,) = [one for one in report.checks if one.what == what]
    return found


def failed(report: GradientReport) -> set[str]:
    return {one.what for one in report.checks if one.verdict == "failed"}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Outcome]], None]:
    """`wrong(step)`: the paper's learner takes another step, which is given the right one's first."""

    def put(step: Callable[..., Outcome]) -> None:
        right = LEARNERS["peft_maml"]
        changed = replace(right, step=lambda *parts: step(right.step, *parts))
        monkeypatch.setitem(LEARNERS, "peft_maml", changed)

    return put


def scaled(outcome: Outcome, group: str, by: float) -> Outcome:
    names = in_groups(list(outcome.gradients), (group,))
    return replace(outcome, gradients={**outcome.gradients, **{name: by * outcome.gradients[name] for name in names}})


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_passes(tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path, name: str) -> None:
    learner: Learner = LEARNERS[name]
    encoder = f"encoder.name={toy_encoder('bert', speaks=not learner.reads_labels)}"
    report = examine_gradients(tiny(tmp_path / "run", encoder, f"learner.name={name}"))
    assert report.passed, report.rows()
    groups = ("backbone", "adapter", "head") if learner.injects else ("backbone", "head")
    what = ("second order" if learner.second_order else "one inner step") if learner.adapts else "gradient"
    for group in groups:
        assert check(report, f"{what} = central differences: {group}").value < 1e-7
    expected = {f"{what} = central differences: {group}" for group in groups}
    if learner.adapts:
        expected.add(f"{'first order' if learner.second_order else 'displacement'} = torch.optim.SGD on copies")
    orders = ("first order", "second order") if name in THEIRS else ("displacement" if learner.adapts else "gradient",)
    loops = {"second order: batched = looped"} if name == "maml" else set()
    expected |= {f"{order}: batched = looped" for order in orders} - loops
    if name in THEIRS and learn2learn.installed():
        expected |= {f"{order} = learn2learn" for order in orders}
    assert {one.what for one in report.checks if one.verdict == "passed"} == expected
    assert not (tmp_path / "run").exists()  # nothing is written


def test_what_cannot_be_checked_says_why(tiny: MakeConfig, tmp_path: Path) -> None:
    report = examine_gradients(tiny(tmp_path, "learner.name=maml"))
    found = check(report, "second order: batched = looped")
    assert (found.verdict, found.value) == ("not checked", None)
    assert found.remark.startswith("cannot be batched: under vmap torch's second derivative of a layer norm")
    report = examine_gradients(tiny(tmp_path, "inner.optimizer=adam", "inner.lr=0.01"))
    assert report.passed
    assert "epsilon" in check(report, "first order = torch.optim.SGD on copies").remark
    if learn2learn.installed():
        assert "computes plain SGD" in check(report, "second order = learn2learn").remark


def test_without_learn2learn_the_rest_is_checked(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: find(name, *rest) if name != "learn2learn" else None
    )
    report = examine_gradients(tiny(tmp_path))
    assert report.passed
    for order in ("first", "second"):
        found = check(report, f"{order} order = learn2learn")
        assert (found.verdict, found.remark) == ("not checked", "not installed (`make learn2learn` does it)")
    assert sum(one.verdict == "passed" for one in report.checks) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("inner.clip=0.05", "inner.micro_batch=1"),
        ("inner.learn_rates=true",),
        ("inner.support=same", "peft.method=pfeiffer", "encoder.attention=eager"),
        ("learner.name=reptile", "inner.clip=0.05"),
        ("outer.adapter=carry_mean", "outer.head=reset", "inner.batched=false"),
        ("learner.backend=learn2learn",),
    ],
)
def test_inner_loops_of_all_kinds_pass(tiny: MakeConfig, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    report = examine_gradients(tiny(tmp_path, *overrides))
    assert report.passed, report.rows()
    assert any("= torch.optim.SGD" in one.what and one.verdict == "passed" for one in report.checks)


def test_second_order_and_dora_pass(tiny: MakeConfig, tmp_path: Path) -> None:
    """DoRA takes the norms of its weights as constants: the slopes are those of the loss with these norms."""
    pytest.importorskip("peft")
    dora = "peft={method: hf, config: {peft_type: LORA, use_dora: true, r: 2}}"
    report = examine_gradients(tiny(tmp_path, dora, "inner.order=second", "inner.steps=1"))
    assert report.passed, report.rows()
    found = check(report, "second order = central differences: adapter")
    assert found.verdict == "passed"
    assert "as DoRA its norms" in found.remark
    assert check(report, "first order = torch.optim.SGD on copies").verdict == "passed"


def test_few_sentences_and_steps_are_enough(tiny: MakeConfig, tmp_path: Path) -> None:
    report = examine_gradients(tiny(tmp_path, "inner.steps=7", "episodes.support=9", "episodes.query=5"))
    assert "2 episodes of " in report.setting
    assert "3 inner steps, 2 query windows" in report.setting
    assert "1 inner steps, 1 query" in examine_gradients(tiny(tmp_path, "inner.steps=1", "episodes.query=1")).setting


@pytest.mark.parametrize(
    "architecture",
    ["modernbert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("eurobert", "deberta-v2", "xlm-roberta"))],
)
def test_an_encoder_that_rounds_inside_gets_wider_tolerances(
    tiny: MakeConfig, toy_encoder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    report = examine_gradients(tiny(tmp_path, f"encoder.name={toy_encoder(architecture)}"))
    assert report.passed, report.rows()
    rounds = architecture in ("modernbert", "eurobert")
    assert ("rounds to float32 inside" in report.precision) == rounds
    found = check(report, "second order = central differences: backbone")
    assert found.tolerance == (1e-3 if rounds else 1e-6)
    assert (found.value > 1e-7) == rounds  # the wider one is needed


Wrong = tuple[Callable[..., Outcome], set[str]]


def _first_for_second(right: Any, loss: Any, theta: Any, start: Any, batch: Any, settings: Any) -> Outcome:
    return right(loss, theta, start, batch, replace(settings, second_order=False))


def _adapter_a_thousandth_too_long(right: Any, *parts: Any) -> Outcome:
    return scaled(right(*parts), "adapter", 1.001)


def _batched_backbone_off(right: Any, *parts: Any) -> Outcome:
    return scaled(right(*parts), "backbone", 1 + 1e-8 * (parts[-1].execution.way is not Way.LOOP))


def _first_order_off(right: Any, *parts: Any) -> Outcome:
    return scaled(right(*parts), "head", 1 if parts[-1].second_order else 1 + 1e-8)


DIFFERENCES = "second order = central differences: "
BOTH = {"first order = torch.optim.SGD on copies", "first order = learn2learn"}


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (
            _first_for_second,
            {*(DIFFERENCES + group for group in ("backbone", "adapter", "head")), "second order = learn2learn"},
        ),
        (_adapter_a_thousandth_too_long, {DIFFERENCES + "adapter", *BOTH, "second order = learn2learn"}),
        (
            _batched_backbone_off,
            {*BOTH, "second order = learn2learn", "first order: batched = looped", "second order: batched = looped"},
        ),
        (_first_order_off, BOTH),
    ],
)
def test_a_wrong_gradient_is_found_by_what_is_for_it(
    tiny: MakeConfig, tmp_path: Path, wrong: Any, step: Callable[..., Outcome], found: set[str]
) -> None:
    wrong(step)
    report = examine_gradients(tiny(tmp_path, "inner.steps=1"))
    theirs = {what for what in found if "learn2learn" in what} if not learn2learn.installed() else set()
    assert failed(report) == found - theirs
    assert not report.passed


def test_a_gradient_that_is_zero_or_not_finite_fails(tiny: MakeConfig, tmp_path: Path, wrong: Any) -> None:
    wrong(lambda right, *parts: scaled(right(*parts), "adapter", 0.0))
    report = examine_gradients(tiny(tmp_path, "inner.steps=1"))
    found = check(report, DIFFERENCES + "adapter")
    assert (found.verdict, found.remark) == ("failed", "this gradient is zero")
    wrong(lambda right, *parts: scaled(right(*parts), "head", math.nan))
    report = examine_gradients(tiny(tmp_path, "inner.steps=1"))
    assert {DIFFERENCES + "head", "second order: batched = looped"} <= failed(report)
    text = json.dumps(report.as_json(), allow_nan=False)
    assert [line["value"] for line in json.loads(text)["checks"] if line["what"] == DIFFERENCES + "head"] == [None]


def test_the_orders_are_compared(tiny: MakeConfig, tmp_path: Path) -> None:
    near, far = (examine_gradients(tiny(tmp_path, "inner.steps=1", f"inner.lr={lr}")) for lr in (1e-6, 0.3))
    for group in ("backbone", "adapter", "head"):
        cosine, distance = (f"first against second order, {what}: {group}" for what in ("cosine", "distance"))
        assert check(near, cosine).value == pytest.approx(1, abs=1e-6)
        assert check(near, distance).value < 1e-3 < check(far, distance).value
        assert check(far, cosine).value < 1 - 1e-4
        assert check(far, cosine).verdict == check(far, distance).verdict == "information"


def test_an_encoder_that_cannot_be_batched_is_looped(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    def only_looped(right: Any, *parts: Any) -> Outcome:
        assert parts[-1].execution.way is Way.LOOP
        return right(*parts)

    wrong(only_looped)
    monkeypatch.setattr(gradients, "why_not_together", lambda *parts: "this layer asks a tensor for its value")
    report = examine_gradients(tiny(tmp_path, "inner.steps=1"))
    assert report.passed
    for order in ("first", "second"):
        found = check(report, f"{order} order: batched = looped")
        assert (found.verdict, found.remark) == (
            "not checked",
            "cannot be batched: this layer asks a tensor for its value",
        )


def test_narrowing_is_seen_and_constants_are_not() -> None:
    for function, seen in (
        (lambda x: x + torch.ones(2), False),
        (lambda x: x * torch.tensor(2.0).sqrt(), False),
        (lambda x: x.float().double(), True),
        (lambda x: x.to(torch.bfloat16), True),
        (lambda x: x > 0, False),
    ):
        watch = gradients._Narrowing()
        with watch:
            function(torch.ones(2, dtype=torch.float64))
        assert watch.seen == seen
