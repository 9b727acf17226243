"""Records config, versions, weights and data of a run, and detects changes since its start.

The machine is recorded too and never compared: the last digits of results depend on its processor.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.config.code import code_hashes
from metaprime.config.older import completed, upgraded

if TYPE_CHECKING:
    from metaprime.data.rows import Row

PACKAGES = ("metaprime", "torch", "transformers", "tokenizers", "accelerate", "seqeval", "numpy")
"""Packages whose versions results depend on."""

OWN_CODE = "run.code "
"""Words before the path of a file of own code among the versions, whose version is its SHA-256."""

PARTS = {"config": "", "versions": "version of ", "weights": "weights of ", "sentences": "sentences of ", "memory": ""}
"""Part -> words that introduce a change of it in a message."""


@dataclass(frozen=True)
class Provenance:
    """Everything that a result depends on, as JSON values. An empty part is not compared.

    Attributes:
        config: resolved settings, without the paths of outputs and caches.
        versions: package -> version.
        weights: config key of an encoder -> hash of the weights that training starts from.
        sentences: language -> fingerprint of its rows.
        memory: settings that were chosen by the memory available.
    """

    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns part -> values of the parts that are not empty."""
        return {part: values for part in PARTS if (values := getattr(self, part))}


def changes(before: Mapping[str, Any], after: Provenance) -> list[str]:
    """Lists the differences between a record and the present, such as `inner.lr: 0.1 -> 0.3`.

    Args:
        before: recorded parts as JSON; a part that was not recorded is not compared. A config in
            the layout of an older version is translated first.
        after: the present.

    Returns:
        One line for each key that was changed, added or removed; nested keys are joined by dots.

    Example:
        changes({"config": {"inner": {"lr": 0.1}}}, Provenance(config={"inner": {"lr": 0.3}}))
    """
    lines = []
    for part, introduction in PARTS.items():
        old, new = before.get(part), getattr(after, part)
        if not isinstance(old, Mapping) or not new:
            continue
        if part == "config":
            old, new = completed(upgraded(dict(old))), completed(new)
        old, new = _flat(old), _flat(new)
        keys = [*new, *(key for key in old if key not in new)]
        lines += [
            f"{introduction}{key}: {_shown(key, old)} -> {_shown(key, new)}"
            for key in keys
            if key not in old or key not in new or not _equal(old[key], new[key])
        ]
    return lines


def fingerprint(rows: Iterable[Row]) -> str:
    """Returns 12 hexadecimal digits of a hash over the rows' words and gold answers, in order.

    Example: `fingerprint(rows)`
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.example.words, row.example.gold]).encode())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Returns the versions of Python and of `PACKAGES`, the platform, and hashes of own code: `versions()["torch"]`."""
    packages = {name: version(name) for name in PACKAGES}
    own = {OWN_CODE + file: digest for file, digest in code_hashes().items()}
    return {"python": platform.python_version(), "platform": sys.platform, **packages, **own}


def _equal(one: Any, other: Any) -> bool:
    """Returns True if two JSON values are equal; for Python alone, 0 equals false and 1 equals true."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def made_here() -> dict[str, Any]:
    """Returns what differs between equal runs: host, process, time, and `machine()`."""
    written = time.strftime("%Y-%m-%dT%H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "written": written, **machine()}


def machine() -> dict[str, Any]:
    """Returns processor, its instructions, torch's threads and the commit of the code: `machine()["cpu"]`.

    The commit is empty if the package is installed from no checkout, and ends in `-dirty` if files of the
    checkout were changed.
    """
    # Imported here: reports read this module and load no torch.
    import torch

    instructions = torch.backends.cpu.get_cpu_capability()
    return {"cpu": _cpu(), "instructions": instructions, "threads": torch.get_num_threads(), "commit": _commit()}


def machines_text(recorded: Iterable[Mapping[str, Any]]) -> str:
    """Describes the machines that records were made on, `not recorded` for those that do not say it.

    Args:
        recorded: a block with the keys of `machine()`, or without them, for each record.

    Example: `machines_text([{"cpu": "x86", "instructions": "AVX2", "threads": 1, "commit": "ab"}])` is
        `CPU x86 (AVX2), threads 1, commit ab`.
    """
    texts = {
        f"CPU {block['cpu']} ({block['instructions']}), threads {block['threads']}, commit {block['commit'] or 'unknown'}"
        if "cpu" in block
        else "CPU, threads and commit not recorded"
        for block in recorded
    }
    return " or ".join(sorted(texts)) or "CPU, threads and commit not recorded"


@functools.cache
def _cpu() -> str:
    """Returns the model of the processor, with family and model numbers where Linux lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    listed = dict(re.findall(r"^([^:\t\n]+?)\s*:[ \t]*(.*)$", text.partition("\n\n")[0], flags=re.MULTILINE))
    name = listed.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {listed[key]}" for key in ("cpu family", "model") if key in listed]
    return f"{name}, {', '.join(numbers)}" if numbers else name


@functools.cache
def _commit() -> str:
    """Returns the commit of the checkout that holds the package; empty: there is none, or no git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a nested mapping by dotted key; an empty mapping is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _shown(key: str, values: Mapping[str, Any]) -> str:
    """Writes a value as JSON without outer quotes, or says that the key is absent."""
    return json.dumps(values[key], ensure_ascii=False).strip('"') if key in values else "(not there)"
