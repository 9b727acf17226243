"""Writes and reads checkpoints: newest states and best weights, each written atomically and hashed.

state/step-00000200/   tensors.safetensors, state.json, and manifest.json with the SHA-256 of both
state/best-00000150/   the same files for the best weights so far, found at step 150: they
                       belong to every checkpoint from step 150 to the next best
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from metaprime.files import check_readable, discard, save_tensors, write_json, written_aside
from metaprime.types import MetaprimeError, Params

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
"""Files of a checkpoint."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after a meta-step.

    Attributes:
        step: meta-steps done.
        tensors: weights by full name, and `optimizer/SLOT/NAME`, which is () for a step count and
            otherwise has the shape of its weight, such as (D, C).
        state: other values of `state.json`, as JSON.
    """

    step: int
    tensors: Params
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Writes `folder/step-N` and removes old checkpoints.

    Args:
        folder: the run's `state`.
        checkpoint: the state after step N.
        keep: how many of the newest checkpoints stay, with the best weights that belong to them.

    Raises:
        MetaprimeError: the checkpoint cannot be written; older ones stay whole.

    Example: `save_checkpoint(folder, checkpoint, keep=2)`
    """
    _write(folder / f"step-{checkpoint.step:08d}", checkpoint)
    for old in _saved(folder, "step")[:-keep]:
        discard(old)
    # A checkpoint needs the last best weights up to its step.
    bests = _saved(folder, "best")
    needed = [[best for best in bests if _step(best) <= _step(kept)][-1:] for kept in _saved(folder, "step")]
    for best in bests:
        if [best] not in needed:
            discard(best)


def save_best(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes `folder/best-N`; older best weights stay until no checkpoint needs them.

    Example: `save_best(folder, checkpoint)`
    """
    _write(folder / f"best-{checkpoint.step:08d}", checkpoint)


def load_best(folder: Path, step: int) -> Checkpoint:
    """Reads the best weights that were found at a step: `load_best(folder, 150).tensors`.

    Raises:
        MetaprimeError: the weights are missing or damaged.
    """
    return load_checkpoint(folder / f"best-{step:08d}")


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Returns the newest intact checkpoint with intact best weights; None if there is none at all.

    Damaged checkpoints are skipped with a warning: `newest_checkpoint(folder)`.

    Raises:
        MetaprimeError: every checkpoint is damaged, or one may not be read.
    """
    for place in (folder, *_saved(folder, "best"), *_saved(folder, "step")):
        check_readable(place)
    damaged = []
    for place in reversed(_saved(folder, "step")):
        try:
            checkpoint = load_checkpoint(place)
            if best := checkpoint.state.get("best"):
                check_whole(folder / f"best-{best[1]:08d}")
        except MetaprimeError as error:
            damaged.append(str(error))
        else:
            for text in damaged:
                log.warning("%s; resuming from step %d instead", text, checkpoint.step)
            return checkpoint
    if damaged:
        raise MetaprimeError(
            "\n".join([*damaged, f"every checkpoint under {folder} is damaged: start over with --overwrite"])
        )
    return None


def forget_after(folder: Path, step: int) -> None:
    """Removes checkpoints and best weights of later steps, which a resumed run writes again.

    Example: `forget_after(folder, 100)`
    """
    for place in _saved(folder, "step") + _saved(folder, "best"):
        if _step(place) > step:
            discard(place)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads one checkpoint: `load_checkpoint(folder / "step-00000200").step`.

    Raises:
        MetaprimeError: the checkpoint is incomplete or damaged.
    """
    check_whole(folder)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return Checkpoint(state.pop("step"), load_file(folder / TENSORS), state)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {error}") from None


def check_whole(folder: Path) -> None:
    """Checks the files of a checkpoint against its manifest.

    Raises:
        MetaprimeError: a file is missing or its SHA-256 differs; the message names the file.

    Example: `check_whole(folder / "step-00000200")`
    """
    check_readable(folder)
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if _sha256(folder / name) != hashes[name]:
                raise MetaprimeError(
                    f"checkpoint {folder} is damaged: {name} has changed since it was written (SHA-256 differs)"
                )
    except FileNotFoundError as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {Path(error.filename).name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {MANIFEST} cannot be read ({error})") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> Params:
    """Returns the optimizer's state by `optimizer/SLOT/NAME`, to be kept in a checkpoint.

    Args:
        optimizer: the optimizer.
        names: `id` of each parameter -> its name.

    Example:
        optimizer_tensors(optimizer, {id(value): name for name, value in model.named_parameters()})
    """
    return {
        f"optimizer/{slot}/{names[id(parameter)]}": value
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: Params) -> None:
    """Replaces the optimizer's state by that of a checkpoint; the inverse of `optimizer_tensors`.

    Args:
        optimizer: the optimizer; its former state is dropped.
        names: `id` of each parameter -> its name.
        tensors: the checkpoint's. `optimizer/step/NAME` is () and stays on the CPU; other slots
            have the shape of their parameter, such as (D, C), and are moved to its device.

    Example:
        restore_optimizer(optimizer, names, load_checkpoint(folder).tensors)
    """
    parameters = {names[id(parameter)]: parameter for group in optimizer.param_groups for parameter in group["params"]}
    optimizer.state.clear()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/", 2)
            parameter = parameters[name]
            optimizer.state[parameter][slot] = value if slot == "step" else value.to(parameter.device)


def _write(place: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint with its manifest, atomically."""
    with written_aside(place) as aside:
        save_tensors(checkpoint.tensors, aside / TENSORS)
        write_json(aside / STATE, {"step": checkpoint.step, **checkpoint.state})
        write_json(aside / MANIFEST, {name: _sha256(aside / name) for name in (TENSORS, STATE)})


def _saved(folder: Path, kind: str) -> list[Path]:
    """Lists the folders `step-*` or `best-*`, in the order of steps."""
    return sorted(folder.glob(f"{kind}-*"))


def _step(place: Path) -> int:
    """Returns the step in a folder's name: 200 for `step-00000200`."""
    return int(place.name.partition("-")[2])


def _sha256(file: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
