"""Loading: a file and overrides become one config, and every mistake is named with its key, value and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from metaprime.config.loading import explain, load_config, override
from metaprime.config.sections import Config
from metaprime.types import MetaprimeError

Refused = Callable[..., str]


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inner.step=3", ["unknown key inner.step", "did you mean steps?"]),
        ("iner.steps=3", ["unknown key iner", "did you mean inner?"]),
        ("outer.warm_up=0.1", ["outer.warm_up", "warmup"]),
        ("encoder.pretrain.lyers=1", ["encoder.pretrain.lyers", "did you mean layers?"]),
        ("peft.botleneck=3", ["peft.botleneck", "did you mean bottleneck?"]),
        ("inner.zzzz=3", ["unknown key inner.zzzz", "known here: steps, lr, optimizer, "]),
    ],
)
def test_an_unknown_key_names_the_nearest(refused: Refused, text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("inner.steps=many", "inner.steps", "'many'"),
        ("inner.steps=2.5", "inner.steps", "2.5"),
        ("inner.steps.x=3", "inner.steps", "{'x': 3}"),
        ("inner.lr=[1]", "inner.lr", "[1]"),
        ("inner.batched=maybe", "inner.batched", "'maybe'"),
        ("inner.order=third", "inner.order", "'third'"),
        ("run.output=[3]", "run.output", "[3]"),
        ("data.languages=de", "data.languages", "'de'"),
        ("data.languages=[de, [no]]", "data.languages.1", "['no']"),
        ("task.label_map=[a]", "task.label_map", "['a']"),
        ("inner=3", "inner", "3"),
        ("transfer.shots=[a]", "transfer.shots.0", "'a'"),
        ("outer.head=forget", "outer.head", "'forget'"),
    ],
)
def test_a_wrong_type_names_key_and_value(refused: Refused, text: str, key: str, value: str) -> None:
    message = refused(text)
    assert message.startswith(f"config: {key}: input should be ")
    assert message.endswith(f"but is {value}")


@pytest.mark.parametrize("key", ["labels", "label_map", "tag_names", "invalid", "shuffle_tags"])
def test_a_key_that_moved_names_its_new_place(refused: Refused, tmp_path: Path, key: str) -> None:
    assert refused(f"data.{key}=x").splitlines() == [f"config: data.{key} has moved: write task.{key}"]
    file = write(tmp_path, f"data: {{{key}: x}}\n")
    with pytest.raises(MetaprimeError, match=rf"config\.yaml: data\.{key} has moved: write task\.{key}"):
        load_config(file)


def test_all_mistakes_are_told_at_once_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "inner: {lr: 0, step: 3}\nouter: {steps: x}\npeft: {method: lora, bottleneck: 3}\nrum: {}\n")
    with pytest.raises(MetaprimeError) as error:
        load_config(file)
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"{file}: ") for line in lines)
    for key in ("inner.lr", "inner.step;", "outer.steps", "peft.bottleneck", "unknown key rum"):
        assert sum(key in line for line in lines) == 1, key


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MetaprimeError, match=re.escape(f"{path} does not exist")):
            load_config(path)


def test_a_mistake_names_the_file_or_the_override_that_it_is_in(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data: {invalid: drop}\ninner: {steps: 0.5, lr: 0.1}", encoding="utf-8")
    overrides = ["data.labels=[PER]", "inner.lr=0.3", "inner.lr=0", "peft={method: lora, rnk: 4}", "outer.stepz=1"]
    with pytest.raises(MetaprimeError) as error:
        load_config(file, overrides)
    lines = str(error.value).splitlines()
    assert {line.partition(": ")[0] for line in lines if "inner.steps" in line or "data.invalid" in line} == {str(file)}
    assert "override 'data.labels=[PER]': data.labels has moved: write task.labels" in lines
    assert any(line.startswith("override 'inner.lr=0': inner.lr: input should be greater than 0") for line in lines)
    assert "override 'outer.stepz=1': unknown key outer.stepz; did you mean steps?" in lines
    assert any(line.startswith("override 'peft={method: lora, rnk: 4}': unknown key peft.rnk") for line in lines)
    assert len(lines) == 6


def test_overrides_win_over_the_file_and_are_yaml(tmp_path: Path) -> None:
    file = write(tmp_path, "inner: {steps: 3, lr: 0.1}\n")
    config = load_config(
        file, ["inner.steps=7", "data.languages=[qab, qac]", "data.validation_languages=[]", "outer.clip=null"]
    )
    assert (config.inner.steps, config.inner.lr) == (7, 0.1)
    assert config.data.languages == ("qab", "qac")
    assert config.outer.clip is None


def test_a_changed_copy_is_validated_anew() -> None:
    config = load_config()
    changed = override(config, "inner.steps=2", "run.output=elsewhere")
    assert (changed.inner.steps, changed.run.output, config.inner.steps) == (2, "elsewhere", 5)
    with pytest.raises(MetaprimeError, match="did you mean steps"):
        override(config, "inner.stepz=2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("peft={method: lora, rnk: 4}", "unknown key peft.rnk; did you mean rank?"),
        ("peft={method: lora, bottleneck: 4}", "unknown key peft.bottleneck; known here: "),
        ("task={lables: [PER]}", "unknown key task.lables; did you mean labels?"),
        (
            "transfer.methods=[head, {method: lora, rnk: 4}]",
            "unknown key transfer.methods.1.rnk; did you mean rank?",
        ),
        ("transfer.methods={method: lora, rnk: 4}", "unknown key transfer.methods.0.rnk; did you mean rank?"),
        ("encoder.sites={querry: x}", "unknown key encoder.sites.querry; did you mean query?"),
        ("data.label=[PER]", "unknown key data.label; known here: source, "),
    ],
)
def test_the_nearest_key_is_looked_for_in_the_section_that_was_chosen(
    refused: Refused, text: str, message: str
) -> None:
    assert any(line.startswith(f"config: {message}") for line in refused(text).splitlines()), refused(text)


def test_a_section_that_never_had_a_key_does_not_send_to_the_task(refused: Refused) -> None:
    assert "has moved" not in refused("inner.labels=x")


def test_without_a_file_and_overrides_there_are_the_defaults() -> None:
    assert load_config(None) == load_config() == Config()


def test_a_later_override_wins_over_an_earlier_one() -> None:
    assert load_config(None, ["inner.steps=2", "inner.steps=3"]).inner.steps == 3


def test_a_path_may_be_text(tmp_path: Path) -> None:
    file = write(tmp_path, "inner: {steps: 3}\n")
    assert load_config(str(file)) == load_config(file) == load_config(None, ["inner.steps=3"])


def test_a_copy_without_overrides_is_equal_and_lists_its_mistakes_at_once() -> None:
    config = load_config(None, ["peft={method: lora, rank: 4}", "transfer.methods=[{method: ia3}]"])
    assert override(config) == config
    with pytest.raises(MetaprimeError) as error:
        override(config, "inner.lr=0", "outer.steps=0", "peft.bottleneck=3")
    lines = sorted(str(error.value).splitlines())
    for line, start in zip(lines, ("inner.lr: ", "outer.steps: ", "unknown key peft.bottleneck; "), strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"loc": ("a", "bc"), "type": "extra_forbidden", "msg": "", "input": 1}, "unknown key a.bc; did you mean abc?"),
        ({"loc": (), "type": "value_error", "msg": "Value error, a contradicts b", "input": {}}, "a contradicts b"),
        ({"loc": ("a",), "type": "value_error", "msg": "Value error, is empty", "input": []}, "a: is empty"),
        ({"loc": ("a", 0, "b"), "type": "missing", "msg": "Field required", "input": {}}, "a.0.b: field required"),
        (
            {"loc": ("a",), "type": "int_type", "msg": "Input should be whole", "input": "x"},
            "a: input should be whole, but is 'x'",
        ),
    ],
)
def test_one_error_is_one_sentence(item: dict[str, object], message: str) -> None:
    values = {"a": {"bc": 1}}
    asked = []

    def known(place: object, whole: object) -> list[str]:
        asked.append((place, whole))
        return ["abc", "xyz"]

    assert explain(item, values, known) == message
    assert asked == ([(["a"], values)] if item["type"] == "extra_forbidden" else [])


def test_a_config_that_was_written_out_whole_is_read_again(tmp_path: Path) -> None:
    tasks = (
        "{name: tagging, scheme: none}",
        "{name: classification, labels: [no, yes]}",
        "{name: classification, preset: glue/mrpc}",
        "{name: regression}",
        "{name: multiple_choice, preset: super_glue/copa}",
        "{name: span_pairs}",
    )
    for number, task in enumerate(tasks):
        config = load_config(None, [f"task={task}"])
        for form, text in (("yaml", config.as_yaml()), ("json", config.model_dump_json())):
            file = tmp_path / f"{number}.{form}"
            file.write_text(text, "utf-8")
            assert load_config(file) == config


def test_a_key_inside_one_of_several_tasks_is_compared_with_its_own() -> None:
    with pytest.raises(MetaprimeError, match=r"unknown key task\.tasks\.acc\.lables; did you mean labels\?"):
        load_config(None, ["task={name: classifications, tasks: {acc: {lables: [a, b]}}}"])
    with pytest.raises(MetaprimeError, match=r"unknown key task\.poling; did you mean pooling\?"):
        load_config(None, ["task={name: classifications, poling: mean}"])
