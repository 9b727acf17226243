"""Limits the episodes of a pass to the free memory, given what the longest episode needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from metaprime.data.episodes import EpisodeShape
from metaprime.data.rows import Row, to_device
from metaprime.meta import InnerLoop, MetaStep, Outcome, Way
from metaprime.meta.chunks import CPU_SUBWORDS
from metaprime.tasks import Task
from metaprime.types import Episodes, Loss, Params

SHARE_OF_MEMORY = 0.8
"""Share of the free memory that is used; the rest is left to allocators."""

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
"""Files of limit, memory in use and statistics, and key of the file cache: cgroup v2, then v1."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A meta-step that is run before priming, to test or to measure it, without learned rates.

    Attributes:
        step: the learner's step, uncompiled.
        loss: `loss(backbone, fast, batch)`, a scalar () in nats.
        backbone: theta, each tensor in its parameter's shape, such as (D, D).
        start: phi and head of T episodes, each tensor with a leading T: (T, ...).
    """

    step: MetaStep
    loss: Loss
    backbone: Params
    start: Params

    def run(self, episodes: Episodes, inner: InnerLoop) -> Outcome:
        """Runs the meta-step without learned rates, which would fix the number of inner steps.

        Args:
            episodes: tensors (T, B, L), with any number of inner steps.
            inner: what moves, and how.
        """
        start = {name: value for name, value in self.start.items() if not name.startswith("rates.")}
        outer = tuple(group for group in inner.outer if group != "rates")
        return self.step(self.loss, self.backbone, start, episodes, replace(inner, outer=outer))


def available(accelerator: Accelerator) -> int:
    """Returns the bytes of memory that this process can still allocate on its device."""
    device = accelerator.device
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    # The limit of a container is often lower than the machine's memory.
    limits = [left for names in CGROUP_FILES if (left := _left_in_cgroup(names)) is not None]
    free = min([int(psutil.virtual_memory().available), *limits])
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_cgroup(names: Sequence[str]) -> int | None:
    """Returns the bytes left below a container's limit; None without a limit (no file or `max`)."""
    limit, used, stat, cached = names
    try:
        most, taken = (int((CGROUP / name).read_text()) for name in (limit, used))
        lines = dict(line.split() for line in (CGROUP / stat).read_text().splitlines())
    except (OSError, ValueError):
        return None
    # The kernel frees file cache on demand.
    return most - taken + int(lines.get(cached, 0))


def longest_episode(
    task: Task, pools: Mapping[str, Sequence[Row]], shape: EpisodeShape, steps: int, device: torch.device
) -> Episodes:
    """Returns the largest episode that can be drawn, made of the longest rows of all languages.

    Args:
        task: collates the rows.
        pools: language -> rows.
        shape: numbers of support and query sentences.
        steps: inner steps; with 0, the query holds as many rows as the larger of the two batches.
        device: device of the tensors.

    Returns:
        One episode, tensors (1, B, L).
    """

    def batch(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return {name: tensor[None] for name, tensor in to_device(task.trial_batch(rows), device).items()}

    def length(row: Row) -> int:
        return sum(len(window.input_ids) for window in row.windows)

    rows = sorted((row for pool in pools.values() for row in pool), key=length, reverse=True)
    support = (batch(rows[: shape.support]),) * steps
    return Episodes(("",), (0,), 1, support, batch(rows[: shape.query if steps else max(shape.query, shape.support)]))


def bytes_of(values: Params) -> int:
    """Returns the size of tensors in bytes.

    Args:
        values: tensors of any shape (...,) by name.

    Example: `bytes_of({"head.bias": torch.zeros(3)})` is 12.
    """
    return sum(value.numel() * value.element_size() for value in values.values())


def activation_bytes(trial: Trial, episode: Episodes, inner: InnerLoop) -> int:
    """Measures the bytes that one episode saves for the backward pass, weights not included.

    Copies of theta that a learner makes are included. Without inner steps the total is extrapolated
    from one and two windows of the query: all have the same padded length and save the same.

    Args:
        trial: the meta-step, with phi and head (1, ...).
        episode: one episode, tensors (1, B, L), such as `longest_episode(...)`.
        inner: what moves, and how.
    """
    windows = episode.query["labels"].shape[1]
    if episode.support or windows == 1:
        total = _bytes_left(trial, episode, inner)
    else:
        one_window, two_windows = (
            _bytes_left(trial, replace(episode, query={n: v[:, :count] for n, v in episode.query.items()}), inner)
            for count in (1, 2)
        )
        total = one_window + (windows - 1) * (two_windows - one_window)
    return total + (bytes_of(trial.backbone) * (2 + len(episode.support)) if "backbone" in inner.moves else 0)


def _bytes_left(trial: Trial, episode: Episodes, inner: InnerLoop) -> int:
    """Returns the bytes that autograd saves while one episode runs, each storage counted once."""
    weights = {value.untyped_storage().data_ptr() for value in (*trial.backbone.values(), *trial.start.values())}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trial.run(episode, inner.executed(way=Way.LOOP))
    return sum(seen.values())


def fit_to_memory(inner: InnerLoop, each: int, learned: int, episodes: int, accelerator: Accelerator) -> InnerLoop:
    """Returns the inner loop with as many episodes per pass as fit into memory and save time.

    A limit below `episodes` is logged.

    Args:
        inner: the inner loop of the config.
        each: bytes of one episode, as `activation_bytes` measures them.
        learned: bytes of all parameters that the outer step moves; two moments, a gradient and a
            sum of gradients take four times as much.
        episodes: T, the episodes of a meta-step.
        accelerator: names the device.
    """
    room = max(1, int((SHARE_OF_MEMORY * available(accelerator) - 4 * learned) // max(1, each)))
    if room < episodes and accelerator.is_main_process:
        log.warning(
            "inner.task_chunk: auto: memory has room for %d of %d episodes at a time (%d MiB each, of the longest sentences)",
            *(room, episodes, each // 2**20),
        )
    on_cpu = accelerator.device.type == "cpu"
    return inner.executed(chunk=room if room < episodes else None, subwords=CPU_SUBWORDS if on_cpu else None)
