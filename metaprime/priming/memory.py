"""Fits a meta-step to the memory at hand: how many episodes at once, from what a longest one leaves for its backward pass."""

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
"""Share of the free memory that is counted on: allocators keep some for themselves."""

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
"""Limit, memory in use, and how much of that is file cache, in version 2 and in version 1."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A meta-step that is tried out before the run: its loss and values. Learned rates stay out of it.

    Attributes:
        step: the learner's, uncompiled.
        loss: of the task over the model.
        backbone: theta.
        start: phi and head of T episodes.
    """

    step: MetaStep
    loss: Loss
    backbone: Params
    start: Params

    def run(self, episodes: Episodes, inner: InnerLoop) -> Outcome:
        """Runs the meta-step on T episodes of any number of inner steps, whereas there are rates for just n of them."""
        start = {name: value for name, value in self.start.items() if not name.startswith("rates.")}
        outer = tuple(group for group in inner.outer if group != "rates")
        return self.step(self.loss, self.backbone, start, episodes, replace(inner, outer=outer))


def available(accelerator: Accelerator) -> int:
    """Returns the bytes that this process may still take."""
    device = accelerator.device
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    # A container's limit is often lower than the machine's.
    limits = [left for names in CGROUP_FILES if (left := _left_in_cgroup(names)) is not None]
    free = min([int(psutil.virtual_memory().available), *limits])
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_cgroup(names: Sequence[str]) -> int | None:
    """Returns the bytes left below a container's limit; None where there is no such limit: no file, or `max`."""
    limit, used, stat, cached = names
    try:
        most, taken = (int((CGROUP / name).read_text()) for name in (limit, used))
        lines = dict(line.split() for line in (CGROUP / stat).read_text().splitlines())
    except (OSError, ValueError):
        return None
    # File cache is given up on demand.
    return most - taken + int(lines.get(cached, 0))


def longest_episode(
    task: Task, pools: Mapping[str, Sequence[Row]], shape: EpisodeShape, steps: int, device: torch.device
) -> Episodes:
    """Returns the most that an episode can come to: the longest rows of all languages.

    Args:
        task: collates.
        pools: rows by language.
        shape: sentences of support and query.
        steps: inner steps; without any, the largest batch is the query.
        device: of the tensors.

    Returns:
        One episode, T = 1.
    """

    def batch(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return {name: tensor[None] for name, tensor in to_device(task.collate(rows), device).items()}

    def length(row: Row) -> int:
        return sum(len(window.input_ids) for window in row.windows)

    rows = sorted((row for pool in pools.values() for row in pool), key=length, reverse=True)
    support = (batch(rows[: shape.support]),) * steps
    return Episodes(("",), (0,), 1, support, batch(rows[: shape.query if steps else max(shape.query, shape.support)]))


def bytes_of(values: Params) -> int:
    """Returns the bytes that tensors take."""
    return sum(value.numel() * value.element_size() for value in values.values())


def activation_bytes(trial: Trial, episode: Episodes, inner: InnerLoop) -> int:
    """Measures the bytes that one episode's passes leave for the backward pass, weights apart.

    Copies of theta that a learner makes are counted too. Without inner steps one and two of the query's
    windows are enough: all are padded alike, so that each leaves the same.

    Args:
        trial: the meta-step, with values of one episode.
        episode: T = 1.
        inner: what moves.
    """
    windows = episode.query["labels"].shape[1]
    if episode.support or windows == 1:
        total = _bytes_left(trial, episode, inner)
    else:
        one, two = (
            _bytes_left(trial, replace(episode, query={n: v[:, :count] for n, v in episode.query.items()}), inner)
            for count in (1, 2)
        )
        total = one + (windows - 1) * (two - one)
    return total + (bytes_of(trial.backbone) * (2 + len(episode.support)) if "backbone" in inner.moves else 0)


def _bytes_left(trial: Trial, episode: Episodes, inner: InnerLoop) -> int:
    """Runs one episode and adds up what autograd saves of it, each storage once."""
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
    """Limits the episodes of a pass to those that memory has room for and, on a CPU, to those that save time.

    A notice says so if these are not all.

    Args:
        inner: the inner loop as asked for.
        each: bytes of one episode (`activation_bytes`).
        learned: bytes of all that the outer step moves. AdamW keeps two more of it, a gradient and a sum of
            gradients take another two.
        episodes: T of the meta-step.
        accelerator: this process.
    """
    room = max(1, int((SHARE_OF_MEMORY * available(accelerator) - 4 * learned) // max(1, each)))
    if room < episodes and accelerator.is_main_process:
        log.warning(
            "inner.task_chunk: auto: memory has room for %d of %d episodes at a time (%d MiB each, of the longest sentences)",
            *(room, episodes, each // 2**20),
        )
    on_cpu = accelerator.device.type == "cpu"
    return inner.executed(chunk=room if room < episodes else None, subwords=CPU_SUBWORDS if on_cpu else None)
