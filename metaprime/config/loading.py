"""Loads a config from a YAML file and `key=value` overrides; one error lists every mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from metaprime.config.code import load_code
from metaprime.config.older import MOVED
from metaprime.config.sections import Config
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.peft import settings_of as method_settings
from metaprime.tasks import settings_of as task_settings
from metaprime.types import MetaprimeError


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, applies overrides, and validates the result.

    Args:
        path: the file; None: the defaults, which prime the embedded encoder on synthetic languages.
        overrides: changes such as `inner.steps=3`; values are YAML.

    Returns:
        The validated config.

    Raises:
        MetaprimeError: the file is missing or not YAML, a key is unknown, or a value is invalid. The
            message has one line for each mistake, with the file, the key and the remedy.

    Example:
        >>> metaprime.load_config(None, ["inner.steps=3"]).inner.steps
        3
    """
    values = read_keys(Path(path), "config", Config.model_fields) if path else {}
    for text in overrides:
        change_key(values, text)
    _load_own(values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"{_origin(item, path, overrides)}: {_explained(item, values)}" for item in error.errors()]
        raise MetaprimeError("\n".join(lines)) from None


def override(config: Config, *overrides: str) -> Config:
    """Returns a changed and validated copy of a config.

    Args:
        config: the config, which stays as it is.
        overrides: changes such as `inner.steps=1`; values are YAML.

    Returns:
        The changed copy.

    Raises:
        MetaprimeError: a key is unknown, or a value is invalid.

    Example:
        >>> metaprime.override(config, "inner.steps=1", "outer.lr=1e-4").outer.lr
        0.0001
    """
    values = config.model_dump(mode="json")
    for text in overrides:
        change_key(values, text)
    _load_own(values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(_explained(item, values) for item in error.errors())) from None


def _load_own(values: dict[str, Any]) -> None:
    """Runs the files in `run.code`, so that other keys may name what they define; a wrong value is left to validation."""
    run = values.get("run")
    code = run.get("code", ()) if isinstance(run, dict) else ()
    files = [code] if isinstance(code, str) else code
    if isinstance(files, list | tuple) and all(isinstance(file, str) for file in files):
        load_code(files)


def explain(item: Any, values: dict[str, Any], known: Callable[[Sequence[str], dict[str, Any]], list[str]]) -> str:
    """Returns a sentence about one validation error: its key, value and remedy.

    Args:
        item: one of pydantic's `error.errors()`.
        values: the mapping that was validated.
        known: function of an unknown key's section, as a path, and of `values`; returns the section's keys.

    Example: for the override `inner.step=3`, `unknown key inner.step; did you mean steps?`.
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


def _origin(item: Any, path: str | Path | None, overrides: Sequence[str]) -> str:
    """Returns the file with the value of one error, or the override that replaced it."""
    if path is None:
        return "config"
    place = tuple(map(str, item["loc"]))
    keys = {text: tuple(text.partition("=")[0].split(".")) for text in overrides}
    given = [text for text, key in keys.items() if place[: len(key)] == key]
    return f"override {given[-1]!r}" if given else str(path)


def _explained(item: Any, values: dict[str, Any]) -> str:
    """Returns a sentence about one error of a config; a key that moved is named with its new section."""
    place = tuple(map(str, item["loc"]))
    if item["type"] == "extra_forbidden" and place[0] == "data" and place[-1] in MOVED:
        return f"data.{place[-1]} has moved: write task.{place[-1]}"
    return explain(item, values, _known_keys)


def _known_keys(place: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Returns the keys that a section knows; in `peft`, `task` and methods, those of the chosen name."""
    # Methods and tasks have config classes of their own, which their names select.
    if place and place[0] == "peft":
        return list(method_settings(values["peft"].get("method", "pfeiffer")).model_fields)
    if place and place[0] == "task" and len(place) == 1:
        return list(task_settings(values["task"].get("name", "tagging")).model_fields)
    if tuple(place[:2]) == ("transfer", "methods") and len(place) > 2:
        methods = values["transfer"]["methods"]
        chosen = methods[int(place[2])] if isinstance(methods, list) else methods
        return list(method_settings(chosen.get("method", "pfeiffer")).model_fields)
    # The annotations of all other sections lead there.
    model: type[BaseModel] = Config
    if place and place[0] == "task":
        model, place = task_settings(values["task"].get("name", "tagging")), place[1:]
    for name in place:
        # The keys of a mapping are names of the user's.
        if name not in model.model_fields:
            continue
        annotation = model.model_fields[name].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
