"""Decides which episodes share a pass, by the cost model of a pass. Skip this on a first reading.

Every pass has a fixed cost, which favours few large chunks. An episode of short sentences that
shares a pass with one of long sentences pays for padding, which favours chunks of similar lengths.
`chunks` finds the cheapest cut. Stacked fine-tuning (`transfers/stacked.py`) uses the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metaprime.meta.execution import attention_kernels
from metaprime.meta.learner import InnerLoop, MetaStep, Outcome, Way
from metaprime.types import Batch, Episodes, Loss, Params

PASS = 64
"""Fixed cost of one pass of a meta-step, in sub-words: measured in benchmarks/notes.md."""

FROZEN_PASS = 32
"""Fixed cost of one fine-tuning pass with a frozen backbone, in sub-words: measured by
benchmarks/many_transfers.py."""

CPU_SUBWORDS = 1024
"""Sub-words of a pass beyond which a CPU gains nothing and overflows its caches: measured in
benchmarks/notes.md."""

GPU_SUBWORDS = 8192
"""Largest number of sub-words of a stacked fine-tuning pass on a GPU, which bounds memory."""


def cost_of_passes(passes: Sequence[int], fixed: int) -> int:
    """Returns the cost of passes in sub-words: `cost_of_passes([512, 512], PASS)` is 1152.

    Args:
        passes: padded sub-words of each pass.
        fixed: fixed cost of one pass in sub-words: `PASS` or `FROZEN_PASS`.
    """
    return sum(passes) + fixed * len(passes)


def in_chunks(
    step: MetaStep, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop
) -> Outcome:
    """Runs a meta-step chunk by chunk and adds up: `in_chunks(outer_gradient, loss, ...)`.

    Memory holds one chunk's gradients and their sum so far, however many chunks there are.

    Args:
        step: meta-step of the episodes of one chunk.
        loss, backbone, inner: as in `MetaStep`.
        start: phi and head, each (T, ...).
        episodes: T episodes; every tensor is (T, B, ...).

    Returns:
        The sum of the chunks' outcomes: that of the meta-batch.
    """
    (places, first), *others = chunks(episodes, inner)
    with attention_kernels(inner, next(iter(episodes.query.values())).device):
        total = step(loss, backbone, take(start, places), first, inner)
        for places, chunk in others:
            total += step(loss, backbone, take(start, places), chunk, inner)
    return total


def chunks(episodes: Episodes, inner: InnerLoop) -> list[tuple[list[int], Episodes]]:
    """Cuts a meta-batch into chunks of episodes that share a pass.

    Args:
        episodes: T episodes; every tensor is (T, B, ...).
        inner: its `execution` limits a chunk's size.

    Returns:
        For each chunk the places of its episodes, and these episodes, padded to their longest
        windows.
    """
    return [(places, _chunk(episodes, places)) for places in _places(episodes, inner)]


def take(values: Params, places: Sequence[int]) -> Params:
    """Returns the values of some episodes: `take({"head.b": b_TC}, [0, 2])` holds `b_TC[[0, 2]]`.

    Neighbouring episodes and values that all episodes share are not copied.

    Args:
        values: tensors (T, ...).
        places: increasing numbers of episodes, N of them.

    Returns:
        Tensors (N, ...).
    """
    first, last = places[0], places[-1] + 1
    if list(places) == list(range(first, last)):
        return {name: value[first:last] for name, value in values.items()}
    return {name: value[list(places)] if value.stride(0) else value[: len(places)] for name, value in values.items()}


def _places(episodes: Episodes, inner: InnerLoop) -> list[list[int]]:
    """Returns the places of each chunk's episodes: the cheapest cut if sub-words are limited."""
    count, limits = len(episodes.indices), inner.execution
    most = 1 if limits.way is Way.LOOP else limits.chunk or count
    if limits.subwords is None or most == 1:
        return [list(range(first, min(first + most, count))) for first in range(0, count, most)]
    return _cheapest(_sizes(episodes), most, limits.subwords)


def _cheapest(sizes: list[list[int]], most: int, subwords: int) -> list[list[int]]:
    """Returns the cheapest cut of the episodes, ordered by size, found by dynamic programming.

    Args:
        sizes: padded sub-words of each episode's batches.
        most: largest number of episodes in a chunk.
        subwords: largest number of padded sub-words in a shared pass; one episode may have more.
    """
    order = sorted(range(len(sizes)), key=lambda place: sum(sizes[place]))
    # best[k]: cost and chunks of the first k episodes in that order.
    best: list[tuple[int, list[list[int]]]] = [(0, [])]
    for end in range(1, len(sizes) + 1):
        candidates = []
        longest = sizes[order[end - 1]]
        for count in range(1, min(most, end) + 1):
            longest = list(map(max, longest, sizes[order[end - count]]))
            passes = [count * size for size in longest]
            if count > 1 and max(passes) > subwords:
                # A larger chunk would exceed the limit too.
                break
            cost, before = best[end - count]
            chunk = sorted(order[end - count : end])
            candidates.append((cost + cost_of_passes(passes, PASS), [*before, chunk]))
        best.append(min(candidates, key=lambda candidate: candidate[0]))
    return best[-1][1]


def _sizes(episodes: Episodes) -> list[list[int]]:
    """Returns the sub-words of each episode's batches, each padded to its own longest window."""
    # The first tensor of a batch is (T, B, ...); for text, the ids (T, B, L).
    tensors = [next(iter(batch.values())) for batch in (*episodes.support, episodes.query)]
    lengths = episodes.lengths or tuple((tensor.shape[-1],) * len(tensor) for tensor in tensors)
    windows = [tensor.shape[1] for tensor in tensors]
    return [
        [count * length for count, length in zip(windows, column, strict=True)] for column in zip(*lengths, strict=True)
    ]


def _chunk(episodes: Episodes, places: Sequence[int]) -> Episodes:
    """Returns some of the episodes, padded to their own longest windows."""
    lengths = tuple(tuple(row[place] for place in places) for row in episodes.lengths)
    longest: list[int] | list[None] = [max(row) for row in lengths] or [None] * (len(episodes.support) + 1)

    def trimmed(batch: Batch, length: int | None) -> Batch:
        return {name: value[..., :length] if value.dim() == 3 else value for name, value in take(batch, places).items()}

    return replace(
        episodes,
        languages=tuple(episodes.languages[place] for place in places),
        indices=tuple(episodes.indices[place] for place in places),
        support=tuple(trimmed(batch, length) for batch, length in zip(episodes.support, longest[:-1], strict=True)),
        query=trimmed(episodes.query, longest[-1]),
        lengths=lengths,
    )
