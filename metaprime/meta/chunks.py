"""Decides which episodes share a pass, by the cost model of a pass. Skip this on a first reading.

    cost = PASS + positions        of one pass, in sub-words

Positions are the real sub-words of packed windows, and include padding otherwise. The fixed cost
favours few large chunks. Padded, an episode of short sentences that shares a pass with one of long
sentences pays for padding, which favours chunks of similar lengths. `chunks` finds the cheapest cut.
Stacked fine-tuning (`transfers/stacked.py`) uses the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metaprime.meta.execution import attention_kernels
from metaprime.meta.learner import Execution, InnerLoop, MetaStep, Outcome, Way
from metaprime.types import Batch, Episodes, Loss, Params

PASS = 32
"""Fixed cost of one pass, in sub-words: measured by benchmarks/passes.py."""

CPU_SUBWORDS = 1024
"""Sub-words of a pass beyond which a CPU gains nothing, and takes memory: measured by
benchmarks/passes.py."""

GPU_SUBWORDS = 8192
"""Largest number of sub-words of a stacked fine-tuning pass on a GPU, which bounds memory."""


@dataclass(frozen=True)
class PassSize:
    """Size of a batch that goes through the encoder in one pass.

    Attributes:
        windows: number of windows.
        longest: sub-words of the longest window.
        real: sub-words of all windows.
    """

    windows: int
    longest: int
    real: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> PassSize:
        """Returns the size of a batch of windows by their sub-words: `PassSize.of([7, 12]).real` is 19."""
        return cls(len(lengths), max(lengths), sum(lengths))

    @classmethod
    def shared(cls, sizes: Sequence[PassSize]) -> PassSize:
        """Returns the size of a pass that batches share: `PassSize.shared([first, second])`."""
        windows = len(sizes) * max(size.windows for size in sizes)
        return cls(windows, max(size.longest for size in sizes), sum(size.real for size in sizes))

    def positions(self, packed: bool) -> int:
        """Returns the positions that the encoder works on: `size.positions(packed=True)`."""
        return self.real if packed else self.windows * self.longest


def cost_of_passes(passes: Sequence[int]) -> int:
    """Returns the cost of passes in sub-words: `cost_of_passes([512, 512])` is 1088.

    Args:
        passes: positions of each pass.
    """
    return sum(passes) + PASS * len(passes)


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
    return _cheapest(_sizes(episodes), most, limits)


def _cheapest(sizes: list[list[PassSize]], most: int, limits: Execution) -> list[list[int]]:
    """Returns the cheapest cut of the episodes, ordered by size, found by dynamic programming.

    Args:
        sizes: sizes of each episode's batches.
        most: largest number of episodes in a chunk.
        limits: its `subwords` limits the positions of a shared pass; one episode may have more.
    """
    packed, subwords = limits.packs, limits.subwords or 0
    order = sorted(range(len(sizes)), key=lambda place: sum(size.positions(packed) for size in sizes[place]))
    # best[k]: cost and chunks of the first k episodes in that order.
    best: list[tuple[int, list[list[int]]]] = [(0, [])]
    for end in range(1, len(sizes) + 1):
        candidates = []
        for count in range(1, min(most, end) + 1):
            together = zip(*(sizes[place] for place in order[end - count : end]), strict=True)
            passes = [PassSize.shared(batches).positions(packed) for batches in together]
            if count > 1 and max(passes) > subwords:
                # A larger chunk would exceed the limit too.
                break
            cost, before = best[end - count]
            chunk = sorted(order[end - count : end])
            candidates.append((cost + cost_of_passes(passes), [*before, chunk]))
        best.append(min(candidates, key=lambda candidate: candidate[0]))
    return best[-1][1]


def _sizes(episodes: Episodes) -> list[list[PassSize]]:
    """Returns the sizes of each episode's batches."""
    # The first tensor of a batch is (T, B, ...); for text, the ids (T, B, L).
    tensors = [next(iter(batch.values())) for batch in (*episodes.support, episodes.query)]
    lengths = episodes.lengths or tuple((tensor.shape[-1],) * len(tensor) for tensor in tensors)
    windows = [tensor.shape[1] for tensor in tensors]
    real = episodes.subwords or tuple(
        tuple(count * length for length in row) for count, row in zip(windows, lengths, strict=True)
    )
    # By batch, then by episode.
    sizes = [
        [PassSize(count, *pair) for pair in zip(*rows, strict=True)]
        for count, *rows in zip(windows, lengths, real, strict=True)
    ]
    return [list(column) for column in zip(*sizes, strict=True)]


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
        subwords=tuple(tuple(row[place] for place in places) for row in episodes.subwords),
    )
