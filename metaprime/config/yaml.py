"""YAML as people write it: a file of keys, `key=value` changes to it, and the nearest of the words that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from metaprime.types import MetaprimeError

_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: also for bytes that are no UTF-8, dates and numbers that are none, and endless nesting."""


class _UniqueKeys(yaml.SafeLoader):
    """`yaml.safe_load`, but a duplicate key is an error: the first of the two would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: duplicate key {repeated[0]!r}")
        return super().construct_mapping(node, deep)


def read_keys(path: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """A file's top-level mapping; `what` it is and which `keys` it may have are for messages.

    Raises:
        MetaprimeError: it is missing, is not YAML, has a key twice, or holds no mapping.
    """
    if not path.is_file():
        raise MetaprimeError(f"{what} {path} does not exist")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except _NOT_YAML as error:
        raise MetaprimeError(f"{what} {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise MetaprimeError(f"{what} {path} must hold keys ({', '.join(keys)}), not {values!r}")
    return values


def change_key(values: dict[str, Any], text: str) -> None:
    """Carries out one change, `key=value` or `section.key=value`, in place.

    Raises:
        MetaprimeError: it does not read so, the value is not YAML, or what should be a section is a value.
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
        parsed = yaml.safe_load(value)
        # `data.source=synthetic:` names a source; YAML would make a mapping of it.
        values[last] = value if value.endswith(":") and isinstance(parsed, dict) else parsed
    except _NOT_YAML as error:
        raise MetaprimeError(f"override {text!r}: the value is not YAML: {error}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: what may have been meant, or all that is known."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(words)}"
