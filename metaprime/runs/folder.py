"""Guards a run's output directory: refuses to mix runs, and records the inputs of each run."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaprime.files import LEFT, check_readable, discard, sweep, write_json, write_text, writing
from metaprime.runs.lock import LOCK
from metaprime.runs.provenance import Provenance, changes, machine, versions
from metaprime.types import MetaprimeError

RUN_RECORD = "run.json"
"""File with the config, versions and inputs that the run started with."""

CONFIG = "config.yaml"
"""File of the resolved config."""

PRETRAIN_RECORD = "pretrain.json"
"""Config and source of an embedded encoder, in its folder."""

KEPT_BASE = "base"
"""Folder of an embedded encoder, which may be trained before the run claims the directory."""

TRANSFERS = "transfer"
"""Folder of transfers, which may be there before priming: they can start from another encoder."""

PRIMED = "primed"
"""Folder of the primed encoder."""

STATES = "state"
"""Folder of checkpoints."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A run's request for an output directory.

    Attributes:
        output: the directory.
        config: the run's settings as JSON, without the paths of outputs and caches.
        text: the whole config as YAML.
    """

    output: Path
    config: dict[str, Any]
    text: str


def check_output(claim: Claim, resume: bool, overwrite: bool, force: bool | None = None) -> list[str]:
    """Refuses an output directory that holds another run or other files. Changes nothing.

    Args:
        claim: the run.
        resume: whether to continue the existing run.
        overwrite: whether to replace the existing run.
        force: whether to resume although the config differs; None: the command has no --force.

    Returns:
        The differences despite which the run is resumed, such as `inner.lr: 0.1 -> 0.3`.

    Raises:
        MetaprimeError: the directory is not free; the message names the flag or key to use.

    Example:
        check_output(claim, resume=True, overwrite=False, force=False)
    """
    different = differences(claim, resume, overwrite, force)
    for line in different:
        log.warning("resuming with another config: %s", line)
    return different


def differences(claim: Claim, resume: bool, overwrite: bool, force: bool | None = None) -> list[str]:
    """Makes the checks of `check_output`, and logs nothing: `differences(claim, resume=True, overwrite=False)`.

    Args: as for `check_output`.

    Returns:
        The differences despite which the run is resumed.

    Raises:
        MetaprimeError: as for `check_output`.
    """
    if resume and overwrite:
        raise MetaprimeError("--resume and --overwrite exclude each other: use only one")
    output = check_writable(claim.output)
    if not (output / RUN_RECORD).is_file():
        _refuse_foreign(output)
        return []
    if overwrite:
        return []

    # The directory holds a run: resume it if it is the same one, or if --force allows a difference.
    different = changes({"config": _read(output)["config"]}, Provenance(config=claim.config))
    if different and not (resume and force):
        remedy = "choose another run.output, or replace it with --overwrite"
        if resume and force is not None:
            remedy = "choose another run.output, replace it with --overwrite, or resume anyway with --force"
        raise MetaprimeError(
            "\n".join([f"run.output {output} holds another run (see its config.yaml): {remedy}", *different])
        )
    if not resume:
        raise MetaprimeError(
            f"run.output {output} already holds this run: continue it with --resume, or start over with --overwrite"
        )
    return different


def check_provenance(output: Path, provenance: Provenance, force: bool) -> None:
    """Refuses to resume with sentences, base weights or package versions that have changed.

    Args:
        output: the run's directory; if it holds no run, nothing is checked.
        provenance: the present inputs.
        force: whether to log the differences instead.

    Raises:
        MetaprimeError: an input differs and `force` is not set; the message lists the differences.

    Example:
        check_provenance(output, Provenance(versions=versions()), force=False)
    """
    if not (output / RUN_RECORD).is_file():
        return
    different = changes({**_read(output), "config": None}, provenance)
    if different and not force:
        raise MetaprimeError(
            "\n".join(
                [
                    f"run.output {output} was started with different inputs: restore them, start over with --overwrite, or "
                    "resume anyway with --force (results will mix both)",
                    *different,
                ]
            )
        )
    for line in different:
        log.warning("resuming with different inputs: %s", line)


def check_writable(output: Path) -> Path:
    """Returns the output path, unless it or one of its parents is a file or may not be written to.

    Raises:
        MetaprimeError: the path is a file or leads through one, or the first folder on it that exists
            may not be written to; the message names the file or folder.

    Example: `check_writable(Path("run"))`
    """
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise MetaprimeError(f"run.output {output}: {place} is a file; choose another")
    folder = next(place for place in (output, *output.parents) if place.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MetaprimeError(f"run.output {output}: no permission to write to {folder.absolute()}; choose another")
    return output


def open_output(claim: Claim, overwrite: bool, provenance: Provenance | None = None) -> Path:
    """Creates the directory, removes partial files of killed runs, and records its new owner.

    Args:
        claim: the run.
        overwrite: whether to delete an existing run, except its embedded encoder.
        provenance: the run's inputs besides its config.

    Returns:
        The directory.

    Raises:
        MetaprimeError: the directory cannot be written.

    Example:
        open_output(claim, overwrite=False, provenance=Provenance(weights={"encoder.name": digest}))
    """
    output = claim.output
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        clear_up(output)
        if overwrite and (output / RUN_RECORD).is_file():
            # Delete results first, then their inputs; the record is replaced last. A kill at any point
            # leaves a directory that is still ours and in which every result has its inputs.
            rest = sorted(path.name for path in output.iterdir() if path.name not in (KEPT_BASE, RUN_RECORD, LOCK))
            for name in sorted(rest, key=lambda name: (PRIMED, TRANSFERS, STATES, name).index(name)):
                discard(output / name)
    parts = {"versions": versions(), **(provenance.as_json() if provenance else {})}
    write_json(output / RUN_RECORD, {**parts, "config": claim.config, "volatile": machine()})
    write_text(output / CONFIG, claim.text)
    return output


def clear_up(output: Path) -> None:
    """Removes partial files of killed runs from the directory and its checkpoints.

    Example: `clear_up(output)`
    """
    for folder in (output, output / STATES):
        sweep(folder)


def _refuse_foreign(output: Path) -> None:
    """Refuses a directory with files that no run may have left there."""
    ours = (KEPT_BASE, TRANSFERS, LOCK)
    foreign = [path.name for path in output.glob("*") if path.name not in ours and not LEFT.fullmatch(path.name)]
    if foreign:
        raise MetaprimeError(
            f"run.output {output} holds files that belong to no metaprime run ({foreign[0]}); choose another"
        )


def _read(output: Path) -> dict[str, Any]:
    """Reads the record of the run that owns a directory."""
    file = output / RUN_RECORD
    check_readable(file)
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record["config"], dict):
            raise TypeError("its config is not a mapping")
        return record
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{file} is damaged ({error}): choose another run.output, or use --overwrite") from None
