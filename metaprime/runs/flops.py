"""What training costs: FLOPs, counted once in a run, and the sub-words of every step, by which the others are reckoned.

A FLOP is a multiplication or an addition of a matrix product, as `torch.utils.flop_counter` counts them; what works on each
number by itself (activations, norms, the optimizer) is left out, and so is whatever trains nothing: validation, scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def of_all(spent: Spent, accelerator: Accelerator) -> Spent:
    """The sum over processes, each of which has counted or none."""
    if accelerator.num_processes == 1:
        return spent
    mine = torch.tensor([spent.subwords, spent.flops or 0], device=accelerator.device)
    positions, flops = (int(number) for number in accelerator.reduce(mine, reduction="sum").tolist())
    return Spent(positions, None if spent.flops is None else flops)


def reckoned(steps: Sequence[Spent], first: int | None = None) -> float | None:
    """FLOPs of the steps, or of the first so many of them; None where none was counted.

    The first that was counted says what a sub-word costs. Those counted later, after a run was gone on with, do not: it
    then comes to what it would have come to unbroken.
    """
    for step in steps:
        if step.flops is not None and step.subwords:
            return step.flops * (sum(one.subwords for one in steps[:first]) / step.subwords)
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
