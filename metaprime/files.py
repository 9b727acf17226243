"""Files and folders that are either whole or not there: written aside, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from metaprime.types import Params


def save_tensors(tensors: Params, file: Path) -> None:
    """Contiguous CPU copies in safetensors form."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, file)


def write_json(file: Path, value: Any) -> None:
    """Atomic, sorted and indented, so that equal values give equal bytes."""
    _sweep(file)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(aside)
    os.replace(aside, file)


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its real name only when the block ends well. One writer at a time for a name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    _sweep(folder)
    aside.mkdir()
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            _flush(file)
        _flush(aside)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
            os.replace(folder, old)
            os.replace(aside, folder)
            shutil.rmtree(old)
        else:
            os.replace(aside, folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Removes what a process that was killed while it wrote `path` left beside it."""
    ours = re.compile(rf"\.{re.escape(path.name)}(\.old)?\.\d+")
    for stray in path.parent.iterdir():
        if ours.fullmatch(stray.name):
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
