"""Atomic writes of files and folders: write to a temporary name, flush to disk, rename.

A killed process leaves temporary names: `.NAME.PID.partial` was being written, `.NAME.PID.old` was
being replaced, `.NAME.PID.gone` was being removed. `sweep` cleans them up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from metaprime.types import MetaprimeError, Params

LEFT = re.compile(r"\.(?P<name>.+)\.\d+\.(?P<kind>partial|old|gone)")
"""Temporary names that a killed process leaves."""


def save_tensors(tensors: Params, file: Path) -> None:
    """Writes tensors to a safetensors file, as contiguous CPU copies.

    Args:
        tensors: of any shape `(...,)` by name.
        file: overwritten, and not atomically; write inside `written_aside`.

    Example: `save_tensors(artifact.values, folder / "values.safetensors")`
    """
    # Imported here because commands that write only text should not load torch.
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, file)


def write_json(file: Path, value: Any) -> None:
    """Writes JSON atomically, sorted and indented, so that equal values give equal bytes.

    Raises:
        MetaprimeError: the file cannot be written; an existing one stays whole.

    Example: `write_json(folder / "run.json", {"seed": 0})`
    """
    write_text(file, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes text atomically in UTF-8.

    Raises:
        MetaprimeError: the file cannot be written; an existing one stays whole.

    Example: `write_text(folder / "table.md", table)`
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
    """Yields a temporary folder that replaces `folder` when the block ends without an error.

    Only one process at a time may write to a folder.

    Raises:
        MetaprimeError: the folder cannot be written; an existing one stays whole.

    Example: `with written_aside(root / "best") as aside: write_json(aside / "run.json", record)`
    """
    aside = _beside(folder, "partial")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, folder.name)
        aside.mkdir()
        try:
            yield aside
            mode = file_mode(aside)
            for file in sorted(aside.rglob("*")):
                if file.is_file() and stat.S_IMODE(file.stat().st_mode) != mode:
                    # safetensors writes with mode 600, whatever the umask.
                    file.chmod(mode)
                _flush(file)
            _flush(aside)
            if folder.exists():
                old = _beside(folder, "old")
                # If the process is killed between these two calls, `sweep` restores the old folder.
                os.replace(folder, old)
                os.replace(aside, folder)
                shutil.rmtree(old)
            else:
                os.replace(aside, folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write inside the block into a MetaprimeError that names `path` and a remedy.

    Raises:
        MetaprimeError: the disk is full, a quota or file size limit is reached, or `path` is read-only.

    Example: `with writing(log_file): log_file.open("a").write(line)`
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MetaprimeError(
            f"cannot write {path}: {reason}. Earlier files are intact: make room there (or lift the quota, size limit "
            "or write protection) and run the command again, `metaprime prime` with --resume"
        ) from None


def file_mode(folder: Path) -> int:
    """Returns the permissions of new files in a folder: those that umask and the folder's defaults give.

    Args:
        folder: an existing folder; a file is made in it and removed.

    Raises:
        OSError: the folder cannot be written.

    Example: `file_mode(folder)` is 0o644 with a umask of 022.
    """
    probe = _beside(folder / "mode", "partial")
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def check_readable(path: Path) -> None:
    """Validates that this user may read a file, or a folder and the files in it.

    Libraries report files without permission as missing or damaged: call this before them.

    Args:
        path: a file or folder; one that does not exist passes.

    Raises:
        MetaprimeError: permission is lacking; the message names the file or folder.

    Example: `check_readable(Path("runs/demo/primed"))`
    """
    for place, needed in _needed(path):
        if os.access(place, os.F_OK) and not os.access(place, needed):
            raise MetaprimeError(
                f"{place}: permission denied: have its owner make it readable for you (chmod), or give another path"
            )


def _needed(path: Path) -> Iterator[tuple[Path, int]]:
    """Yields each folder on the way to a path, the path, and the files in it, with the access to test."""
    yield from ((parent, os.X_OK) for parent in reversed(path.absolute().parents))
    if not path.is_dir():
        yield path, os.R_OK
        return
    yield path, os.R_OK | os.X_OK
    yield from ((entry, os.R_OK) for entry in sorted(path.iterdir()) if entry.is_file())


def discard(path: Path) -> None:
    """Removes a file or folder atomically: after a kill, `sweep` removes the rest.

    Example: `discard(folder / "checkpoint")`
    """
    sweep(path.parent, path.name)
    gone = _beside(path, "gone")
    os.replace(path, gone)
    _delete(gone)


def sweep(folder: Path, name: str | None = None) -> None:
    """Removes temporary files of killed processes, and restores a file or folder whose replacement failed.

    Args:
        folder: where to look; no other process may be writing there.
        name: only temporary files of this file or folder; by default all.

    Example: `sweep(Path("runs"))`
    """
    for stray in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = LEFT.fullmatch(stray.name)
        if not match or name not in (None, match["name"]):
            continue
        if match["kind"] == "old" and not (folder / match["name"]).exists():
            os.replace(stray, folder / match["name"])
        else:
            _delete(stray)


def _beside(path: Path, kind: str) -> Path:
    """Returns the temporary name of a path for this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def _delete(path: Path) -> None:
    """Deletes a file or a folder with its contents."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _flush(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
