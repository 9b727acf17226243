"""How many episodes a device has room for at once: from what one of the longest leaves behind for its backward pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from metaprime.data.episodes import EpisodeShape
from metaprime.loops.finetune import to_device
from metaprime.meta import MetaStep, Settings
from metaprime.tasks.task import Task
from metaprime.types import Loss, MetaBatch, Params, Row, State

SHARE = 0.8
"""Of the memory that is free, what is counted on: allocators keep some for themselves."""

CPU_SUBWORDS = 1024
"""Sub-words of a pass beyond which a CPU gains nothing by more of them, and loses its caches: see benchmarks/notes.md."""

CGROUP = Path("/sys/fs/cgroup")


def available(accelerator: Accelerator) -> int:
    """Bytes that this process may still take."""
    device = accelerator.device
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = int(psutil.virtual_memory().available)
    try:  # a container's limit is often lower than the machine's
        limit, used = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        free = min(free, int(limit) - int(used)) if limit != "max" else free
    except (OSError, ValueError):
        pass  # no such limit here
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def longest_episode(
    task: Task, pools: Mapping[str, Sequence[Row]], shape: EpisodeShape, steps: int, device: torch.device
) -> MetaBatch:
    """The most that an episode of so many inner steps can come to; without any, with its largest batch as the query."""

    def batch(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return {name: tensor[None] for name, tensor in to_device(task.collate(rows), device).items()}

    def length(row: Row) -> int:
        return sum(len(window.input_ids) for window in row.windows)

    rows = sorted((row for pool in pools.values() for row in pool), key=length, reverse=True)
    support = (batch(rows[: shape.support]),) * steps
    return MetaBatch(("",), (0,), 1, support, batch(rows[: shape.query if steps else max(shape.query, shape.support)]))


def bytes_of(values: Params) -> int:
    return sum(value.numel() * value.element_size() for value in values.values())


def kept_for_backward(
    meta_step: MetaStep, loss: Loss, state: State, start: Params, batch: MetaBatch, settings: Settings
) -> int:
    """Bytes that one episode's passes leave for the backward pass, weights apart, and what a learner that moves theta copies."""
    seen: dict[int, int] = {}
    weights = {value.untyped_storage().data_ptr() for value in state.backbone.values()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = {
        name: value for name, value in start.items() if not name.startswith("rates.")
    }  # numbers, and of all n steps
    outer = tuple(group for group in settings.outer if group != "rates")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        meta_step(loss, state.backbone, start, batch, replace(settings, batched=False, outer=outer))
    own = bytes_of(state.backbone) * (2 + len(batch.support)) if "backbone" in settings.inner else 0
    return sum(seen.values()) + own


def fitted(settings: Settings, each: int, learned: int, accelerator: Accelerator) -> Settings:
    """The settings with as many episodes at a time as there is room for, and on a CPU as gain anything.

    Args:
        each: bytes of one episode (`kept_for_backward`).
        learned: bytes of all that the outer step moves: AdamW keeps two more of it, a gradient and a sum of them another two.
    """
    room = SHARE * available(accelerator) - 4 * learned
    on_cpu = accelerator.device.type == "cpu"
    return replace(settings, chunk=max(1, int(room // max(1, each))), subwords=CPU_SUBWORDS if on_cpu else None)
