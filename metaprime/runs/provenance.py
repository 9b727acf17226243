"""What is not as it was when a run or a record was begun: config, package versions, base weights, sentences."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from metaprime.config.sections import Config
from metaprime.data.rows import Row

Facts = dict[str, dict[str, Any]]
"""By part (`config`, `versions`, `weights`, `sentences`, `memory`), what a result depends on, as JSON."""

PARTS = {"config": "", "versions": "version of ", "weights": "weights of ", "sentences": "sentences of ", "memory": ""}
"""How a change of each part is introduced; a part that was not recorded is not compared."""

PLACES = ("run.output", "run.cache")
"""Keys that say where things are kept, which no result depends on."""


def changes(before: Mapping[str, Any], after: Facts) -> list[str]:
    """One line for each difference: `inner.lr: 0.1 -> 0.3`."""
    lines = []
    for part, introduction in PARTS.items():
        old, new = before.get(part), after.get(part)
        if isinstance(old, Mapping) and new is not None:
            old, new = _flat(old), _flat(new)
            keys = [*new, *(key for key in old if key not in new)]
            lines += [
                f"{introduction}{key}: {_shown(key, old)} -> {_shown(key, new)}"
                for key in keys
                if key not in PLACES and (key not in old or key not in new or old[key] != new[key])
            ]
    return lines


def config_facts(config: Config) -> dict[str, Any]:
    """The config as JSON, without where things are kept."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for place in PLACES:
        section, key = place.split(".")
        values[section].pop(key, None)
    return values


def fingerprint(rows: Iterable[Row]) -> str:
    """Twelve hexadecimal digits over words and tags of sentences in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.sentence.words, row.sentence.tags]).encode())
    return digest.hexdigest()[:12]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _shown(key: str, values: Mapping[str, Any]) -> str:
    return json.dumps(values[key], ensure_ascii=False).strip('"') if key in values else "(not there)"


def versions() -> dict[str, str]:
    """Of Python, the platform and the packages that results depend on."""
    packages = ("metaprime", "torch", "transformers", "tokenizers", "accelerate", "seqeval", "numpy")
    return {"python": platform.python_version(), "platform": sys.platform, **{name: version(name) for name in packages}}
