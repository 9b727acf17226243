"""A run's output directory: who may write into it."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from metaprime.config import Config, dump_config
from metaprime.files import write_json
from metaprime.types import MetaprimeError

RECORD = "run.json"
KEPT_BASE = "base"
"""Folder of an embedded pre-trained encoder: it may stand in the output before the run does."""
TRANSFERS = "transfer"
"""Folder of transfers: they may have started from another encoder before this one is primed."""


def check_output(config: Config, resume: bool, overwrite: bool) -> None:
    """Refuses an output directory that holds another run, or anything that is not a run. Changes nothing.

    Raises:
        MetaprimeError: saying what is there and which flag or key to use.
    """
    if resume and overwrite:
        raise MetaprimeError("--resume and --overwrite exclude each other: give one of them")
    output = check_writable(config)
    record = output / RECORD
    if not record.is_file():
        foreign = [path.name for path in output.glob("*") if path.name not in (KEPT_BASE, TRANSFERS)]
        if foreign:
            raise MetaprimeError(
                f"run.output {output} holds files that are no metaprime run ({foreign[0]}); choose another"
            )
        return
    if overwrite:
        return
    try:
        found = json.loads(record.read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{record} is damaged ({error}): choose another run.output, or use --overwrite") from None
    if found != _digest(config):
        raise MetaprimeError(
            f"run.output {output} holds another run (config {found}, this one is {_digest(config)}; see its "
            "config.yaml): choose another run.output, or replace it with --overwrite"
        )
    if not resume:
        raise MetaprimeError(
            f"run.output {output} holds this run already: go on with --resume, or start anew with --overwrite"
        )


def check_writable(config: Config) -> Path:
    """Refuses an output path that is, or goes through, a file.

    Raises:
        MetaprimeError: naming the file.
    """
    output = Path(config.run.output)
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise MetaprimeError(f"run.output {output}: {place} is a file; choose another")
    return output


def open_output(config: Config, resume: bool, overwrite: bool) -> Path:
    """Creates the directory (emptied by `overwrite`) and records whose it is."""
    output = Path(config.run.output)
    if overwrite and (output / RECORD).is_file():
        for path in output.iterdir():
            if path.name not in (KEPT_BASE, RECORD):  # the record goes last, replaced below: a kill leaves it ours
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / RECORD, {"config": _digest(config), "versions": versions()})
    (output / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return output


def versions() -> dict[str, str]:
    """Of Python, the platform and the packages that results depend on."""
    packages = ("metaprime", "torch", "transformers", "tokenizers", "accelerate", "seqeval", "numpy")
    return {"python": platform.python_version(), "platform": sys.platform, **{name: version(name) for name in packages}}


def _digest(config: Config) -> str:
    """Of everything but where the run is kept."""
    here = config.model_copy(update={"run": config.run.model_copy(update={"output": ""})})
    return here.digest()
