"""Measures the memory of a piece of work by torch's own accounts, which no allocator of the system blurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from timing import Work
from torch.profiler import ProfilerActivity, profile


def peak_allocated(work: Work) -> float:
    """Returns the most that torch allocates at a time on the CPU, in MiB, above what is allocated before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum([0, *changes]).max()) / 2**20


class Saved:
    """Bytes that autograd keeps for backward passes, each storage counted once.

    Attributes:
        now: bytes at the moment.
        peak: the most bytes so far.
    """

    def __init__(self, without: Iterable[torch.Tensor]) -> None:
        self.now, self.peak = 0, 0
        self._without = {tensor.untyped_storage().data_ptr() for tensor in without}
        self._kept: Counter[int] = Counter()

    def change(self, tensor: torch.Tensor, count: int) -> None:
        """Counts a saved tensor (...,), or with -1 the end of one."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._without:
            return
        before = self._kept[place]
        self._kept[place] += count
        self.now += storage.nbytes() * (bool(self._kept[place]) - bool(before))
        self.peak = max(self.peak, self.now)


class Kept:
    """A saved tensor, for as long as a graph needs it."""

    def __init__(self, tensor: torch.Tensor, saved: Saved) -> None:
        self.tensor, self._saved = tensor, saved
        saved.change(tensor, 1)

    def __del__(self) -> None:
        self._saved.change(self.tensor, -1)


def peak_saved(work: Work, without: Iterable[torch.Tensor] = ()) -> float:
    """Returns the most that autograd keeps at a time for backward passes, in MiB.

    Args:
        work: is called once.
        without: tensors (...,) that do not count, such as weights.

    Example: `peak_saved(step, problem.backbone.values())`
    """
    saved = Saved(without)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: Kept(tensor, saved), lambda kept: kept.tensor):
        work()
    return saved.peak / 2**20
