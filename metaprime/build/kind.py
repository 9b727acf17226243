"""Determines size and kind of an encoder from its files, without loading it: rates depend on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaprime.config.presets import EMBEDDED, Kind
from metaprime.config.sections import EncoderConfig, TransferConfig
from metaprime.models.folder import hub_config, is_hub_id
from metaprime.runs.artifact import CARD
from metaprime.runs.folder import PRETRAIN_RECORD
from metaprime.types import MetaprimeError

WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "emb_dim")
"""Names that architectures give the hidden width in config.json."""

WIDEST = 1024
"""Width of an encoder whose config names none, for which rates are the lowest."""


def kinds_of(encoder: EncoderConfig, settings: TransferConfig) -> tuple[Kind, Kind]:
    """Returns the kind of the encoder to prime and of the one that transfers start from.

    A config.json on the hub is downloaded, as loading the encoder would do.

    Args:
        encoder: the section `encoder`.
        settings: the section `transfer`.

    Example: `config.at_rates(*kinds_of(config.encoder, config.transfer))`.
    """
    primed = encoder_kind(encoder.name)
    return primed, primed if settings.encoder in ("base", "primed") else encoder_kind(settings.encoder)


def encoder_kind(name: str) -> Kind:
    """Returns the kind of an encoder by its name: `encoder_kind("synthetic:")` is `EMBEDDED`.

    Args:
        name: folder, hub id, or `synthetic:` for the embedded encoder. A primed encoder has the kind
            of the encoder that it was primed from.
    """
    folder = Path(name)
    if name.partition(":")[0] == "synthetic" or (folder / PRETRAIN_RECORD).is_file():
        return EMBEDDED
    if (folder / CARD).is_file() and _is_embedded(_json(folder / CARD), folder):
        return EMBEDDED
    values = _config(name)
    return Kind(next((int(values[key]) for key in WIDTHS if values.get(key)), WIDEST), embedded=False)


def _is_embedded(card: dict[str, Any], folder: Path) -> bool:
    """Returns True if the encoder in a folder with a card was primed from an embedded one."""
    before = card.get("provenance", {}).get("config", {}).get("encoder", {}).get("name", "")
    # A card that names its own folder would be read for ever; nothing on the hub is an embedded encoder.
    here = before.startswith("synthetic:") or (Path(before).is_dir() and Path(before) != folder)
    return here and encoder_kind(before) == EMBEDDED


def _config(name: str) -> dict[str, Any]:
    """Returns the content of an encoder's config.json; empty if it cannot be read, which loading will refuse."""
    if not is_hub_id(name):
        return _json(Path(name) / "config.json")
    try:
        return hub_config(name)
    except MetaprimeError:
        return {}


def _json(file: Path) -> dict[str, Any]:
    """Returns the mapping in a JSON file; empty if there is none, which whoever needs it will refuse."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
