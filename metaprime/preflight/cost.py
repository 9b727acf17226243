"""Estimates time and memory of a priming run from some of its meta-steps.

Nothing is saved but an embedded encoder.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator

from metaprime.build.kind import kinds_of
from metaprime.config.sections import Config
from metaprime.priming.memory import available
from metaprime.priming.setup import Run, set_up
from metaprime.priming.step import draw, draw_some, subwords_processed, sum_over_processes

LOOKED_AT = 100
"""Number of meta-steps whose size is measured, evenly spaced over the run."""

TIMED, LEAST_TIMED, ENOUGH_S = 9, 3, 10.0
"""Up to 9 median-size meta-steps are timed; timing stops after 10 s once 3 are."""

MIB = 2**20
"""Bytes of a MiB."""

STATUS = Path("/proc/self/status")
"""Linux's file about this process, with its peak memory."""


@dataclass(frozen=True)
class Estimate:
    """Estimated time and memory of a priming run.

    Attributes:
        device: device of the measurements.
        steps: number of meta-steps.
        seconds_per_step: mean seconds of a meta-step, validation excluded.
        subwords_per_step: mean sub-words of a meta-step, padding included.
        largest: sub-words of the largest meta-step.
        peak_mib: peak memory in MiB: of the process on a CPU, of torch's tensors on a GPU.
        limit_mib: memory in MiB that the run may use on this machine now.
        rates: rates of the inner and the outer loop.
        remarks: sentences about rates that may do harm.
    """

    device: str
    steps: int
    seconds_per_step: float
    subwords_per_step: float
    largest: int
    peak_mib: float
    limit_mib: float
    rates: dict[str, float | None] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the estimate as `--json` prints it."""
        return {**asdict(self), "remarks": list(self.remarks)}

    def lines(self) -> list[str]:
        """Returns the estimate as human-readable lines."""
        minutes = self.steps * self.seconds_per_step / 60
        return [
            f"device: {self.device}",
            f"a meta-step: {self.seconds_per_step:.3f} seconds, {self.subwords_per_step:.0f} sub-words "
            f"(the largest: {self.largest})",
            f"all {self.steps}: {minutes:.1f} minutes, validation excluded",
            f"peak memory: {self.peak_mib:.0f} MiB of {self.limit_mib:.0f} MiB available",
            "rates: " + ", ".join(f"{key} {rate:g}" for key, rate in self.rates.items() if rate is not None),
            *self.remarks,
        ]


def estimate(config: Config) -> Estimate:
    """Estimates time and memory of a priming run; measures many meta-steps and runs few of them.

    Args:
        config: config of the run.

    Returns:
        Time and memory on this machine.

    Raises:
        MetaprimeError: config, data or encoder cannot be used for priming.

    Example:
        >>> metaprime.estimate(config).steps
        2
    """
    torch.set_num_threads(config.run.threads)
    kinds = kinds_of(config.encoder, config.transfer)
    remarks, config = config.remarks_on_rates(*kinds), config.at_rates(*kinds)
    accelerator = Accelerator()
    run = set_up(config, accelerator)
    limit = (available(accelerator) / MIB) + _taken(accelerator)

    # Sub-words of meta-steps that are spread over the run.
    steps = sorted({part * config.outer.steps // LOOKED_AT for part in range(LOOKED_AT)})
    sizes = {step: _subwords(run, step) for step in steps}
    by_size = sorted(steps, key=lambda step: sizes[step])
    middle = len(by_size) // 2
    median_steps = by_size[max(0, middle - TIMED // 2) :][:TIMED]

    # The largest one reaches the peak memory, and does the work of a first step.
    _take(run, by_size[-1])

    # Seconds per sub-word of those near the median.
    rates: list[float] = []
    began = time.perf_counter()
    for step in median_steps:
        if len(rates) < LEAST_TIMED or time.perf_counter() - began < ENOUGH_S:
            rates.append(_take(run, step) / sizes[step])
    mean = statistics.fmean(sizes.values())
    return Estimate(
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        steps=config.outer.steps,
        seconds_per_step=statistics.median(rates) * mean,
        subwords_per_step=mean,
        largest=sizes[by_size[-1]],
        peak_mib=_peak(accelerator),
        limit_mib=limit,
        rates={
            "inner.lr": config.inner.lr,
            "outer.lr": config.outer.lr,
            "outer.adapter_lr": config.outer.adapter_lr,
            "outer.head_lr": config.outer.head_lr,
        },
        remarks=tuple(remarks),
    )


def _subwords(run: Run, step: int) -> int:
    """Returns the sub-words of all episodes of one meta-step, as one process runs them."""
    return subwords_processed(run, draw_some(run, step, range(run.sampler.shape.episodes)))


def _take(run: Run, step: int) -> float:
    """Runs one meta-step with its outer step, on a model that is discarded, and returns its seconds."""
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
    # `ru_maxrss` includes the peak of the process that started this one; VmHWM does not.
    if STATUS.is_file():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _taken(accelerator: Accelerator) -> float:
    """Returns the memory in use in MiB."""
    if accelerator.device.type == "cuda":
        return torch.cuda.memory_allocated(accelerator.device) / MIB
    return psutil.Process().memory_info().rss / MIB


def _status(key: str) -> float:
    """Returns an amount of memory in MiB from STATUS."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1024
