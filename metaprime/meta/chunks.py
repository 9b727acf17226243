"""Which of a meta-batch's episodes are adapted together: one part after another, each padded only to its own longest windows.

A pass costs something before its first sub-word, so that few large parts are good; an episode of short sentences that shares its
passes with one of long ones works through their padding, so that parts of like lengths are. The parts are those with the least
of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from metaprime.meta.execution import attention_kernels
from metaprime.meta.learner import Outcome, Settings, plus
from metaprime.types import Batch, Episodes, Loss, Params

PASS = 64
"""Sub-words that a pass, forward and backward, takes the time of before its first: see benchmarks/notes.md."""


def parts(batch: Episodes, settings: Settings) -> list[tuple[list[int], Episodes]]:
    """The episodes' places in `batch` and the part that they make up, whose tensors are as long as its own lengths."""
    return [(places, _part(batch, places)) for places in _places(batch, settings)]


def cut(values: Params, places: Sequence[int]) -> Params:
    """The values of some episodes; neighbours', and those that are the same for all, without a copy."""
    first, last = places[0], places[-1] + 1
    if list(places) == list(range(first, last)):
        return {name: value[first:last] for name, value in values.items()}
    return {name: value[list(places)] if value.stride(0) else value[: len(places)] for name, value in values.items()}


def _places(batch: Episodes, settings: Settings) -> list[list[int]]:
    episodes = len(batch.indices)
    most = settings.chunk or episodes if settings.batched else 1
    if settings.subwords is None or most == 1:
        return [list(range(first, min(first + most, episodes))) for first in range(0, episodes, most)]
    sizes = _sizes(batch)
    order = sorted(range(episodes), key=lambda place: sum(sizes[place]))
    # Of the first 0, 1, 2 ... episodes in that order: what they take, and their parts.
    best: list[tuple[int, list[list[int]]]] = [(0, [])]
    for end in range(1, episodes + 1):
        found = []
        longest = sizes[order[end - 1]]
        for count in range(1, min(most, end) + 1):
            longest = list(map(max, longest, sizes[order[end - count]]))
            passes = [count * size for size in longest]
            if count > 1 and max(passes) > settings.subwords:
                break  # with more it would be more still
            taken, before = best[end - count]
            part = sorted(order[end - count : end])
            found.append((taken + sum(passes) + PASS * len(passes), [*before, part]))
        best.append(min(found, key=lambda one: one[0]))
    return best[-1][1]


def _sizes(batch: Episodes) -> list[list[int]]:
    """Sub-words of each episode's batches, padded to the longest of each batch by itself."""
    tensors = [one["labels"] for one in (*batch.support, batch.query)]
    lengths = batch.lengths or tuple((labels.shape[-1],) * len(labels) for labels in tensors)
    sentences = [labels.shape[1] for labels in tensors]
    return [
        [count * own for count, own in zip(sentences, column, strict=True)] for column in zip(*lengths, strict=True)
    ]


def _part(batch: Episodes, places: Sequence[int]) -> Episodes:
    lengths = tuple(tuple(row[place] for place in places) for row in batch.lengths)
    longest: list[int] | list[None] = [max(row) for row in lengths] or [None] * (len(batch.support) + 1)

    def trimmed(tensors: Batch, length: int | None) -> Batch:
        return {
            name: value[..., :length] if value.dim() == 3 else value for name, value in cut(tensors, places).items()
        }

    return replace(
        batch,
        languages=tuple(batch.languages[place] for place in places),
        indices=tuple(batch.indices[place] for place in places),
        support=tuple(trimmed(tensors, length) for tensors, length in zip(batch.support, longest[:-1], strict=True)),
        query=trimmed(batch.query, longest[-1]),
        lengths=lengths,
    )


ChunkStep: TypeAlias = Callable[[Loss, Params, Params, Episodes, Settings], Outcome]


def in_chunks(
    step: ChunkStep, loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings
) -> Outcome:
    """A meta-step carried out on as many episodes at a time as the settings say, and added up: memory holds one part's gradients
    and their sum so far, however many parts there are.
    """
    (places, first), *others = parts(batch, settings)
    with attention_kernels(settings, batch.query["labels"].device):
        total = step(loss, backbone, cut(start, places), first, settings)
        for places, part in others:
            total = plus(total, step(loss, backbone, cut(start, places), part, settings))
    return total


CPU_SUBWORDS = 1024
"""Sub-words of a pass beyond which a CPU gains nothing by more of them, and loses its caches: see benchmarks/notes.md."""


GPU_SUBWORDS = 8192
"""Of a pass elsewhere, for the sake of memory."""
