"""Checkpoints: the newest few states of a run and the best weights so far, each whole or not there, each with its hashes.

state/step-00000200/   tensors.safetensors, state.json, manifest.json: SHA-256 of the other two
state/best-00000150/   the same, of the weights that scored best up to there: the best of every checkpoint from step
                       150 on, up to the next best
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

from metaprime.files import discard, save_tensors, write_json, written_aside
from metaprime.types import MetaprimeError, Params

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Meta-steps done, all tensors by name (weights and `optimizer/...`), and what else `state.json` says."""

    step: int
    tensors: Params
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Writes `folder/step-N`; removes all but the newest `keep`, and the best weights that none of these need."""
    _write(folder / f"step-{checkpoint.step:08d}", checkpoint)
    for old in _found(folder, "step")[:-keep]:
        discard(old)
    bests = _found(folder, "best")
    needed = [[best for best in bests if _step(best) <= _step(kept)][-1:] for kept in _found(folder, "step")]
    for best in bests:
        if [best] not in needed:
            discard(best)


def save_best(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes `folder/best-N`. Older ones stay until no checkpoint needs them."""
    _write(folder / f"best-{checkpoint.step:08d}", checkpoint)


def load_best(folder: Path, step: int) -> Checkpoint:
    """The weights that were best at a step.

    Raises:
        MetaprimeError: they are damaged.
    """
    return load_checkpoint(folder / f"best-{step:08d}")


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `folder` whose best weights are whole too, or None where there is none at all.

    A damaged one is passed over with a notice.

    Raises:
        MetaprimeError: there are some, but none is whole.
    """
    damaged = []
    for place in reversed(_found(folder, "step")):
        try:
            checkpoint = load_checkpoint(place)
            if best := checkpoint.state.get("best"):
                check_whole(folder / f"best-{best[1]:08d}")
        except MetaprimeError as error:
            damaged.append(str(error))
        else:
            for text in damaged:
                log.warning("%s; going on from step %d instead", text, checkpoint.step)
            return checkpoint
    if damaged:
        raise MetaprimeError(
            "\n".join([*damaged, f"no checkpoint under {folder} is whole: start anew with --overwrite"])
        )
    return None


def forget_after(folder: Path, step: int) -> None:
    """Removes checkpoints and best weights of later steps: a run that goes on from here will write them again."""
    for place in _found(folder, "step") + _found(folder, "best"):
        if _step(place) > step:
            discard(place)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        MetaprimeError: it is damaged.
    """
    check_whole(folder)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return Checkpoint(state.pop("step"), load_file(folder / TENSORS), state)
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {error}") from None


def check_whole(folder: Path) -> None:
    """Compares the files with their hashes.

    Raises:
        MetaprimeError: naming the file that is missing or not as it was written.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if _sha256(folder / name) != hashes[name]:
                raise MetaprimeError(
                    f"checkpoint {folder} is damaged: {name} is not as it was written (SHA-256 differs)"
                )
    except FileNotFoundError as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {Path(error.filename).name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"checkpoint {folder} is damaged: {MANIFEST} cannot be read ({error})") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> Params:
    """The optimizer's per-parameter state under `optimizer/<slot>/<parameter name>`; `names` by `id` of the parameter."""
    return {
        f"optimizer/{slot}/{names[id(parameter)]}": value
        for parameter, slots in optimizer.state.items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: Params) -> None:
    """The inverse of `optimizer_tensors`: what the optimizer knew before is forgotten."""
    parameters = {names[id(parameter)]: parameter for group in optimizer.param_groups for parameter in group["params"]}
    optimizer.state.clear()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/", 2)
            parameter = parameters[name]
            optimizer.state[parameter][slot] = value if slot == "step" else value.to(parameter.device)


def _write(place: Path, checkpoint: Checkpoint) -> None:
    with written_aside(place) as aside:
        save_tensors(checkpoint.tensors, aside / TENSORS)
        write_json(aside / STATE, {"step": checkpoint.step, **checkpoint.state})
        write_json(aside / MANIFEST, {name: _sha256(aside / name) for name in (TENSORS, STATE)})


def _found(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*"))


def _step(place: Path) -> int:
    return int(place.name.partition("-")[2])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
