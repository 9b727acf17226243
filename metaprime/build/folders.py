"""Checks the folder of a config's encoder without loading it. Nothing here loads torch, so that commands ask first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaprime.config.sections import EncoderConfig, PretrainConfig, TransferConfig, is_synthetic
from metaprime.models.folder import refuse_bad_encoder
from metaprime.runs.folder import KEPT_BASE, PRETRAIN_RECORD, PRIMED
from metaprime.types import MetaprimeError


def check_encoder(wanted: EncoderConfig, output: Path) -> None:
    """Refuses an encoder whose folder is missing or not one to load, or whose hub id leads nowhere.

    Args:
        wanted: the section `encoder`.
        output: folder of the run, where an embedded encoder is kept.

    Raises:
        MetaprimeError: the folder lacks something, or the embedded encoder's place holds other files.

    Example: `check_encoder(config.encoder, Path("runs/demo"))`
    """
    if is_synthetic(wanted.name):
        is_pretrained(wanted.pretrain, wanted.name, output / KEPT_BASE)
    else:
        refuse_bad_encoder(wanted.name)


def started_from(settings: TransferConfig, output: Path) -> str | None:
    """Returns the folder or hub id of the encoder that transfers start from; None: the encoder of the config.

    Args:
        settings: the section `transfer`.
        output: folder of the run.

    Raises:
        MetaprimeError: `transfer.encoder` is `primed`, and nothing was primed in `output`.

    Example: `started_from(config.transfer, Path("runs/demo"))` is `runs/demo/primed`.
    """
    if settings.encoder == "base":
        return None
    if settings.encoder != PRIMED:
        return settings.encoder
    if not (output / PRIMED).is_dir():
        raise MetaprimeError(
            f"transfer.encoder: {output / PRIMED} does not exist; run `metaprime prime` first, or set transfer.encoder to base "
            "or to a folder"
        )
    return str(output / PRIMED)


def is_pretrained(config: PretrainConfig, source: str, folder: Path) -> bool:
    """Returns True if `folder` holds the encoder of a config, False if it is free.

    Args:
        config: size and training of the encoder.
        source: `synthetic:` or `synthetic:SEED`.
        folder: folder for the Hugging Face files.

    Raises:
        MetaprimeError: the folder holds another encoder or other files.

    Example: `is_pretrained(PretrainConfig(), "synthetic:", Path("base"))`
    """
    record = folder / PRETRAIN_RECORD
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) == pretrain_record(config, source):
        return True
    if folder.exists() and any(folder.iterdir()):
        raise MetaprimeError(
            f"{folder} holds another encoder or other files, and the embedded encoder of this config belongs there: choose "
            "another run.output, or remove the folder"
        )
    return False


def pretrain_record(config: PretrainConfig, source: str) -> dict[str, Any]:
    """Returns the content of PRETRAIN_RECORD: `pretrain_record(PretrainConfig(), "synthetic:")`.

    Args:
        config: size and training of the encoder.
        source: `synthetic:` or `synthetic:SEED`.
    """
    return {"pretrain": {**config.model_dump(mode="json"), "lr": config.rate}, "source": source}
