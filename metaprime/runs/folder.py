"""Guards a run's output directory: who may write into it, and what is recorded of how the run started."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaprime.files import LEFT, discard, sweep, write_json, write_text, writing
from metaprime.runs.lock import LOCK
from metaprime.runs.provenance import Provenance, changes, versions
from metaprime.types import MetaprimeError

RUN_RECORD = "run.json"
"""What the run started with."""

CONFIG = "config.yaml"
"""The resolved config."""

KEPT_BASE = "base"
"""Folder of an embedded encoder: it may be in the output before the run is."""

TRANSFERS = "transfer"
"""Folder of transfers: they may have started from another encoder before this one is primed."""

PRIMED = "primed"
"""Folder of the primed encoder."""

STATES = "state"
"""Folder of checkpoints."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A run that wants an output directory.

    Attributes:
        output: the directory.
        config: the run's settings as JSON, without where things are kept.
        text: the whole config as YAML.
    """

    output: Path
    config: dict[str, Any]
    text: str


def check_output(claim: Claim, resume: bool, overwrite: bool, force: bool | None = None) -> list[str]:
    """Refuses an output directory that holds another run, or anything that is not a run. Changes nothing.

    Args:
        claim: the run.
        resume: whether it continues the run that is there.
        overwrite: whether it replaces that run.
        force: whether it continues although the config differs; None: this command has no --force.

    Returns:
        The differences with which the run is resumed all the same.

    Raises:
        MetaprimeError: the directory is not free; the message names the flag or key to use.
    """
    if resume and overwrite:
        raise MetaprimeError("--resume and --overwrite exclude each other: give one of them")
    output = check_writable(claim.output)
    if not (output / RUN_RECORD).is_file():
        _refuse_foreign(output)
        return []
    if overwrite:
        return []
    different = changes({"config": _read(output)["config"]}, Provenance(config=claim.config))
    if different and not (resume and force):
        remedy = "choose another run.output, or replace it with --overwrite"
        if resume and force is not None:
            remedy = "choose another run.output, replace it with --overwrite, or go on all the same with --force"
        raise MetaprimeError(
            "\n".join([f"run.output {output} holds another run (see its config.yaml): {remedy}", *different])
        )
    if not resume:
        raise MetaprimeError(
            f"run.output {output} holds this run already: go on with --resume, or start anew with --overwrite"
        )
    for line in different:
        log.warning("resuming with another config: %s", line)
    return different


def check_provenance(output: Path, provenance: Provenance, force: bool) -> None:
    """Refuses to resume with other sentences, base weights or package versions than the run started with.

    Raises:
        MetaprimeError: something differs, and `force` is not set; each difference is named.
    """
    if not (output / RUN_RECORD).is_file():
        return
    different = changes({**_read(output), "config": None}, provenance)
    if different and not force:
        raise MetaprimeError(
            "\n".join(
                [
                    f"run.output {output} was started with different inputs: restore them, start anew with --overwrite, or "
                    "resume all the same with --force (results will mix both)",
                    *different,
                ]
            )
        )
    for line in different:
        log.warning("resuming with different inputs: %s", line)


def check_writable(output: Path) -> Path:
    """Refuses an output path that is a file, or goes through one.

    Raises:
        MetaprimeError: it is; the file is named.
    """
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise MetaprimeError(f"run.output {output}: {place} is a file; choose another")
    return output


def open_output(claim: Claim, overwrite: bool, provenance: Provenance | None = None) -> Path:
    """Creates the directory, removes what killed runs were about to write, and records whose it is.

    Args:
        claim: the run.
        overwrite: whether what is there goes.
        provenance: what the run starts with besides its config.
    """
    output = claim.output
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        clear_up(output)
        if overwrite and (output / RUN_RECORD).is_file():
            # The results go first, then what they are made from, and the record last, by being replaced:
            # wherever this is killed, the directory is still ours and holds no result without its basis.
            rest = sorted(path.name for path in output.iterdir() if path.name not in (KEPT_BASE, RUN_RECORD, LOCK))
            for name in sorted(rest, key=lambda name: (PRIMED, TRANSFERS, STATES, name).index(name)):
                discard(output / name)
    parts = {"versions": versions(), **(provenance.as_json() if provenance else {})}
    write_json(output / RUN_RECORD, {**parts, "config": claim.config})
    write_text(output / CONFIG, claim.text)
    return output


def clear_up(output: Path) -> None:
    """Removes what killed runs were about to write."""
    for folder in (output, output / STATES):
        sweep(folder)


def _refuse_foreign(output: Path) -> None:
    ours = (KEPT_BASE, TRANSFERS, LOCK)
    foreign = [path.name for path in output.glob("*") if path.name not in ours and not LEFT.fullmatch(path.name)]
    if foreign:
        raise MetaprimeError(
            f"run.output {output} holds files that are no metaprime run ({foreign[0]}); choose another"
        )


def _read(output: Path) -> dict[str, Any]:
    record = output / RUN_RECORD
    try:
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if not isinstance(found["config"], dict):
            raise TypeError("its config is not written out")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{record} is damaged ({error}): choose another run.output, or use --overwrite") from None
