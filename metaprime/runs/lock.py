"""Locks a run directory by an OS file lock, released when its process exits; notes the holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.files import writing
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from accelerate import Accelerator

LOCK = ".lock"
"""File in the output directory of an active run: JSON with host, pid and start time."""

NOT_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Error numbers of a file system without locks."""


@contextlib.contextmanager
def locked(output: Path, accelerator: Accelerator | None = None) -> Iterator[None]:
    """Holds `<output>/.lock` within a `with` block: `with locked(output): ...`.

    Folders that had to be created for the lock are removed at the end if nothing else is in them.

    Args:
        output: the run directory.
        accelerator: the processes that were launched together: the first holds the lock for all.

    Raises:
        MetaprimeError: another run holds the lock or may hold it (the message names host, process
            and start time), or the directory cannot be written.
    """
    handle, refusal = -1, ""
    created: list[Path] = []

    # The first process takes the lock.
    if accelerator is None or accelerator.is_main_process:
        try:
            with writing(output):
                created = [place for place in (output, *output.parents) if not place.exists()]
                output.mkdir(parents=True, exist_ok=True)
                handle = _acquire(output / LOCK)
        except MetaprimeError as error:
            refusal = str(error)

    # The others learn whether it got the lock.
    if accelerator and accelerator.num_processes > 1:
        # Imported here: reports read names of this module and load no torch.
        import torch

        refused = torch.tensor(float(bool(refusal)), device=accelerator.device)
        if accelerator.reduce(refused, reduction="sum").item() and not refusal:
            refusal = f"run.output {output} cannot be locked: see the message of the first process"

    try:
        if refusal:
            raise MetaprimeError(refusal)
        yield
    finally:
        if handle >= 0:
            (output / LOCK).unlink(missing_ok=True)
            os.close(handle)
        # A folder that is not empty raises OSError and stays.
        with contextlib.suppress(OSError):
            for place in created:
                place.rmdir()


def _acquire(file: Path) -> int:
    """Returns the descriptor of the lock file, locked, with this process noted in it.

    Raises:
        MetaprimeError: another run holds the lock or may hold it.
    """
    # The file may be removed by its holder between our opening and our locking it: then try again.
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sure = True
        except BlockingIOError:
            os.close(handle)
            raise MetaprimeError(
                f"run.output {file.parent} is in use by {_holder(_note(file))}: wait for it, stop it, or choose another"
            ) from None
        except OSError as error:
            if error.errno not in NOT_HERE:
                os.close(handle)
                raise
            sure = False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                break
        os.close(handle)

    # Other hosts may not see a lock, and some file systems have none: there the note decides.
    note, here = _note(file), socket.gethostname()
    if note and (note.get("host") != here or (not sure and _alive(note.get("pid")))):
        os.close(handle)
        raise MetaprimeError(
            f"run.output {file.parent} was locked by {_holder(note)}, and {here} cannot check whether that run is "
            f"still active. If it is, wait for it or stop it; if it was killed, remove {file} and run the command again"
        )

    mine = {"host": here, "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(mine).encode())
    return handle


def _note(file: Path) -> dict[str, Any]:
    """Returns the content of the lock file; empty if its holder has not written it yet."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(file.read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    return {}


def _holder(note: dict[str, Any]) -> str:
    """Describes the holder of a lock."""
    if not note:
        return "another process"
    return f"process {note.get('pid')} on {note.get('host')}, since {note.get('since')}"


def _alive(pid: Any) -> bool:
    """Returns True if this host has a process with this id."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, TypeError, ValueError):
        return False
    return True
