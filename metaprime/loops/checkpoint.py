"""Checkpoints: the newest few states of a run, each whole or not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from metaprime.files import save_tensors, write_json, written_aside
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
