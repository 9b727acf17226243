"""Translates the layout of configs before the section `task` existed: in records on disk, and in addresses of cells.

Version 0.1 kept the keys of tagging under `data`. Files that it wrote are read by `upgraded`; digests that name
cells are computed over its layout (`addressed`), so that finished cells are found again.
"""

from __future__ import annotations

from typing import Any

MOVED = ("labels", "label_map", "tag_names", "invalid", "shuffle_tags")
"""Keys that moved from `data` to `task`."""


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a recorded config, as JSON, in the present layout.

    Example: `upgraded({"data": {"labels": ["PER"]}})["task"]` is `{"name": "tagging", "labels": ["PER"]}`.
    """
    data = values.get("data")
    if "task" in values or not isinstance(data, dict) or not set(MOVED) & set(data):
        return values
    moved = {key: data[key] for key in MOVED if key in data}
    kept = {key: value for key, value in data.items() if key not in MOVED}
    return {**values, "data": kept, "task": {"name": "tagging", **moved}}


def addressed(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a config, as JSON, in the layout over which digests are computed: without a section `task`."""
    task = dict(values["task"])
    if task["name"] == "tagging":
        del task["name"]
        data = values["data"] | task
    else:
        data = values["data"] | {"task": task}
    return {key: value for key, value in values.items() if key != "task"} | {"data": data}
