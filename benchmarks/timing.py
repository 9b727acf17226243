"""Times contenders in turn, in one process, so that slow spells of the machine cancel in ratios."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from metaprime.runs.provenance import versions

Work = Callable[[], Any]


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles over rounds, such as of seconds or ratios."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def ties_with(self, value: float) -> bool:
        """Returns True if the value lies within the quartiles."""
        return self.low <= value <= self.high


def quartiles(values: Any) -> Quartiles:
    """Returns median and quartiles of m values: `quartiles([1.0, 2.0, 4.0]).middle` is 2.0."""
    return Quartiles(*(float(value) for value in np.percentile(values, (25, 50, 75))))


def in_turn(works: Mapping[str, Work], rounds: int, seconds: float = 0.2) -> dict[str, list[float]]:
    """Measures the seconds of each function in each round, after one call to warm up.

    Args:
        works: name -> function.
        rounds: number of rounds.
        seconds: a shorter function is repeated for about so many seconds per round, and the mean
            taken.

    Returns:
        Name -> seconds of each round.
    """
    took: dict[str, list[float]] = {name: [] for name in works}
    often = {}
    for name, work in works.items():
        often[name] = max(1, int(seconds / seconds_of(work)))
    for _ in range(rounds):
        for name, work in works.items():
            took[name].append(seconds_of(work, often[name]))
    return took


def seconds_of(work: Work, often: int = 1) -> float:
    """Returns the mean seconds of some calls, until the GPU, if there is one, has finished."""
    _wait()
    began = time.perf_counter()
    for _ in range(often):
        work()
    _wait()
    return (time.perf_counter() - began) / often


def _wait() -> None:
    """Waits until the GPU, if there is one, has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str) -> dict[str, Any]:
    """Returns the device, processors, threads and versions that the measurements depend on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def without_folders(word: str) -> str:
    """Shortens an absolute path in a word of the command line: `data.source=conll:/a/b` becomes `data.source=conll:b`."""
    return re.sub(r"(?<![^=:])/(?:[^/]*/)*(?=[^/])", "", word)


def _processor() -> str:
    """Returns the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
