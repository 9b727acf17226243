"""A run's output directory: who may write into it, and what is recorded of how the run began."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from metaprime.config.loading import dump_config
from metaprime.config.sections import Config
from metaprime.files import LEFT, discard, sweep, write_json, write_text, writing
from metaprime.runs.lock import LOCK
from metaprime.runs.provenance import Facts, changes, config_facts, versions
from metaprime.types import MetaprimeError

RECORD = "run.json"
KEPT_BASE = "base"
"""Folder of an embedded pre-trained encoder: it may stand in the output before the run does."""
TRANSFERS = "transfer"
"""Folder of transfers: they may have started from another encoder before this one is primed."""
PRIMED = "primed"
"""Folder of the primed encoder."""
STATES = "state"
"""Folder of checkpoints."""

log = logging.getLogger(__name__)


def check_output(config: Config, resume: bool, overwrite: bool, force: bool | None = None) -> list[str]:
    """Refuses an output directory that holds another run, or anything that is not a run. Changes nothing.

    With `force` a run of another config is gone on with; None: that is not to be had here. Returns what differs.

    Raises:
        MetaprimeError: saying what is there and which flag or key to use.
    """
    if resume and overwrite:
        raise MetaprimeError("--resume and --overwrite exclude each other: give one of them")
    output = check_writable(config)
    if not (output / RECORD).is_file():
        ours = (KEPT_BASE, TRANSFERS, LOCK)
        foreign = [path.name for path in output.glob("*") if path.name not in ours and not LEFT.fullmatch(path.name)]
        if foreign:
            raise MetaprimeError(
                f"run.output {output} holds files that are no metaprime run ({foreign[0]}); choose another"
            )
        return []
    if overwrite:
        return []
    record = _read_record(output)
    different = changes({"config": record["config"]}, {"config": config_facts(config)})
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
        log.warning("going on with another config: %s", line)
    return different


def check_facts(config: Config, facts: Facts, force: bool) -> None:
    """Refuses to go on with other sentences, base weights or package versions than the run was begun with.

    Raises:
        MetaprimeError: naming each with what it was and is.
    """
    output = Path(config.run.output)
    if not (output / RECORD).is_file():
        return
    different = changes({**_read_record(output), "config": None}, facts)
    if different and not force:
        raise MetaprimeError(
            "\n".join(
                [
                    f"run.output {output} holds a run that was begun with something else: restore it, start anew with "
                    "--overwrite, or go on all the same with --force (the result is then neither the one's nor the other's)",
                    *different,
                ]
            )
        )
    for line in different:
        log.warning("going on with something else: %s", line)


def _read_record(output: Path) -> dict[str, Any]:
    record = output / RECORD
    try:
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if not isinstance(found["config"], dict):
            raise TypeError("its config is not written out")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{record} is damaged ({error}): choose another run.output, or use --overwrite") from None


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


def open_output(config: Config, resume: bool, overwrite: bool, facts: Facts | None = None) -> Path:
    """Creates the directory (emptied by `overwrite`), clears up after killed runs, and records whose it is."""
    output = Path(config.run.output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        clear_up(config)
        if overwrite and (output / RECORD).is_file():
            # The results first, then what they are made from, the record last and by replacing it: wherever this is
            # killed, the directory is still ours and holds no result without what it stands on.
            rest = sorted(path.name for path in output.iterdir() if path.name not in (KEPT_BASE, RECORD, LOCK))
            for name in sorted(rest, key=lambda name: (PRIMED, TRANSFERS, STATES, name).index(name)):
                discard(output / name)
    write_json(output / RECORD, {"config": config_facts(config), "versions": versions(), **(facts or {})})
    write_text(output / "config.yaml", dump_config(config))
    return output


def clear_up(config: Config) -> None:
    """Removes what killed runs were about to write."""
    for folder in (Path(config.run.output), Path(config.run.output) / STATES):
        sweep(folder)
