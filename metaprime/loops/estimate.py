"""What a priming run will take of time and memory, from some of its own meta-steps. Keeps nothing but an embedded encoder."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.config import Config
from metaprime.loops.adapting import adapted
from metaprime.loops.assemble import Run, assemble
from metaprime.loops.carrying import carry, rules_of
from metaprime.loops.compute import subwords
from metaprime.loops.outer import outer_step
from metaprime.loops.room import available
from metaprime.meta.inner import at_a_time
from metaprime.models.primable import functional_loss
from metaprime.types import MetaBatch

LOOKED_AT, TIMED = 100, 3
"""Meta-steps whose episodes are drawn, evenly over the run; and those of middling size among them that are timed."""

MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """A run's needs.

    Attributes:
        device: what it was found out on.
        steps: meta-steps of the run.
        seconds_per_step: in the mean over the run, validation apart.
        subwords_per_step: likewise, padding included; `largest` of a single one.
        peak_mib: the most memory of the process: on a CPU all that is resident, on a GPU what torch's tensors take.
        free_mib: what else this machine could give.
        together: episodes adapted at a time, in a meta-step of middling size.
    """

    device: str
    steps: int
    seconds_per_step: float
    subwords_per_step: float
    largest: int
    peak_mib: float
    free_mib: float
    together: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        minutes = self.steps * self.seconds_per_step / 60
        return [
            f"device: {self.device}, {self.together} episodes at a time",
            f"a meta-step: {self.seconds_per_step:.3f} seconds, {self.subwords_per_step:.0f} sub-words "
            f"(the largest: {self.largest})",
            f"all {self.steps}: {minutes:.1f} minutes, validation apart",
            f"peak memory: {self.peak_mib:.0f} MiB; {self.free_mib:.0f} MiB are free beside it",
        ]


def estimate(config: Config) -> Estimate:
    """Draws the episodes of many of the run's meta-steps, then takes the largest of these and some of middling size.

    Raises:
        MetaprimeError: as `prime`, for config, data and encoder.
    """
    torch.set_num_threads(config.run.threads)
    accelerator = Accelerator()
    run = assemble(config, accelerator)
    steps = sorted({place * config.outer.steps // LOOKED_AT for place in range(LOOKED_AT)})
    batches = {step: _drawn(run, step) for step in steps}
    sizes = {step: subwords(*batch.support, batch.query) for step, batch in batches.items()}
    by_size = sorted(steps, key=lambda step: sizes[step])
    middle = len(by_size) // 2
    middling = by_size[max(0, middle - TIMED // 2) :][:TIMED]
    _take(run, by_size[-1])  # the most memory, and whatever is done once
    each = [_take(run, step) / sizes[step] for step in middling]
    mean = statistics.fmean(sizes.values())
    return Estimate(
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        steps=config.outer.steps,
        seconds_per_step=statistics.median(each) * mean,
        subwords_per_step=mean,
        largest=sizes[by_size[-1]],
        peak_mib=_peak(accelerator),
        free_mib=available(accelerator) / MIB,
        together=min(at_a_time(batches[middling[0]], run.settings), len(batches[middling[0]].indices)),
    )


def _drawn(run: Run, step: int) -> MetaBatch:
    return run.episodes.meta_batch(step, range(run.config.episodes.per_step), run.task.collate, run.task.corrupt)


def _take(run: Run, step: int) -> float:
    """One whole meta-step, outer step and all, of a model that is thrown away; its seconds."""
    loss = functional_loss(run.model, run.task.measure)
    began = time.perf_counter()
    outcome, _ = adapted(run, loss, step)
    outer_step(run.outer, step, outcome, run.episodes.languages_of(step))
    carry(run.model, outcome, rules_of(run.config))
    return time.perf_counter() - began  # the outer step has asked for a number: the device is done


def _peak(accelerator: Accelerator) -> float:
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device) / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
