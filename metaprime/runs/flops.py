"""What training costs: FLOPs, counted once in a run, and the sub-words of every step, by which the others are reckoned.

A FLOP is a multiplication or an addition of a matrix product, as `torch.utils.flop_counter` counts them; what works on each
number by itself (activations, norms, the optimizer) is left out, and so is whatever trains nothing: validation, scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from metaprime.types import Batch

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Spent(NamedTuple):
    """One step's padded sub-words through the encoder, and its FLOPs if they were counted."""

    subwords: int
    flops: int | None

    def over_processes(self, accelerator: Accelerator) -> Spent:
        """Returns the sum over processes, each of which has counted or none."""
        if accelerator.num_processes == 1:
            return self
        mine = torch.tensor([self.subwords, self.flops or 0], device=accelerator.device)
        positions, flops = (int(number) for number in accelerator.reduce(mine, reduction="sum").tolist())
        return Spent(positions, None if self.flops is None else flops)


@dataclass
class FlopMeter:
    """Counts the FLOPs of the next call of a function, when asked to; a wrapper made in setup, which readers may skip.

    Attributes:
        due: whether the next call is counted.
        flops: of the last call, if it was counted.
    """

    due: bool = False
    flops: int | None = None

    def count_next(self) -> None:
        """Counts the next call."""
        self.due = True

    def watch(self, work: Callable[Given, Found], plain: Callable[Given, Found]) -> Callable[Given, Found]:
        """Returns `work` with its FLOPs counted when due; `plain` is counted in its place if it is another function.

        A compiled function cannot be counted: what it was compiled from is run beside it.
        """

        def watched(*args: Given.args, **kwargs: Given.kwargs) -> Found:
            if not self.due:
                self.flops = None
                return work(*args, **kwargs)
            found, self.flops = counted(True, plain, *args, **kwargs)
            self.due = False
            return found if plain is work else work(*args, **kwargs)

        return watched


def counted(
    wanted: bool, work: Callable[Given, Found], *given: Given.args, **named: Given.kwargs
) -> tuple[Found, int | None]:
    """What `work(*given, **named)` returns and, if wanted, its FLOPs. Counting changes no bit of it, but takes time."""
    if not wanted:
        return work(*given, **named), None
    counter = FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU)
    counter.mod_tracker = _NoHooks()
    with counter:
        found = work(*given, **named)
    return found, counter.get_total_flops()


class _NoHooks(ModuleTracker):
    """In place of the counter's sums by module: `torch.autograd.grad` refuses its hooks where a module is given a leaf."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def subwords(*batches: Batch) -> int:
    """Positions, padding included, of batches (..., B, L): what the encoder works on."""
    return sum(batch["input_ids"].numel() for batch in batches)


def estimated_flops(steps: Sequence[Spent], first: int | None = None) -> float | None:
    """Estimates the FLOPs of some steps from the one that was counted.

    The first counted step says what a sub-word costs. Later counts, after a resume, are ignored, so that
    a resumed run reports the same FLOPs as an unbroken one.

    Args:
        steps: sub-words of every step, and FLOPs of at least one.
        first: how many of the steps; None: all.

    Returns:
        FLOPs; None where none was counted.
    """
    for step in steps:
        if step.flops is not None and step.subwords:
            return step.flops * (sum(each.subwords for each in steps[:first]) / step.subwords)
    return None


def _fused_forward(query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
    """Scores and their mean of the values: two products of B x H times (L, D) and (D, L')."""
    batch, heads, length, width = query
    return 2 * 2 * batch * heads * length * key[2] * width


def _fused_backward(gradient: Sequence[int], query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
    """The scores once more, and the gradients of scores, values, queries and keys: five such products."""
    return 5 * _fused_forward(query, key) // 2


FUSED_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_backward,
}
"""Attention kernels that torch's counter has no formula for; each is given shapes in place of tensors."""
