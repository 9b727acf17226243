"""Reads and writes YAML files of keys, applies `key=value` overrides, and suggests the nearest known key.

A value without quotes that may be text or not is read as a `Scalar`, which its section settles: a key
that wants text takes it as it is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from metaprime.files import check_readable
from metaprime.types import MetaprimeError, Scalar

_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""Errors of PyYAML: syntax, bytes that are not UTF-8, invalid numbers, deep nesting."""


def _whole(text: str) -> int:
    """Reads a whole number; a zero in front, as in 010, means nothing."""
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _decimal(text: str) -> float:
    """Reads a number with a point, an exponent or both, or one that is not finite."""
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_DIGITS = "[0-9]+(?:_[0-9]+)*"
SCHEMA: dict[str, tuple[str, Callable[[str], float | bool | None]]] = {
    "tag:yaml.org,2002:null": ("null|Null|NULL|~|", lambda text: None),
    "tag:yaml.org,2002:bool": ("true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "tag:yaml.org,2002:int": (rf"[-+]?{_DIGITS}|0x[0-9a-fA-F]+|0o[0-7]+", _whole),
    "tag:yaml.org,2002:float": (
        rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _decimal,
    ),
}
"""Pattern and reader of values that are not text unless they have quotes, by tag of YAML: those of
YAML 1.2's core schema, and numbers with `_`."""


class _Loader(yaml.SafeLoader):
    """A safe loader of YAML 1.2's core schema that keeps texts and refuses duplicate keys.

    PyYAML reads YAML 1.1 otherwise, where `no` is false, 2024-01-01 a date, 12:30 the number 750
    and 1e-4 text.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 (its type is PyYAML's)

    def construct_document(self, node: yaml.Node) -> Any:
        """Builds the document from its leaves upwards, which refuses a value inside itself."""
        self.deep_construct = True
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping, whose keys are text and unique."""
        where = f"line {node.start_mark.line + 1}"
        keys = [key.value if key.tag in SCHEMA else self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise yaml.YAMLError(f"{where}: the key {key!r} is not text")
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{where}: duplicate key {key!r}")
        values = [self.construct_object(value, deep=deep) for _, value in node.value]
        return dict(zip(keys, values, strict=True))

    def construct_scalar_of(self, node: yaml.ScalarNode) -> Scalar:
        """Builds a scalar that is not text unless its key wants text."""
        pattern, value = SCHEMA[node.tag]
        # A tag can be written in front of any text: `!!int x`.
        if not re.fullmatch(pattern, node.value):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {node.value!r} is not a {node.tag.split(':')[-1]}")
        return Scalar(node.value, value(node.value))


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes text which a reader of YAML 1.1 or 1.2 would take for something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Represents text, with escapes for line breaks that PyYAML writes and does not read back."""
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar(self.DEFAULT_SCALAR_TAG, text, style)


for _tag, (_pattern, _) in SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)
    _Loader.add_constructor(_tag, _Loader.construct_scalar_of)
# PyYAML takes these for text, other readers of YAML 1.1 do not.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]\Z"), None)
_Dumper.add_representer(str, _Dumper.represent_text)


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
        remedy = f": give the file of the {what} before any key=value" if "=" in str(path) else ""
        raise MetaprimeError(f"{what} {path} does not exist{remedy}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
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
        values[last] = read_value(value)
    except _NOT_YAML as error:
        raise MetaprimeError(f"override {text!r}: the value is not YAML: {error}") from None


def read_value(text: str) -> Any:
    """Reads the value of an override: `read_value("[no, 1]")` is a list of text and a Scalar.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: the text is not YAML.
    """
    parsed = yaml.load(text, Loader=_Loader)
    # `data.source=synthetic:` names a source, but YAML reads its value as a mapping.
    return text if text.endswith(":") and isinstance(parsed, dict) else parsed


def written(values: Mapping[str, Any]) -> str:
    """Returns keys and values as YAML, which `read_keys` and other readers of YAML read back.

    Args:
        values: mappings, lists, text, numbers, bools and None.

    Example: `written({"languages": ["no"]})` has quotes around the language.
    """
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


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
