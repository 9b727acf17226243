"""Loads a config: a YAML file and `key=value` overrides become one frozen value, or one error that names every mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from metaprime.config.older import MOVED
from metaprime.config.sections import Config
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.peft import METHODS
from metaprime.tasks import TASKS
from metaprime.types import MetaprimeError


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, applies overrides, and validates the whole.

    Args:
        path: the file; None: the defaults, which are the embedded demonstration.
        overrides: changes such as `inner.steps=3`; values are YAML.

    Returns:
        The config.

    Raises:
        MetaprimeError: the file is missing or not YAML; a key is unknown (the nearest is named) or a value is not
            what it should be. All mistakes are listed at once.

    Example:
        >>> metaprime.load_config(None, ["inner.steps=3"]).inner.steps
        3
    """
    where = str(path) if path else "config"
    values = read_keys(Path(path), "config", Config.model_fields) if path else {}
    for text in overrides:
        change_key(values, text)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(f"{where}: {_explained(item, values)}" for item in error.errors())) from None


def override(config: Config, *overrides: str) -> Config:
    """Returns a changed copy of a config, validated anew.

    Args:
        config: the config; it is not changed.
        overrides: changes such as `inner.steps=1`; values are YAML.

    Returns:
        The copy.

    Raises:
        MetaprimeError: a key is unknown, or a value is not what it should be.

    Example:
        >>> metaprime.override(config, "inner.steps=1", "outer.lr=1e-4").outer.lr
        0.0001
    """
    values = config.model_dump(mode="json")
    for text in overrides:
        change_key(values, text)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(_explained(item, values) for item in error.errors())) from None


def explain(item: Any, values: dict[str, Any], known: Callable[[Sequence[str], dict[str, Any]], list[str]]) -> str:
    """Turns one pydantic error into a sentence that names key, value and remedy.

    Args:
        item: the error.
        values: what was validated.
        known: the place of an unknown key, and `values`, to the keys that are known there.
    """
    place = [str(part) for part in item["loc"]]
    key = ".".join(place)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{nearest(place[-1], known(place[:-1], values))}"
    if not key:
        return str(message)
    if item["type"] == "value_error":
        return f"{key}: {message}"
    if item["type"] == "missing":
        return f"{key}: {message[0].lower()}{message[1:]}"
    return f"{key}: {message[0].lower()}{message[1:]}, but is {item['input']!r}"


def _explained(item: Any, values: dict[str, Any]) -> str:
    place = tuple(map(str, item["loc"]))
    if item["type"] == "extra_forbidden" and place[0] == "data" and place[-1] in MOVED:
        return f"data.{place[-1]} has moved: write task.{place[-1]}"
    return explain(item, values, _known_keys)


def _known_keys(place: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Returns the keys of a section; those of the method or task that is named, whose own name is known to be right."""
    if place and place[0] == "peft":
        return list(METHODS[values["peft"].get("method", "pfeiffer")].config.model_fields)
    if place and place[0] == "task":
        return list(TASKS[values["task"].get("name", "tagging")].config.model_fields)
    if tuple(place[:2]) == ("transfer", "methods") and len(place) > 2:
        methods = values["transfer"]["methods"]
        chosen = methods[int(place[2])] if isinstance(methods, list) else methods
        return list(METHODS[chosen.get("method", "pfeiffer")].config.model_fields)
    model: type[BaseModel] = Config
    for name in place:
        candidates = [model.model_fields[name].annotation, *get_args(model.model_fields[name].annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
