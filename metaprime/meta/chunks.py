"""Decides which episodes share a pass, and the one cost model of a pass. Skip this file on a first reading.

A pass costs something before its first sub-word, so few large chunks are good. An episode of short
sentences that shares its passes with one of long sentences pays for their padding, so chunks of like
lengths are good. `chunks` finds the cheapest cut. Fine-tunings that are stacked use the same constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metaprime.meta.execution import attention_kernels
from metaprime.meta.learner import InnerLoop, MetaStep, Outcome, Way
from metaprime.types import Batch, Episodes, Loss, Params

PASS = 64
"""Cost of a meta-step's pass beside its sub-words, in sub-words: measured in benchmarks/notes.md."""

FROZEN_PASS = 32
"""The same of a fine-tuning pass, which computes no gradient of the backbone: benchmarks/many_transfers.py measures it."""

CPU_SUBWORDS = 1024
"""Sub-words of a pass beyond which a CPU gains nothing and loses its caches: measured in benchmarks/notes.md."""

GPU_SUBWORDS = 8192
"""Sub-words of a stacked fine-tuning pass elsewhere, which bounds memory."""


def cost_of_passes(passes: Sequence[int], fixed: int) -> int:
    """Returns the cost of passes in sub-words: `cost_of_passes([512, 512], PASS)` is 1152.

    Args:
        passes: padded sub-words of each pass.
        fixed: cost of a pass beside them: `PASS` or `FROZEN_PASS`.
    """
    return sum(passes) + fixed * len(passes)


def in_chunks(
    step: MetaStep, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop
) -> Outcome:
    """Carries out a meta-step chunk by chunk and adds the outcomes up.

    Memory holds one chunk's gradients and their sum so far, however many chunks there are. Arguments
    and result are those of `MetaStep`.
    """
    (places, first), *others = chunks(episodes, inner)
    with attention_kernels(inner, next(iter(episodes.query.values())).device):
        total = step(loss, backbone, take(start, places), first, inner)
        for places, chunk in others:
            total += step(loss, backbone, take(start, places), chunk, inner)
    return total


def chunks(episodes: Episodes, inner: InnerLoop) -> list[tuple[list[int], Episodes]]:
    """Returns each chunk's places among the episodes and its episodes, padded to the chunk's own longest windows."""
    return [(places, _chunk(episodes, places)) for places in _places(episodes, inner)]


def take(values: Params, places: Sequence[int]) -> Params:
    """Returns the values (T, ...) of some episodes; without a copy for neighbours and for values that all share."""
    first, last = places[0], places[-1] + 1
    if list(places) == list(range(first, last)):
        return {name: value[first:last] for name, value in values.items()}
    return {name: value[list(places)] if value.stride(0) else value[: len(places)] for name, value in values.items()}


def _places(episodes: Episodes, inner: InnerLoop) -> list[list[int]]:
    count, limits = len(episodes.indices), inner.execution
    most = 1 if limits.way is Way.LOOP else limits.chunk or count
    if limits.subwords is None or most == 1:
        return [list(range(first, min(first + most, count))) for first in range(0, count, most)]
    return _cheapest(_sizes(episodes), most, limits.subwords)


def _cheapest(sizes: list[list[int]], most: int, subwords: int) -> list[list[int]]:
    """Cuts the episodes, ordered by size, where the cost of all passes is least (dynamic programming).

    Args:
        sizes: padded sub-words of each episode's batches.
        most: episodes of a chunk at most.
        subwords: padded sub-words of a shared pass at most; an episode by itself may have more.
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
            spent, before = best[end - count]
            chunk = sorted(order[end - count : end])
            candidates.append((spent + cost_of_passes(passes, PASS), [*before, chunk]))
        best.append(min(candidates, key=lambda candidate: candidate[0]))
    return best[-1][1]


def _sizes(episodes: Episodes) -> list[list[int]]:
    """Returns the sub-words of each episode's batches, padded to the longest of each batch by itself."""
    # The first tensor of a batch is (T, B, ...); of text, the ids (T, B, L).
    tensors = [next(iter(batch.values())) for batch in (*episodes.support, episodes.query)]
    lengths = episodes.lengths or tuple((tensor.shape[-1],) * len(tensor) for tensor in tensors)
    windows = [tensor.shape[1] for tensor in tensors]
    return [
        [count * length for count, length in zip(windows, column, strict=True)] for column in zip(*lengths, strict=True)
    ]


def _chunk(episodes: Episodes, places: Sequence[int]) -> Episodes:
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
