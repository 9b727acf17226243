"""Translates configs to and from the layout of version 0.1, which had no section `task`.

Version 0.1 kept the keys of tagging in the section `data`. `upgraded` reads the configs it recorded;
`addressed` returns its layout, over which digests are computed, so that finished cells are found.
"""

from __future__ import annotations

from typing import Any

MOVED = ("labels", "label_map", "tag_names", "invalid", "shuffle_tags")
"""Keys that moved from the section `data` to `task`."""

NEW = {f"data.{key}": f"task.{key}" for key in MOVED}
OLD = {new: old for old, new in NEW.items()}
"""Their whole names, each way."""


ADDED: dict[str, Any] = {
    "encoder.layer": None,
    "encoder.packed": True,
    "data.encoding": "utf-8",
    "data.sentences": "auto",
    "task.words": None,
    "task.tags": None,
    "task.scheme": "auto",
    "encoder.spacing": "auto",
    "encoder.direction": "both",
    "outer.patience": 3,
    "outer.early_stop": None,
    "transfer.head_lr": None,
    "transfer.method_lr": None,
    "run.code": [],
}
"""Keys of sections that version 0.1 had, added since, with the defaults that keep to its behaviour. A config with
such a default has the digest that it had before there was the key."""


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a recorded config in the present layout.

    Args:
        values: the config as JSON, in the present layout or that of version 0.1.

    Example: `upgraded({"data": {"labels": ["PER"]}})["task"]` is `{"name": "tagging", "labels": ["PER"]}`.
    """
    data = values.get("data")
    if "task" in values or not isinstance(data, dict) or not set(MOVED) & set(data):
        return values
    moved = {key: data[key] for key in MOVED if key in data}
    kept = {key: value for key, value in data.items() if key not in MOVED}
    whole = {**values, "data": kept, "task": {"name": "tagging", **moved}}
    if isinstance(values.get("provenance"), dict):
        whole["provenance"] = {NEW.get(key, key): source for key, source in values["provenance"].items()}
    if "suite" in values:
        whole["suite"] = _upgraded_suite(values["suite"])
    return whole


def _upgraded_suite(suite: dict[str, Any]) -> dict[str, Any]:
    """Renames the moved keys in the overrides of a recorded suite's arms."""
    arms = {
        name: arm | {part: _renamed(arm[part]) for part in ("set", "transfer")} for name, arm in suite["arms"].items()
    }
    return {**suite, "arms": arms}


def _renamed(overrides: list[str]) -> list[str]:
    """Renames the moved keys in overrides such as `data.labels=[PER]`."""
    split = [override.partition("=") for override in overrides]
    return [f"{NEW.get(key, key)}{equals}{value}" for key, equals, value in split]


def addressed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a config in the layout over which digests are computed, without a section `task`.

    Args:
        values: the config as JSON, in the present layout.

    Example: `addressed({"data": {}, "task": {"name": "tagging", "labels": ["PER"]}})` is
    `{"data": {"labels": ["PER"]}}`.
    """
    values = _without_added(values)
    task = dict(values["task"])
    if task["name"] == "tagging":
        del task["name"]
        data = values["data"] | task
    else:
        data = values["data"] | {"task": task}
    whole = {key: value for key, value in values.items() if key != "task"} | {"data": data}
    if isinstance(values.get("provenance"), dict):
        whole["provenance"] = {OLD.get(key, key): source for key, source in values["provenance"].items()}
    return whole


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a recorded config with the keys that it was written before, for a comparison of all keys.

    Args:
        values: the config as JSON, in the present layout; sections that are not there stay away.

    Example: `completed({"task": {"name": "tagging"}})["task"]["words"]` is None.
    """
    whole = dict(values)
    for place, default in ADDED.items():
        section, key = place.split(".")
        if isinstance(whole.get(section), dict):
            whole[section] = {key: default} | whole[section]
    return whole


def _without_added(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a config without the added keys that have their defaults."""
    kept = dict(values)
    for place, default in ADDED.items():
        section, key = place.split(".")
        if key in kept.get(section, {}) and kept[section][key] == default:
            kept[section] = {name: value for name, value in kept[section].items() if name != key}
    return kept
