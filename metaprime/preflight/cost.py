"""What a priming run will take of time and memory, from some of its own meta-steps. Keeps nothing but an embedded encoder."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator

from metaprime.config.sections import Config
from metaprime.models.task_model import functional_loss
from metaprime.priming.memory import available
from metaprime.priming.outer import outer_step
from metaprime.priming.setup import Run, assemble
from metaprime.priming.starts import carry, rules_of
from metaprime.priming.step import adapted, drawn, subwords_processed

LOOKED_AT = 100
"""Meta-steps whose episodes are drawn, evenly over the run."""

TIMED, LEAST, ENOUGH_S = 9, 3, 10.0
"""Of these, so many of middling size are timed, or as few as that once it has taken so many seconds."""

MIB = 2**20
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Estimate:
    """A run's needs.

    Attributes:
        device: what it was found out on.
        steps: meta-steps of the run.
        seconds_per_step: in the mean over the run, validation apart.
        subwords_per_step: likewise, padding included; `largest` of a single one.
        peak_mib: the most memory of the process: on a CPU all that is resident, on a GPU what torch's tensors take.
        limit_mib: what it may take on this machine as it is now.
    """

    device: str
    steps: int
    seconds_per_step: float
    subwords_per_step: float
    largest: int
    peak_mib: float
    limit_mib: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        minutes = self.steps * self.seconds_per_step / 60
        return [
            f"device: {self.device}",
            f"a meta-step: {self.seconds_per_step:.3f} seconds, {self.subwords_per_step:.0f} sub-words "
            f"(the largest: {self.largest})",
            f"all {self.steps}: {minutes:.1f} minutes, validation apart",
            f"peak memory: {self.peak_mib:.0f} MiB of {self.limit_mib:.0f} that it may take",
        ]


def estimate(config: Config) -> Estimate:
    """Draws the episodes of many of the run's meta-steps, then takes the largest of these and some of middling size.

    Raises:
        MetaprimeError: as `prime`, for config, data and encoder.
    """
    torch.set_num_threads(config.run.threads)
    accelerator = Accelerator()
    run = assemble(config, accelerator)
    limit = (available(accelerator) / MIB) + _taken(accelerator)
    steps = sorted({place * config.outer.steps // LOOKED_AT for place in range(LOOKED_AT)})
    sizes = {step: _subwords(run, step) for step in steps}
    by_size = sorted(steps, key=lambda step: sizes[step])
    middle = len(by_size) // 2
    middling = by_size[max(0, middle - TIMED // 2) :][:TIMED]
    _take(run, by_size[-1])  # the most memory, and whatever is done once
    each: list[float] = []
    began = time.perf_counter()
    for step in middling:
        if len(each) < LEAST or time.perf_counter() - began < ENOUGH_S:
            each.append(_take(run, step) / sizes[step])
    mean = statistics.fmean(sizes.values())
    return Estimate(
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        steps=config.outer.steps,
        seconds_per_step=statistics.median(each) * mean,
        subwords_per_step=mean,
        largest=sizes[by_size[-1]],
        peak_mib=_peak(accelerator),
        limit_mib=limit,
    )


def _subwords(run: Run, step: int) -> int:
    """Of all episodes of one meta-step, as one process would go about them."""
    return subwords_processed(run, drawn(run, step, range(run.config.episodes.per_step)))


def _take(run: Run, step: int) -> float:
    """One whole meta-step, outer step and all, of a model that is thrown away; its seconds."""
    loss = functional_loss(run.model, run.task.measure)
    began = time.perf_counter()
    outcome, _ = adapted(run, loss, step)
    outer_step(run.outer, step, outcome, run.episodes.languages_of(step))
    carry(run.model, outcome, rules_of(run.config))
    if run.accelerator.device.type == "cuda":
        torch.cuda.synchronize(run.accelerator.device)
    return time.perf_counter() - began


def _peak(accelerator: Accelerator) -> float:
    """MiB."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device) / MIB
    if STATUS.is_file():  # the process's own: the kernel's other count goes over from the one that started it
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _taken(accelerator: Accelerator) -> float:
    """MiB now."""
    if accelerator.device.type == "cuda":
        return torch.cuda.memory_allocated(accelerator.device) / MIB
    return psutil.Process().memory_info().rss / MIB


def _status(key: str) -> float:
    """An amount of memory in Linux' account of this process, MiB."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1024
