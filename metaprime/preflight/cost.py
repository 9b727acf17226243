"""Estimates what a priming run will take of time and memory, from some of its own meta-steps; keeps only an embedded encoder."""

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
from metaprime.priming.memory import available
from metaprime.priming.setup import Run, set_up
from metaprime.priming.step import draw, draw_some, subwords_processed, sum_over_processes

LOOKED_AT = 100
"""Meta-steps whose episodes are drawn, evenly over the run."""

TIMED, LEAST_TIMED, ENOUGH_S = 9, 3, 10.0
"""Up to 9 median-size meta-steps are timed; timing stops after 10 s once 3 are."""

MIB = 2**20
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Estimate:
    """A run's needs.

    Attributes:
        device: it was measured on.
        steps: meta-steps of the run.
        seconds_per_step: mean over the run, without validation.
        subwords_per_step: mean over the run, padding included.
        largest: sub-words of the largest meta-step.
        peak_mib: peak memory of the process: on a CPU all that is resident, on a GPU torch's tensors.
        limit_mib: memory that it may take on this machine now.
    """

    device: str
    steps: int
    seconds_per_step: float
    subwords_per_step: float
    largest: int
    peak_mib: float
    limit_mib: float

    def as_json(self) -> dict[str, Any]:
        """Returns the estimate as `--json` prints it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns the estimate as human-readable lines."""
        minutes = self.steps * self.seconds_per_step / 60
        return [
            f"device: {self.device}",
            f"a meta-step: {self.seconds_per_step:.3f} seconds, {self.subwords_per_step:.0f} sub-words "
            f"(the largest: {self.largest})",
            f"all {self.steps}: {minutes:.1f} minutes, validation apart",
            f"peak memory: {self.peak_mib:.0f} MiB of {self.limit_mib:.0f} that it may take",
        ]


def estimate(config: Config) -> Estimate:
    """Estimates time and memory of `prime`: draws the episodes of many meta-steps, runs the largest and some of median size.

    Args:
        config: the run's.

    Returns:
        The run's needs on this machine.

    Raises:
        MetaprimeError: as `prime`, for config, data and encoder.

    Example:
        >>> metaprime.estimate(config).steps
        2
    """
    torch.set_num_threads(config.run.threads)
    accelerator = Accelerator()
    run = set_up(config, accelerator)
    limit = (available(accelerator) / MIB) + _taken(accelerator)
    steps = sorted({place * config.outer.steps // LOOKED_AT for place in range(LOOKED_AT)})
    sizes = {step: _subwords(run, step) for step in steps}
    by_size = sorted(steps, key=lambda step: sizes[step])
    middle = len(by_size) // 2
    middling = by_size[max(0, middle - TIMED // 2) :][:TIMED]
    # The most memory, and whatever is done once.
    _take(run, by_size[-1])
    each: list[float] = []
    began = time.perf_counter()
    for step in middling:
        if len(each) < LEAST_TIMED or time.perf_counter() - began < ENOUGH_S:
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
    """Returns the sub-words of all episodes of one meta-step, as one process would carry them out."""
    return subwords_processed(run, draw_some(run, step, range(run.sampler.shape.episodes)))


def _take(run: Run, step: int) -> float:
    """Takes one whole meta-step of a model that is thrown away, outer step included; returns its seconds."""
    began = time.perf_counter()
    episodes = draw(run, step)
    start = run.starts.values(step, episodes.indices)
    outcome = run.learner.step(run.loss, run.state.backbone, start, episodes, run.inner)
    outcome = sum_over_processes(outcome, run.accelerator)
    run.outer.step(step, outcome.gradients, run.sampler.languages_of(step), halvings=0)
    run.starts.carry(outcome)
    if run.accelerator.device.type == "cuda":
        torch.cuda.synchronize(run.accelerator.device)
    return time.perf_counter() - began


def _peak(accelerator: Accelerator) -> float:
    """Returns the peak memory so far in MiB."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device) / MIB
    # The process's own: the kernel's other count includes that of the process that started it.
    if STATUS.is_file():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _taken(accelerator: Accelerator) -> float:
    """Returns the memory in use in MiB."""
    if accelerator.device.type == "cuda":
        return torch.cuda.memory_allocated(accelerator.device) / MIB
    return psutil.Process().memory_info().rss / MIB


def _status(key: str) -> float:
    """Returns an amount of memory in MiB from Linux' account of this process."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1024
