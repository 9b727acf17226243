"""YAML files of keys and overrides: duplicates and whatever is not YAML are refused, and words are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metaprime.config.loading import load_config, override
from metaprime.config.sections import Config
from metaprime.config.yaml import change_key, nearest, read_keys, written
from metaprime.types import MetaprimeError

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inner.steps", ["'inner.steps'", "section.key=value"]),
        ("=3", ["'=3'", "section.key=value"]),
        ("inner.steps=[1", ["inner.steps=[1", "not YAML"]),
        ("inner={lr: 1, lr: 2}", ["not YAML", "duplicate key 'lr'"]),
    ],
)
def test_an_override_that_is_none(refused: Refused, text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message


def test_an_override_below_a_value(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("inner: 3\n", encoding="utf-8")
    with pytest.raises(MetaprimeError, match="inner is a value, not a section"):
        load_config(file, ["inner.steps=1"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff\xfe: 1", "is not YAML"),
        (b"- inner\n- outer\n", "must hold keys (run, encoder, data,"),
        (b"just words", "must hold keys"),
        (b"", "is empty: it must hold keys (run, encoder"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(MetaprimeError, match=re.escape(words)) as error:
        load_config(file)
    assert str(file) in str(error.value)


def test_a_duplicate_key_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("outer: {steps: 5}\nrun: {seed: 1}\nouter: {lr: 0.1}\n", encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"twice\.yaml is not YAML: .*duplicate key 'outer'"):
        load_config(file)


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:7"])
def test_a_source_that_ends_in_a_colon_is_text_on_the_command_line(source: str) -> None:
    assert load_config(None, [f"data.source={source}", f"encoder.name={source}"]).data.source == source
    assert load_config(None, ["task.label_map={MISC: O}"]).task.label_map == {"MISC": "O"}


def test_a_file_is_read_as_yaml(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("name: Zoë\nlists: [1, {a: 1}, {a: 2}]\nnested: {name: x}\nempty:\n", encoding="utf-8")
    assert read_keys(file, "suite", ()) == {
        "name": "Zoë",
        "lists": [1, {"a": 1}, {"a": 2}],
        "nested": {"name": "x"},
        "empty": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 3: duplicate key 'c'"),
        ("a: [{b: 1}, {b: 1, b: 1}]\n", "line 1: duplicate key 'b'"),
        ("? [a]\n: 1\n", "line 1: the key ['a'] is not text"),
        ("1: a\n1: b\n", "line 1: duplicate key '1'"),
    ],
)
def test_a_duplicate_key_is_found_at_every_depth(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MetaprimeError, match=re.escape(f"suite {file} is not YAML: {message}")):
        read_keys(file, "suite", ())


@pytest.mark.parametrize(
    "content", [b"a: !!int x", b"a: !!timestamp 2024-13-45", b"a: " + b"[" * 5000, b"a: !!python/object:os.system {}"]
)
def test_values_that_yaml_cannot_make_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys.yaml"
    file.write_bytes(content)
    with pytest.raises(MetaprimeError, match="is not YAML: "):
        read_keys(file, "config", ())


def test_a_file_without_keys_is_told_which_it_may_have(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("- a\n", encoding="utf-8")
    with pytest.raises(MetaprimeError, match=re.escape(f"suite {file} must hold keys (name, base), not ['a']")):
        read_keys(file, "suite", ("name", "base"))
    with pytest.raises(MetaprimeError, match=re.escape(f"suite {tmp_path} does not exist")):
        read_keys(tmp_path, "suite", ())


@pytest.mark.parametrize(
    ("values", "text", "changed"),
    [
        ({}, "a=1", {"a": 1}),
        ({}, "a.b.c=x", {"a": {"b": {"c": "x"}}}),
        ({"a": {"b": 1, "c": 2}}, "a.b=[3, 4]", {"a": {"b": [3, 4], "c": 2}}),
        ({"a": {"b": 1}}, "a=null", {"a": None}),
        ({"a": 1}, "a=", {"a": None}),
        ({"a": 1}, "a=b=c", {"a": "b=c"}),
        ({}, "a={b: 1}", {"a": {"b": 1}}),
        ({}, "a=conll:", {"a": "conll:"}),
        ({}, "a='x:'", {"a": "x:"}),
    ],
)
def test_an_override_changes_one_key_in_place(values: dict[str, Any], text: str, changed: dict[str, Any]) -> None:
    change_key(values, text)
    assert values == changed


@pytest.mark.parametrize("text", ["a.b.c=1", "a.b.c.d=1"])
def test_an_override_below_a_value_names_the_value(text: str) -> None:
    values: dict[str, Any] = {"a": {"b": 1}}
    with pytest.raises(MetaprimeError, match=re.escape(f"override '{text}': b is a value, not a section")):
        change_key(values, text)
    assert values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("stepz", "; did you mean steps?"),
        ("STEPS", "; known here: steps, lr, stop"),
        ("qqq", "; known here: steps, lr, stop"),
        ("", "; known here: steps, lr, stop"),
    ],
)
def test_the_nearest_word_or_all(word: str, end: str) -> None:
    assert nearest(word, iter(["steps", "lr", "stop"])) == end


def test_where_nothing_is_known_nothing_is_meant() -> None:
    assert nearest("steps", []) == "; known here: "


UNQUOTED = (
    *("no", "yes", "on", "off", "y", "n", "No", "NO", "true", "False", "null", "~", "NULL", "010", "08", "1_000"),
    *("12:30", "0x1F", "0o17", "1e-4", "1.10", ".5", "+3", "2024-01-01", ".inf", ".nan", "12e4567", "0b11", "="),
)
"""Words that some YAML reads as something else than text."""


@pytest.mark.parametrize("word", UNQUOTED)
def test_a_key_that_wants_text_takes_it_as_it_is_written(tmp_path: Path, word: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"run:\n  output: {word}\ndata: {{languages: [{word}, de]}}\n"
        f"task: {{labels: [{word}], label_map: {{{word}: {word}, X: O}}}}\n",
        encoding="utf-8",
    )
    by_file = load_config(file)
    by_override = load_config(
        None,
        [
            *(f"run.output={word}", f"data.languages=[{word}, de]"),
            *(f"task.labels=[{word}]", f"task.label_map={{{word}: {word}, X: O}}"),
        ],
    )
    assert by_file == by_override == override(by_file, f"data.languages=[{word}, de]", f"run.output={word}")
    task = by_file.task.model_dump()
    assert (by_file.run.output, by_file.data.languages) == (word, (word, "de"))
    assert (task["labels"], task["label_map"]) == ((word,), {word: word, "X": "O"})


@pytest.mark.parametrize("word", [*UNQUOTED, "1e5", "Y", "N", "a: b", "#", " a", "a\x85b", "a\u2028", "", "é"])
def test_a_written_config_reads_back_equal_in_any_reader(tmp_path: Path, word: str) -> None:
    config = Config(
        run={"output": word}, data={"languages": (word,)}, task={"labels": (word, "X"), "label_map": {word: "X"}}
    )
    file = tmp_path / "config.yaml"
    file.write_text(config.as_yaml(), encoding="utf-8")
    assert load_config(file) == config
    # PyYAML's own loader reads YAML 1.1.
    assert yaml.safe_load(config.as_yaml()) == config.model_dump(mode="json")


@pytest.mark.parametrize("word", [*UNQUOTED, "1e5", "Y", "N", "Null", "-1_000.5"])
def test_text_that_some_reader_takes_for_something_else_is_quoted(word: str) -> None:
    assert written({"word": word}) in (f"word: '{word}'\n", f'word: "{word}"\n')


@pytest.mark.parametrize("word", ["none", "notes", "x1", "1.2.3", "nan", "de"])
def test_other_text_has_no_quotes(word: str) -> None:
    assert written({"word": word}) == f"word: {word}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("1E3", 1000.0), ("1.5e-3", 0.0015), ("010", 10.0), ("1_000", 1000.0), ("0x10", 16.0)),
        *((".5", 0.5), ("5.", 5.0), ("+2", 2.0), ("'1e-4'", 1e-4), ("1_0.5", 10.5)),
    ],
)
def test_a_key_that_wants_a_number_reads_one(text: str, value: float) -> None:
    assert load_config(None, [f"outer.lr={text}"]).outer.lr == value
    assert load_config(None, [f"transfer.lr=[{text}]"]).transfer.lr == (value,)


@pytest.mark.parametrize("text", ["12:30", "1__0", "0b11", "2024-01-01", ".nan", ".inf", "12e4567"])
def test_what_is_no_number_is_refused_where_one_is_wanted(refused: Refused, text: str) -> None:
    assert refused(f"outer.lr={text}").startswith("config: outer.lr: input should be a")


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("off", False), ("TRUE", True), ("false", False)])
def test_a_key_that_wants_a_truth_value_reads_one(text: str, value: bool) -> None:
    assert load_config(None, [f"outer.rollback={text}"]).outer.rollback is value


def test_null_is_null_where_a_key_may_be_null_and_nothing_is_no_text(refused: Refused) -> None:
    for nothing in ("null", "~", ""):
        assert load_config(None, [f"data.target_source={nothing}", f"outer.clip={nothing}"]).outer.clip is None
        assert load_config(None, [f"data.target_source={nothing}"]).data.target_source is None
    assert load_config(None, ["data.target_source='null'"]).data.target_source == "null"
    assert "run.output: input should be a valid string, but is None" in refused("run.output=")
    assert "task.label_map.X: input should be a valid string, but is None" in refused("task.label_map={X: }")


def test_settings_of_another_package_have_values() -> None:
    config = load_config(None, ["peft={method: hf, config: {peft_type: LORA, r: 010, lora_dropout: 1e-1, bias: no}}"])
    assert config.peft.model_dump()["config"] == {"peft_type": "LORA", "r": 10, "lora_dropout": 0.1, "bias": "no"}


@pytest.mark.parametrize("text", ["&it {data: *it}", "data: &it {source: *it}", "data: {source: &it [*it]}"])
def test_a_value_inside_itself_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"is not YAML: .*recursive"):
        load_config(file)


def test_an_override_in_the_place_of_the_file_is_told_so() -> None:
    with pytest.raises(
        MetaprimeError, match=r"inner\.steps=3 does not exist: give the file of the config before any key=value$"
    ):
        read_keys(Path("inner.steps=3"), "config", ())
    with pytest.raises(MetaprimeError, match=r"config nowhere\.yaml does not exist$"):
        read_keys(Path("nowhere.yaml"), "config", ())
