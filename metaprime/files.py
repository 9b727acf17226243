"""Files and folders that are either whole or not there: written aside, flushed to disk, renamed.

What a killed process leaves bears a name of its own: `.NAME.PID.partial` was being written, `.NAME.PID.old` replaced,
`.NAME.PID.gone` removed. `sweep` clears it up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from metaprime.types import MetaprimeError, Params

LEFT = re.compile(r"\.(?P<name>.+)\.\d+\.(?P<kind>partial|old|gone)")
"""Names of what a killed process left."""


def save_tensors(tensors: Params, file: Path) -> None:
    """Contiguous CPU copies in safetensors form."""
    # Imported here: this is all in the file that needs torch, and whoever writes text should not load it.
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, file)


def write_json(file: Path, value: Any) -> None:
    """Atomic, sorted and indented, so that equal values give equal bytes."""
    write_text(file, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Atomic, UTF-8.

    Raises:
        MetaprimeError: it cannot be written; what was there is whole.
    """
    aside = _beside(file, "partial")
    with writing(file):
        sweep(file.parent, file.name)
        try:
            aside.write_text(text, encoding="utf-8")
            _flush(aside)
            os.replace(aside, file)
            _flush(file.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its real name only when the block ends well. One writer at a time for a name.

    Raises:
        MetaprimeError: it cannot be written; what was there is whole.
    """
    aside = _beside(folder, "partial")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, folder.name)
        aside.mkdir()
        try:
            yield aside
            for file in sorted(aside.rglob("*")):
                _flush(file)
            _flush(aside)
            if folder.exists():
                old = _beside(folder, "old")
                os.replace(folder, old)  # a kill between these two: `sweep` puts the old one back
                os.replace(aside, folder)
                shutil.rmtree(old)
            else:
                os.replace(aside, folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says of a write that fails which one it was and what to do.

    Raises:
        MetaprimeError: the disk is full, a quota or file size limit is reached, or the place is not to be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MetaprimeError(
            f"cannot write {path}: {reason}. What was written before is whole: make room there (or lift the quota, size limit "
            "or write protection) and run the command again, `metaprime prime` with --resume"
        ) from None


def discard(path: Path) -> None:
    """Removes a file or folder at one blow: killed in the middle, it leaves a stray that `sweep` knows, not half of it."""
    sweep(path.parent, path.name)
    gone = _beside(path, "gone")
    os.replace(path, gone)
    _delete(gone)


def sweep(folder: Path, name: str | None = None) -> None:
    """Clears up what killed processes left beside `folder/name`, or in all of `folder`, where nobody else may be writing.

    What was renamed to be replaced, but was not yet replaced, is put back.
    """
    for stray in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = LEFT.fullmatch(stray.name)
        if not found or name not in (None, found["name"]):
            continue
        if found["kind"] == "old" and not (folder / found["name"]).exists():
            os.replace(stray, folder / found["name"])
        else:
            _delete(stray)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
