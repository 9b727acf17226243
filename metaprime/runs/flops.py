"""Counts the FLOPs of one training step and estimates those of the others from their sub-words.

A FLOP is a multiplication or an addition of a matrix product, as `torch.utils.flop_counter` counts
them. Element-wise operations (activations, norms, the optimizer) are left out, and so are
validation and scoring, which train nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class Spent(NamedTuple):
    """Cost of one training step.

    Attributes:
        subwords: positions that pass through the encoder, padding included where batches are padded.
        flops: FLOPs; None: not counted.
    """

    subwords: int
    flops: int | None

    def over_processes(self, accelerator: Accelerator) -> Spent:
        """Returns the sum over processes, which count FLOPs all or not at all.

        Example: `spent.over_processes(accelerator)`
        """
        if accelerator.num_processes == 1:
            return self
        cost = torch.tensor([self.subwords, self.flops or 0], device=accelerator.device)
        subwords, flops = (int(number) for number in accelerator.reduce(cost, reduction="sum").tolist())
        return Spent(subwords, None if self.flops is None else flops)


@dataclass
class FlopMeter:
    """A switch that counts the FLOPs of a function's next call; a wrapper that readers may skip.

    Attributes:
        due: whether the next call is counted.
        flops: FLOPs of the last call; None: not counted.
    """

    due: bool = False
    flops: int | None = None

    def count_next(self) -> None:
        """Marks the next call to be counted: `meter.count_next()`."""
        self.due = True

    def watch(
        self, work: Callable[Arguments, Returned], plain: Callable[Arguments, Returned]
    ) -> Callable[Arguments, Returned]:
        """Returns a function that calls `work` and counts its FLOPs when due.

        Args:
            work: the function; compiled, it cannot be counted.
            plain: the same function uncompiled, which is then called as well and counted; or `work`
                itself.

        Example:
            step = meter.watch(torch.compile(step), step)
        """

        def watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            if not self.due:
                self.flops = None
                return work(*args, **kwargs)
            returned, self.flops = counted(True, plain, *args, **kwargs)
            self.due = False
            return returned if plain is work else work(*args, **kwargs)

        return watched


def counted(
    wanted: bool, work: Callable[Arguments, Returned], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> tuple[Returned, int | None]:
    """Calls a function and, if wanted, counts its FLOPs.

    Counting takes time but changes no bit of the result.

    Returns:
        The result of `work(*args, **kwargs)`, and its FLOPs or None.

    Example: `loss, flops = counted(True, step, batch)`
    """
    if not wanted:
        return work(*args, **kwargs), None
    counter = FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU)
    counter.mod_tracker = _NoHooks()
    with counter:
        returned = work(*args, **kwargs)
    return returned, counter.get_total_flops()


class _NoHooks(ModuleTracker):
    """A tracker without hooks: they make `torch.autograd.grad` fail if a module's input is a leaf."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def estimated_flops(steps: Sequence[Spent], first: int | None = None) -> float | None:
    """Estimates the FLOPs of some steps from the one that was counted.

    The first counted step gives the FLOPs per sub-word. Later counts, after a resume, are ignored,
    so that a resumed run reports the same FLOPs as an unbroken one.

    Args:
        steps: cost of every step.
        first: estimate the first so many steps; None: all.

    Returns:
        FLOPs; None if no step was counted.

    Example:
        estimated_flops([Spent(10, 500), Spent(20, None)])  # 1500.0
    """
    for counted_step in steps:
        if counted_step.flops is not None and counted_step.subwords:
            return counted_step.flops * (sum(step.subwords for step in steps[:first]) / counted_step.subwords)
    return None


def _fused_forward(query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
    """Returns the FLOPs of attention: scores and their product with the values.

    Two products per head; the shapes are (B, H, L, D) of the query and (B, H, S, D) of the key.
    """
    batch, heads, length, width = query
    return 2 * 2 * batch * heads * length * key[2] * width


def _fused_backward(gradient: Sequence[int], query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
    """Returns the FLOPs of the backward pass: the scores again and four gradients, all products alike."""
    return 5 * _fused_forward(query, key) // 2


FUSED_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_backward,
}
"""Formulas that torch's counter lacks, of attention kernels; each takes shapes, not tensors."""
