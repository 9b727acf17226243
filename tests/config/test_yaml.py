"""YAML files of keys and overrides: duplicates and whatever is not YAML are refused, and words are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaprime.config.loading import load_config
from metaprime.config.yaml import change_key, nearest, read_keys
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
        ("1: a\n1: b\n", "line 1: duplicate key 1"),
    ],
)
def test_a_duplicate_key_is_found_at_every_depth(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MetaprimeError, match=re.escape(f"suite {file} is not YAML: {message}")):
        read_keys(file, "suite", ())


@pytest.mark.parametrize("content", [b"a: 2024-13-45", b"a: " + b"[" * 5000, b"a: !!python/object:os.system {}"])
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
