"""How many episodes a device has room for at once: from what one of the longest leaves behind for its backward pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from metaprime.data.episodes import EpisodeShape
from metaprime.data.rows import Row, to_device
from metaprime.meta import InnerLoop, MetaStep, Way
from metaprime.meta.chunks import CPU_SUBWORDS
from metaprime.tasks.task import Task
from metaprime.types import Episodes, Loss, Params, State

SHARE = 0.8
"""Of the memory that is free, what is counted on: allocators keep some for themselves."""


CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, what is taken, and what of that are files, in version 2 and in version 1."""

log = logging.getLogger(__name__)


def available(accelerator: Accelerator) -> int:
    """Bytes that this process may still take."""
    device = accelerator.device
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = int(psutil.virtual_memory().available)
    for limit, used, stat, cached in CGROUP_FILES:  # a container's limit is often lower than the machine's
        try:
            most, taken = (int((CGROUP / name).read_text()) for name in (limit, used))
            lines = dict(line.split() for line in (CGROUP / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue  # no such limit here: no file, or "max"
        free = min(free, most - taken + int(lines.get(cached, 0)))  # files that were read are given up for the asking
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def longest_episode(
    task: Task, pools: Mapping[str, Sequence[Row]], shape: EpisodeShape, steps: int, device: torch.device
) -> Episodes:
    """The most that an episode of so many inner steps can come to; without any, with its largest batch as the query."""

    def batch(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return {name: tensor[None] for name, tensor in to_device(task.collate(rows), device).items()}

    def length(row: Row) -> int:
        return sum(len(window.input_ids) for window in row.windows)

    rows = sorted((row for pool in pools.values() for row in pool), key=length, reverse=True)
    support = (batch(rows[: shape.support]),) * steps
    return Episodes(("",), (0,), 1, support, batch(rows[: shape.query if steps else max(shape.query, shape.support)]))


def bytes_of(values: Params) -> int:
    return sum(value.numel() * value.element_size() for value in values.values())


def activation_bytes(
    meta_step: MetaStep, loss: Loss, state: State, start: Params, batch: Episodes, inner: InnerLoop
) -> int:
    """Bytes that one episode's passes leave for the backward pass, weights apart, and what a learner that moves theta copies.

    Without inner steps one and two of the query's windows tell for all: they are padded alike, so that each leaves the same.
    """
    weights = {value.untyped_storage().data_ptr() for value in (*state.backbone.values(), *start.values())}
    # Rates are no values of the model, and there are some for all n steps.
    begun = {name: value for name, value in start.items() if not name.startswith("rates.")}
    outer = tuple(group for group in inner.outer if group != "rates")

    def left(batch: Episodes) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            meta_step(loss, state.backbone, begun, batch, replace(inner.executed(way=Way.LOOP), outer=outer))
        return sum(seen.values())

    windows = batch.query["labels"].shape[1]
    if batch.support or windows == 1:
        total = left(batch)
    else:
        one, two = (
            left(replace(batch, query={name: value[:, :count] for name, value in batch.query.items()}))
            for count in (1, 2)
        )
        total = one + (windows - 1) * (two - one)
    return total + (bytes_of(state.backbone) * (2 + len(batch.support)) if "backbone" in inner.moves else 0)


def fitted(inner: InnerLoop, each: int, learned: int, episodes: int, accelerator: Accelerator) -> InnerLoop:
    """The inner with as many episodes at a time as there is room for, with a notice if that is not all, and on a CPU as pay.

    Args:
        each: bytes of one episode (`activation_bytes`).
        learned: bytes of all that the outer step moves: AdamW keeps two more of it, a gradient and a sum of them another two.
        episodes: T.
    """
    room = max(1, int((SHARE * available(accelerator) - 4 * learned) // max(1, each)))
    if room < episodes and accelerator.is_main_process:
        log.warning(
            "inner.task_chunk: auto: memory has room for %d of %d episodes at a time (%d MiB each, of the longest sentences)",
            *(room, episodes, each // 2**20),
        )
    on_cpu = accelerator.device.type == "cpu"
    return inner.executed(chunk=room if room < episodes else None, subwords=CPU_SUBWORDS if on_cpu else None)
