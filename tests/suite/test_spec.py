"""SUITE.yaml: what it comes to, and every way to get it wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metaprime.config.loading import load_config, override
from metaprime.suite.cells import priming_cell, priming_config, priming_key, target_key, transfer_cell
from metaprime.suite.spec import Plan, read_plan
from metaprime.types import MetaprimeError

GOOD: dict[str, Any] = {
    "name": "tried",
    "base": "base.yaml",
    "seeds": "0-1",
    "arms": [
        {"name": "none", "title": "no priming", "priming": None},
        {"name": "meta", "title": "meta-priming"},
        {"name": "multitask", "set": ["learner.name=multitask"], "rate": 0.5},
        {"name": "kept", "priming": "multitask", "transfer": ["transfer.start_head=primed"]},
    ],
    "contrasts": [["meta", "none"]],
}
BASE: dict[str, Any] = {"outer": {"lr": 0.002, "steps": 7}, "run": {"output": "somewhere"}}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(seeds="0-4")`: a suite file, changed so; None takes a key away."""

    def make(**changes: Any) -> Path:
        values = {key: value for key, value in (GOOD | changes).items() if value is not None}
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return tmp_path / "suite.yaml"

    return make


def test_arms_are_overrides_of_the_base(write: Write) -> None:
    plan = read_plan(write())
    assert plan.seeds == (0, 1)
    assert plan.setting is None
    assert plan.arms["none"].priming is None
    multitask, kept = plan.arms["multitask"], plan.arms["kept"]
    assert multitask.priming
    assert multitask.priming.learner.name == "multitask"
    assert multitask.priming.outer.lr == 0.001
    assert multitask.priming.outer.steps == 7
    assert multitask.set == ("outer.lr=0.001", "learner.name=multitask")
    assert kept.priming == multitask.priming
    assert kept.target.transfer.start_head == "primed"
    assert plan.arms["multitask"].target.transfer.start_head == "fresh"
    assert plan.arms["multitask"].title == "multitask"


def test_an_arm_can_have_a_share_of_the_steps_and_a_match(write: Write) -> None:
    arms = [*GOOD["arms"][:2], {"name": "brief", "set": ["learner.name=multitask"], "rate": 0.5, "steps": 0.4}]
    plan = read_plan(write(arms=arms, matched={"meta": "brief"}))
    assert plan.matched == {"meta": "brief"}
    brief = plan.arms["brief"]
    assert brief.priming
    assert (brief.priming.outer.lr, brief.priming.outer.steps) == (0.001, 3)  # of seven
    assert brief.set == ("outer.lr=0.001", "outer.steps=3", "learner.name=multitask")
    shorter = read_plan(write(arms=arms), ["outer.steps=1"]).arms["brief"].priming
    assert shorter
    assert shorter.outer.steps == 1
    assert read_plan(write()).matched == {}


def test_axes_are_multiplied_and_go_to_the_side_they_concern(write: Write) -> None:
    axes = {"inner.steps": [1, 2, 3], "inner.order": ["first", "second"], "transfer.start_head": ["fresh", "primed"]}
    plan = read_plan(write(arms=None, contrasts=None, axes=axes))
    assert len(plan.arms) == 12
    arm = plan.arms["inner.steps=3, inner.order=second, transfer.start_head=primed"]
    assert arm.priming
    assert (arm.priming.inner.steps, arm.priming.inner.order) == (3, "second")
    assert arm.target.transfer.start_head == "primed"
    assert arm.set == ("inner.steps=3", "inner.order=second")
    assert len({priming_key(arm.priming) for arm in plan.arms.values()}) == 6


def test_settings_and_overrides(write: Write) -> None:
    settings = {"small": ["outer.steps=3"], "large": {"set": ["outer.steps=9"], "arms": [{"name": "alone"}]}}
    path = write(settings=settings, contrasts=None)
    assert read_plan(path).setting == "small"
    assert read_plan(path).base.outer.steps == 3
    assert read_plan(path, ["outer.steps=5"]).base.outer.steps == 5
    assert list(read_plan(path, setting="large").arms) == ["alone"]
    assert read_plan(path, ["seeds=3"]).seeds == (3,)
    assert list(read_plan(path, ["arms=[{name: mine}]"], setting="large").arms) == ["mine"]
    with pytest.raises(MetaprimeError, match="'smal' is unknown; did you mean small"):
        read_plan(path, setting="smal")


ARMS = GOOD["arms"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": "0-4"}, "unknown key sedes; did you mean seeds"),
        ({"arms": [{"name": "a", "titel": "b"}], "contrasts": None}, r"unknown key arms.0.titel; did you mean title"),
        ({"settings": {"small": {"bas": "x"}}}, r"unknown key settings.small.bas; did you mean base"),
        ({"name": None}, "name: field required"),
        ({"name": "a/b"}, "name: "),
        ({"name": "priming"}, "name 'priming' is that of a folder"),
        ({"base": None}, "base is missing"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"seeds": "zero"}, "FIRST-LAST"),
        ({"seeds": [0, 1, 0]}, "the seed 0 stands twice"),
        ({"seeds": []}, "seeds"),
        ({"arms": None, "contrasts": None}, "there is no arm"),
        ({"arms": [*ARMS, {"name": "meta", "set": ["inner.steps=2"]}]}, "the arm 'meta' stands twice"),
        ({"arms": [*ARMS, {"name": "again", "set": ["inner.steps=5"]}]}, "the arms 'meta' and 'again' are equal"),
        ({"contrasts": [["meta", "nine"]]}, "'nine' is unknown; did you mean none"),
        ({"contrasts": [["meta", "none"]] * 2}, "contrast .* stands twice"),
        ({"matched": {"meta": "mulitask"}}, "matched: arm 'mulitask' is unknown; did you mean multitask"),
        ({"matched": {"mta": "multitask"}}, "matched: arm 'mta' is unknown; did you mean meta"),
        ({"matched": ["meta"]}, "matched: "),
        ({"axes": {"inner.stepps": [1]}}, r"arm 'inner.stepps=1': unknown key inner.stepps; did you mean steps"),
        ({"axes": {"inner.steps": []}}, "axes.inner.steps"),
        ({"axes": {"inner.steps": ["many"]}}, "inner.steps"),
        ({"axes": {"transfer.shots": [1, 2]}}, "transfer.shots is the same for all arms"),
        ({"axes": {"run.seed": [1, 2]}}, "run.seed is the same for all arms"),
        (
            {"arms": [{"name": "a", "transfer": ["inner.steps=2"]}], "contrasts": None},
            "no transfer depends on inner.steps",
        ),
        ({"arms": [{"name": "a", "priming": None, "rate": 0.5}], "contrasts": None}, "leave out set, rate"),
        ({"arms": [{"name": "a", "priming": None, "steps": 2}], "contrasts": None}, "leave out set, rate and steps"),
        ({"arms": [*ARMS, {"name": "b", "priming": "mta"}]}, "'mta' is unknown; did you mean meta"),
        ({"arms": [*ARMS, {"name": "b", "priming": "kept"}]}, "no priming of its own"),
        ({"tune": False}, "tune is false, but transfer.lr lists 3 rates"),
    ],
)
def test_bad_suites(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        read_plan(write(**changes))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "name: a\nname: b", ""])
def test_what_is_no_suite(tmp_path: Path, text: str) -> None:
    file = tmp_path / "suite.yaml"
    with pytest.raises(MetaprimeError, match="does not exist"):
        read_plan(file)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"suite .*suite\.yaml"):
        read_plan(file)


def test_a_bad_override_is_refused(write: Write) -> None:
    for text, message in (("seeds=[0", "not YAML"), ("outre.steps=1", "did you mean outer"), ("seeds", "seeds")):
        with pytest.raises(MetaprimeError, match=message):
            read_plan(write(), [text])


@pytest.mark.parametrize(
    ("change", "primings", "transfers"),
    [
        ("run.output=elsewhere", True, True),
        ("run.threads=3", True, True),
        ("run.seed=3", True, True),
        ("data.target_languages=[qai]", True, True),
        ("transfer.methods=[lora]", True, True),
        ("transfer.shots=[50, 100]", True, True),
        ("transfer.lr=[0.01, 0.5]", True, False),
        ("transfer.shots=[10]", False, True),  # held-out languages are tuned with the first K
        ("transfer.steps=3", False, False),
        ("data.labels=[PER]", False, False),
        ("data.languages=[qaa]", False, True),
        ("inner.lr=3.0", False, True),
        ("encoder.attention=eager", False, False),
    ],
)
def test_a_cell_is_addressed_by_what_it_depends_on(change: str, primings: bool, transfers: bool) -> None:
    base = load_config()
    changed = override(base, change)
    assert (priming_key(priming_config(changed)) == priming_key(priming_config(base))) == primings
    assert (target_key(changed) == target_key(base)) == transfers


def test_without_validation_priming_depends_on_no_transfer_setting() -> None:
    base = load_config(None, ["outer.validate_every=0"])
    changed = override(base, "transfer.steps=3", "transfer.shots=[7]", "data.validation_languages=[qad]")
    assert priming_config(changed) == priming_config(base)


def test_seed_method_rate_and_source_have_folders_of_their_own(write: Write) -> None:
    plan: Plan = read_plan(write())
    target, priming = plan.base, plan.arms["meta"].priming
    assert priming
    sources = [None, priming_cell(priming, 0, "x"), priming_cell(plan.arms["multitask"].priming or priming, 0, "x")]
    folders = {
        transfer_cell(target, source, method, rate, seed, "x").folder
        for source in sources
        for method in ("head", "lora")
        for rate in (0.1, 0.2)
        for seed in (0, 1)
    }
    assert len(folders) == 24
