"""Reads YAML files of keys, applies `key=value` overrides, and suggests the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from metaprime.files import check_readable
from metaprime.types import MetaprimeError

_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""Errors of PyYAML: syntax, bytes that are not UTF-8, invalid dates or numbers, deep nesting."""


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses duplicate keys, of which YAML silently drops the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping, after a check that its keys are unique."""
        keys = [self.construct_object(key) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: duplicate key {repeated[0]!r}")
        return super().construct_mapping(node, deep)


def read_keys(path: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """Reads a YAML file and returns its top-level mapping.

    Args:
        path: the file.
        what: kind of the file, for messages.
        keys: the file's known keys, for messages.

    Raises:
        MetaprimeError: the file is missing or not YAML, a key is duplicated, or the top level is no mapping.

    Example: `read_keys(Path("recipes/configs/demo.yaml"), "config", Config.model_fields)`.
    """
    check_readable(path)
    if not path.is_file():
        raise MetaprimeError(f"{what} {path} does not exist")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except _NOT_YAML as error:
        raise MetaprimeError(f"{what} {path} is not YAML: {error}") from None
    if values is None:
        raise MetaprimeError(f"{what} {path} is empty: it must hold keys ({', '.join(keys)})")
    if not isinstance(values, dict):
        raise MetaprimeError(f"{what} {path} must hold keys ({', '.join(keys)}), not {values!r}")
    return values


def change_key(values: dict[str, Any], text: str) -> None:
    """Applies one override to a mapping, in place.

    Args:
        values: the mapping; missing sections are added.
        text: `key=value` or `section.key=value`; the value is YAML.

    Raises:
        MetaprimeError: the text has another form, the value is not YAML, or a section holds a value.

    Example: `change_key(values, "inner.steps=5")`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise MetaprimeError(f"override {text!r} must read section.key=value, for example inner.steps=5")
    *sections, last = key.split(".")
    for name in sections:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise MetaprimeError(f"override {text!r}: {name} is a value, not a section")
    try:
        parsed = yaml.load(value, Loader=_UniqueKeys)
        # `data.source=synthetic:` names a source, but YAML reads its value as a mapping.
        values[last] = value if value.endswith(":") and isinstance(parsed, dict) else parsed
    except _NOT_YAML as error:
        raise MetaprimeError(f"override {text!r}: the value is not YAML: {error}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown word: the nearest known word, or all of them.

    Args:
        word: the unknown word.
        known: all known words.

    Example: `nearest("stepz", ["steps", "lr"])` is `; did you mean steps?`.
    """
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(words)}"
