"""SUITE.yaml: what it comes to, and every way to get it wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metaprime.config.loading import override
from metaprime.suite.cells import Target
from metaprime.suite.spec import SuitePlan, read_plan
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
    assert plan.arms["none"].primer is None
    multitask, kept = plan.arms["multitask"], plan.arms["kept"]
    assert multitask.primer
    assert multitask.primer.config.learner.name == "multitask"
    assert multitask.primer.config.outer.lr == 0.001
    assert multitask.primer.config.outer.steps == 7
    assert multitask.set == ("outer.lr=0.001", "learner.name=multitask")
    assert kept.primer
    assert kept.primer.config == multitask.primer.config
    assert kept.target.config.transfer.start_head == "primed"
    assert plan.arms["multitask"].target.config.transfer.start_head == "fresh"
    assert plan.arms["multitask"].title == "multitask"


def test_an_arm_can_have_a_share_of_the_steps_and_a_match(write: Write) -> None:
    arms = [*GOOD["arms"][:2], {"name": "brief", "set": ["learner.name=multitask"], "rate": 0.5, "steps": 0.4}]
    plan = read_plan(write(arms=arms, matched={"meta": "brief"}))
    assert plan.matched == {"meta": "brief"}
    brief = plan.arms["brief"]
    assert brief.primer
    # Three of seven.
    assert (brief.primer.config.outer.lr, brief.primer.config.outer.steps) == (0.001, 3)
    assert brief.set == ("outer.lr=0.001", "outer.steps=3", "learner.name=multitask")
    shorter = read_plan(write(arms=arms), ["outer.steps=1"]).arms["brief"].primer
    assert shorter
    assert shorter.config.outer.steps == 1
    assert read_plan(write()).matched == {}


def test_axes_are_multiplied_and_go_to_the_side_they_concern(write: Write) -> None:
    axes = {"inner.steps": [1, 2, 3], "inner.order": ["first", "second"], "transfer.start_head": ["fresh", "primed"]}
    plan = read_plan(write(arms=None, contrasts=None, axes=axes))
    assert len(plan.arms) == 12
    arm = plan.arms["inner.steps=3, inner.order=second, transfer.start_head=primed"]
    assert arm.primer
    assert (arm.primer.config.inner.steps, arm.primer.config.inner.order) == (3, "second")
    assert arm.target.config.transfer.start_head == "primed"
    assert arm.set == ("inner.steps=3", "inner.order=second")
    assert len({arm.primer and arm.primer.key for arm in plan.arms.values()}) == 6


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
        ({"name": "priming"}, "name 'priming' is taken by another folder in run.output"),
        ({"base": None}, "base is missing"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"seeds": "zero"}, "FIRST-LAST"),
        ({"seeds": [0, 1, 0]}, "duplicate seed 0"),
        ({"seeds": []}, "seeds"),
        ({"arms": None, "contrasts": None}, "there is no arm"),
        ({"arms": [*ARMS, {"name": "meta", "set": ["inner.steps=2"]}]}, "duplicate arm 'meta'"),
        ({"arms": [*ARMS, {"name": "again", "set": ["inner.steps=5"]}]}, "the arms 'meta' and 'again' are equal"),
        ({"contrasts": [["meta", "nine"]]}, "'nine' is unknown; did you mean none"),
        ({"contrasts": [["meta", "none"]] * 2}, r"duplicate contrast \('meta', 'none'\)"),
        ({"matched": {"meta": "mulitask"}}, "matched: arm 'mulitask' is unknown; did you mean multitask"),
        ({"matched": {"mta": "multitask"}}, "matched: arm 'mta' is unknown; did you mean meta"),
        ({"matched": ["meta"]}, "matched: "),
        ({"axes": {"inner.stepps": [1]}}, r"arm 'inner.stepps=1': unknown key inner.stepps; did you mean steps"),
        ({"axes": {"inner.steps": []}}, "axes.inner.steps"),
        ({"axes": {"inner.steps": ["many"]}}, "inner.steps"),
        ({"axes": {"transfer.shots": [1, 2]}}, "transfer.shots is the same for all arms"),
        ({"axes": {"run.seed": [1, 2]}}, "run.seed is the same for all arms"),
        # A loss beside an accuracy: one of them is better where it is lower.
        (
            {"arms": [{"name": "a", "transfer": ["task={name: regression, metric: mse}"]}], "contrasts": None},
            "arm 'a': task is the same for all arms",
        ),
        ({"axes": {"task.metric": ["mse", "pearson"]}}, "task.metric is the same for all arms"),
        (
            {"arms": [{"name": "a", "transfer": ["task.name=tagging"]}], "contrasts": None},
            "arm 'a': task.name is the same for all arms",
        ),
        (
            {"arms": [{"name": "a", "set": ["transfer.methods=[lora]"]}], "contrasts": None},
            "arm 'a': no priming depends on transfer.methods: move it from `set` to `transfer`",
        ),
        (
            {"arms": [{"name": "a", "transfer": ["transfer.methods=[peft]"]}], "contrasts": None},
            r"arm 'a': transfer\.methods\.0: 'peft' no longer stands for the method of the section peft: name it",
        ),
        (
            {"arms": [{"name": "a", "transfer": ["transfer.methods=[{method: lora, rnk: 4}]"]}], "contrasts": None},
            r"arm 'a': unknown key transfer\.methods\.0\.rnk; did you mean rank",
        ),
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


def test_seed_method_rate_and_source_have_folders_of_their_own(write: Write) -> None:
    plan: SuitePlan = read_plan(write())
    meta, multitask = plan.arms["meta"].primer, plan.arms["multitask"].primer
    assert meta
    assert multitask
    target = Target(override(plan.base, "transfer.methods=[head, lora]"))
    sources = [None, meta.cell(0, "x"), multitask.cell(0, "x")]
    folders = {
        target.transfers(source, column, rate, seed, "x").folder
        for source in sources
        for column in (0, 1)
        for rate in (0.1, 0.2)
        for seed in (0, 1)
    }
    assert len(folders) == 24


def with_methods(**methods: str) -> dict[str, Any]:
    """Changes of the suite: arms that prime nothing, each with its transfer.methods."""
    arms = [{"name": name, "priming": None, "transfer": [f"transfer.methods={text}"]} for name, text in methods.items()]
    return {"arms": arms, "contrasts": None}


def test_arms_may_have_methods_of_their_own_with_their_settings(write: Write) -> None:
    plan = read_plan(
        write(**with_methods(four="[{method: lora, rank: 4}, head]", two="[{method: lora, rank: 2}, head]"))
    )
    four, two = plan.arms["four"], plan.arms["two"]
    assert (four.methods, two.methods) == (("lora-rank4", "head"), ("lora-rank2", "head"))
    asked = four.target.config.methods()
    assert list(asked) == ["lora-rank4", "head"]
    assert asked["lora-rank4"].model_dump(mode="json", include={"method", "rank"}) == {"method": "lora", "rank": 4}
    assert plan.base.transfer.methods == ("pfeiffer", "head")


@pytest.mark.parametrize(
    ("methods", "columns"),
    [
        ({"one": "[{method: lora, rank: 4}, head]", "other": "[{method: lora, rank: 2}, head]"}, ("own", "head")),
        ({"one": "[pfeiffer, lora]", "other": "[pfeiffer, ia3]"}, ("pfeiffer", "own")),
        ({"one": "[lora, head, ia3]", "other": "[ia3, head, lora]"}, ("own", "head", "own 2")),
        ({"one": "[{method: lora, rank: 4}]"}, ("lora-rank4",)),
    ],
)
def test_a_column_is_headed_own_where_arms_differ(
    write: Write, methods: dict[str, str], columns: tuple[str, ...]
) -> None:
    assert read_plan(write(**with_methods(**methods))).columns == columns


def test_a_column_is_headed_by_the_label_where_all_arms_have_the_same_method(write: Write) -> None:
    plan = read_plan(write(), ["transfer.methods=[{method: lora, rank: 4}, head]"])
    assert plan.columns == ("lora-rank4", "head")
    assert {arm.methods for arm in plan.arms.values()} == {plan.columns}


def test_methods_are_an_axis(write: Write) -> None:
    methods = [["lora"], [{"method": "lora", "rank": 4}], ["head"]]
    plan = read_plan(write(arms=None, contrasts=None, axes={"transfer.methods": methods}))
    assert [arm.methods for arm in plan.arms.values()] == [("lora",), ("lora-rank4",), ("head",)]
    assert plan.columns == ("own",)
    # All of them start from one priming run.
    assert len({arm.primer and arm.primer.key for arm in plan.arms.values()}) == 1


def test_values_of_an_axis_are_read_by_their_keys_as_they_are_written(write: Write) -> None:
    path = write(arms=None, contrasts=None)
    languages = "axes: {data.languages: [[no, 010, null], [1e-4]]}\n"
    path.write_text(path.read_text("utf-8") + languages, encoding="utf-8")
    primed = [arm.primer.config for arm in read_plan(path).arms.values() if arm.primer]
    assert [config.data.languages for config in primed] == [("no", "010", "null"), ("1e-4",)]


def test_arms_of_an_axis_are_named_as_numbers_are_written(write: Write) -> None:
    path = write(arms=None, contrasts=[["outer.lr=1e-3", "outer.lr=0.0005"]])
    # Older versions took 1e-3 for text and 5.0e-4 for a number: their records have these names.
    path.write_text(path.read_text("utf-8") + "axes: {outer.lr: [1e-3, 5.0e-4, 1]}\n", encoding="utf-8")
    arms = read_plan(path).arms
    assert list(arms) == ["outer.lr=1e-3", "outer.lr=0.0005", "outer.lr=1"]
    assert [arm.primer and arm.primer.config.outer.lr for arm in arms.values()] == [0.001, 0.0005, 1.0]


def test_names_of_a_suite_are_text_as_they_are_written(write: Write) -> None:
    path = write(name=None, arms=None, contrasts=None)
    arms = (
        "arms: [{name: no, title: 010}, {name: 1e-4, line: null, priming: no, transfer: [transfer.start_head=primed]}]"
    )
    path.write_text(path.read_text("utf-8") + f"name: 010\n{arms}\ncontrasts: [[1e-4, no]]\n", encoding="utf-8")
    plan = read_plan(path)
    assert (plan.name, list(plan.arms), plan.contrasts) == ("010", ["no", "1e-4"], (("1e-4", "no"),))
    assert (plan.arms["no"].title, plan.arms["1e-4"].line) == ("010", "null")


def test_arms_with_different_numbers_of_methods_are_refused_by_their_names(write: Write) -> None:
    for methods in ({"one": "[lora, head]", "other": "[lora]"}, {"one": "[lora]", "other": "[lora, head]"}):
        counts = [text.count(",") + 1 for text in methods.values()]
        message = rf"transfer\.methods: the arm 'one' has {counts[0]} and the arm 'other' {counts[1]}: give all arms"
        with pytest.raises(MetaprimeError, match=message):
            read_plan(write(**with_methods(**methods)))


def test_arms_with_the_same_name_of_a_method_but_other_settings_are_not_equal(write: Write) -> None:
    """A name has the settings of the section peft, a mapping has its own: the label of the two is the same here."""
    path = write(**with_methods(section="[pfeiffer]", default="[{method: pfeiffer}]"))
    with pytest.raises(MetaprimeError, match="the arms 'section' and 'default' are equal"):
        read_plan(path)
    arms = read_plan(path, ["peft={method: pfeiffer, bottleneck: 4}"]).arms
    (section,), (default,) = (arms[name].target.config.methods().values() for name in ("section", "default"))
    assert section.model_dump()["bottleneck"] == 4
    assert default == type(default)()


def test_an_arm_that_primes_nothing_may_have_any_learner(write: Write) -> None:
    nothing_to_move = ["learner.name=peft_maml", "peft={method: full}"]
    plan = read_plan(write(arms=GOOD["arms"][:1], contrasts=None), nothing_to_move)
    config = plan.arms["none"].target.config
    assert plan.arms["none"].primer is None
    assert (config.learner.name, config.peft.method) == ("peft_maml", "full")
    # An arm that primes is refused, and so is one that takes what it primed.
    with pytest.raises(
        MetaprimeError, match=r"arm 'meta': peft\.method 'full' has no adapter for learner\.name 'peft_maml'"
    ):
        read_plan(write(arms=GOOD["arms"][:2], contrasts=None), nothing_to_move)
    taking = [{"name": "taken", "priming": "meta", "transfer": ["transfer.start_head=primed"]}, GOOD["arms"][1]]
    with pytest.raises(MetaprimeError, match=r"arm 'taken': peft\.method 'full' has no adapter"):
        read_plan(write(arms=taking, contrasts=None), nothing_to_move)
