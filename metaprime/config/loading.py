"""Loads a config: a YAML file and `key=value` overrides become one frozen value, or one error that names every mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from metaprime.config.sections import Config
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.peft import METHODS
from metaprime.types import MetaprimeError


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, applies `section.key=value` overrides (values are YAML), validates the whole.

    Without a path, the defaults: the embedded demonstration.

    Raises:
        MetaprimeError: the file is missing or not YAML; a key is unknown (the nearest is named) or a value is not
            what it should be. All mistakes are listed at once.
    """
    where = str(path) if path else "config"
    values = read_keys(Path(path), "config", Config.model_fields) if path else {}
    for text in overrides:
        change_key(values, text)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(f"{where}: {_explain(item, values)}" for item in error.errors())) from None


def override(config: Config, *overrides: str) -> Config:
    """A changed copy, validated anew: `override(config, "inner.steps=1")`."""
    values = config.model_dump(mode="json")
    for text in overrides:
        change_key(values, text)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(_explain(item, values) for item in error.errors())) from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal value."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _explain(item: Any, values: dict[str, Any]) -> str:
    """One pydantic error about `values` as a sentence that names key, value and remedy."""
    place = [str(part) for part in item["loc"]]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{nearest(place[-1], _known_keys(place[:-1], values))}"
    message = item["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    if item["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, but is {item['input']!r}"


def _known_keys(place: Sequence[str], values: dict[str, Any]) -> list[str]:
    model: type[BaseModel] = Config
    if place and place[0] == "peft":  # the keys of the method that is named; an unknown method was told before
        model, place = METHODS[values["peft"].get("method", "pfeiffer")].config, place[1:]
    for name in place:
        candidates = [model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
