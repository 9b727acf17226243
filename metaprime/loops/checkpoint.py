"""Checkpoints and other files that are either whole or not there: written aside, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from metaprime.types import MetaprimeError, Params


@dataclass(frozen=True)
class Checkpoint:
    """Meta-steps done, all tensors by name (weights and `optimizer/...`), and what else `state.json` says."""

    step: int
    tensors: Params
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Writes `folder/step-N` and removes all but the newest `keep`."""
    with written_aside(folder / f"step-{checkpoint.step:08d}") as aside:
        save_tensors(checkpoint.tensors, aside / "tensors.safetensors")
        write_json(aside / "state.json", {"step": checkpoint.step, **checkpoint.state})
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`, or None."""
    return load_checkpoint(found[-1]) if (found := _steps(folder)) else None


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        MetaprimeError: it is damaged.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(state.pop("step"), load_file(folder / "tensors.safetensors"), state)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise MetaprimeError(
            f"checkpoint {folder} cannot be read ({error}); remove it to go on from an older one"
        ) from None


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


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> Params:
    """The optimizer's per-parameter state under `optimizer/<slot>/<parameter name>`; `names` by `id` of the parameter."""
    return {
        f"optimizer/{slot}/{names[id(parameter)]}": value
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: Params) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = {names[id(parameter)]: parameter for group in optimizer.param_groups for parameter in group["params"]}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/", 2)
            parameter = parameters[name]
            optimizer.state[parameter][slot] = value if slot == "step" else value.to(parameter.device)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


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
