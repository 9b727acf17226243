"""One run at a time in a directory: a lock of the operating system, which dies with its process, and a note of who holds it."""

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
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.files import writing
from metaprime.types import MetaprimeError

LOCK = ".lock"
"""In the output directory while a run is at work there: JSON with host, pid and the time it began."""

NOT_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks answers."""


@contextlib.contextmanager
def locked(output: Path, accelerator: Accelerator | None = None) -> Iterator[None]:
    """Holds `<output>/.lock`; of processes that were launched together the first holds it for all.

    Raises:
        MetaprimeError: another run holds it, or may: who, since when, and what to do about it.
    """
    handle, refusal = -1, ""
    made: list[Path] = []
    if accelerator is None or accelerator.is_main_process:
        try:
            with writing(output):
                made = [place for place in (output, *output.parents) if not place.exists()]
                output.mkdir(parents=True, exist_ok=True)
                handle = _acquire(output / LOCK)
        except MetaprimeError as error:
            refusal = str(error)
    if accelerator and accelerator.num_processes > 1:
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
        with contextlib.suppress(OSError):  # folders that were made for nothing but the lock go; others are not empty
            for place in made:
                place.rmdir()


def _acquire(file: Path) -> int:
    """An open file that holds the lock.

    Raises:
        MetaprimeError: another run holds it, or may.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
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
        os.close(handle)  # its holder ended, and removed it, between our opening it and our locking it
    note, here = _note(file), socket.gethostname()
    if note and (note.get("host") != here or (not sure and _alive(note.get("pid")))):
        os.close(handle)
        raise MetaprimeError(
            f"run.output {file.parent} was locked by {_holder(note)}, and from {here} nobody can tell whether that run is "
            f"still at work. If it is, wait for it or stop it; if it was killed, remove {file} and run the command again"
        )
    mine = {"host": here, "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(mine).encode())
    return handle


def _note(file: Path) -> dict[str, Any]:
    """What the lock says of its holder: nothing, if that one is just about to write it."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(file.read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    return {}


def _holder(note: dict[str, Any]) -> str:
    if not note:
        return "another process"
    return f"process {note.get('pid')} on {note.get('host')}, since {note.get('since')}"


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, TypeError, ValueError):
        return False
    return True
