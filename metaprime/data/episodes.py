"""Which sentences make up an episode: a pure function of (seed, meta-step, episode index).

An episode is one language's support (one batch of B sentences for each inner step) and query (one batch), drawn without
replacement from that language's pool and without letting equal texts stand on both sides. Which sentences are support is
drawn; which of them share an inner step is not: they are put together by length, so that little of a batch is padding.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metaprime.data.rows import Row, blank
from metaprime.rng import stream, torch_stream
from metaprime.types import Batch, Episodes, MetaprimeError


@dataclass(frozen=True)
class EpisodeShape:
    """How many of what.

    Attributes:
        episodes: T, episodes per meta-step, over all processes.
        support: sentences per inner step.
        steps: inner steps; each has its own support batch.
        query: sentences of the query batch.
        tau: a language is drawn with probability proportional to size^tau; 0 is uniform, 1 is by size.
        same: every inner step has the same support batch.
        bands: a meta-step draws the sentences of all its episodes from one of so many equal parts of their languages, by length.
    """

    episodes: int
    support: int
    steps: int
    query: int
    tau: float
    same: bool = False
    bands: int = 1

    @property
    def batches(self) -> int:
        """Different support batches of one episode."""
        return min(1, self.steps) if self.same else self.steps

    @property
    def sentences(self) -> int:
        """Sentences one episode takes."""
        return self.support * self.batches + self.query


class EpisodeSampler:
    """Draws the meta-batches of a run from per-language pools of rows."""

    def __init__(self, pools: Mapping[str, Sequence[Row]], shape: EpisodeShape, seed: int) -> None:
        """Groups equal texts (NFKC, case-folded): a group serves an episode by one sentence only.

        Raises:
            MetaprimeError: there is no language, or one holds fewer different sentences than one episode takes.
        """
        if not pools:
            raise MetaprimeError("data.languages is empty: name at least one language to draw episodes from")
        self.shape, self.seed = shape, seed
        self.languages = tuple(sorted(pools))  # the order in the config must not change what is drawn
        self.pools = {language: _groups(pools[language]) for language in self.languages}
        if shape.bands > 1:
            self.pools = {
                language: sorted(groups, key=lambda group: _longest(group[0]))
                for language, groups in self.pools.items()
            }
        for language, groups in self.pools.items():
            least = len(groups) // shape.bands
            if shape.bands > 1 and least < shape.sentences:
                raise MetaprimeError(
                    f"language {language!r} has {least} different sentences in the smallest of {shape.bands} length bands, one "
                    f"episode takes {shape.sentences}: lower episodes.length_bands, or leave the language out of data.languages"
                )
            if len(groups) < shape.sentences:
                steps = "1 (inner.support: same)" if shape.same else f"inner.steps {shape.steps}"
                raise MetaprimeError(
                    f"language {language!r} has {len(groups)} different sentences, one episode takes {shape.sentences} "
                    f"(support {shape.support} x {steps} + query {shape.query}): lower "
                    "episodes.support, episodes.query or inner.steps, or leave the language out of data.languages"
                )
        sizes = np.array([len(pools[language]) for language in self.languages], dtype=np.float64) ** shape.tau
        self.weights = sizes / sizes.sum()

    def languages_of(self, step: int) -> list[str]:
        """The languages of all T episodes of a meta-step, whichever process holds them."""
        return [self._language(step, index)[0] for index in range(self.shape.episodes)]

    def draw(self, step: int, index: int) -> tuple[str, list[Row]]:
        """Language and rows of one episode: support of inner step 0, of step 1, ..., then query."""
        language, draw = self._language(step, index)
        groups = self._band(language, step)
        chosen = draw.choice(len(groups), size=self.shape.sentences, replace=False)
        rows = [groups[g][int(draw.integers(len(groups[g])))] for g in chosen]
        return language, [*self._by_length(rows[: -self.shape.query], step), *rows[-self.shape.query :]]

    def _band(self, language: str, step: int) -> Sequence[Sequence[Row]]:
        """The part of a language that a meta-step draws from, each as often as the others: so every sentence is drawn as often
        as without, but in the company of those of like length.
        """
        groups, bands = self.pools[language], self.shape.bands
        if bands == 1:
            return groups
        place = int(stream(self.seed, "length band", step).integers(bands))
        return groups[place * len(groups) // bands : (place + 1) * len(groups) // bands]

    def _by_length(self, support: list[Row], step: int) -> list[Row]:
        """Support sentences of like length next to each other, the inner steps in an order that a meta-step's episodes share:
        each inner step then pads its T batches to much the same length, and none always has the long ones.
        """
        size, steps = self.shape.support, self.shape.batches
        rows = sorted(support, key=_longest)
        order = stream(self.seed, "support order", step).permutation(steps)
        return [row for place in order for row in rows[place * size : (place + 1) * size]]

    def _language(self, step: int, index: int) -> tuple[str, np.random.Generator]:
        draw = stream(self.seed, "episode", step, index)
        return self.languages[int(draw.choice(len(self.languages), p=self.weights))], draw

    def meta_batch(
        self,
        step: int,
        indices: Sequence[int],
        collate: Callable[[Sequence[Row]], Batch],
        corrupt: Callable[[Sequence[Row], torch.Generator], list[Row]] | None = None,
    ) -> Episodes:
        """The episodes `indices` of one meta-step, stacked; `corrupt` changes the rows of an episode by a draw of its own,
        `collate` pads B windows to the longest.

        Each inner step's batches are padded to the longest window, and to the largest number of windows, among these
        episodes at that step.
        """
        drawn = [self.draw(step, index) for index in indices]
        if corrupt:
            draws = [torch_stream(self.seed, "corrupt", step, index) for index in indices]
            drawn = [(name, corrupt(rows, draw)) for (name, rows), draw in zip(drawn, draws, strict=True)]
        size, split = self.shape.support, self.shape.support * self.shape.batches
        repeats = self.shape.steps if self.shape.same else 1

        def batch(start: int, stop: int) -> Batch:
            return stacked([rows[start:stop] for _, rows in drawn], collate)

        def lengths(start: int, stop: int) -> tuple[int, ...]:
            return tuple(max(map(_longest, rows[start:stop])) for _, rows in drawn)

        firsts = range(0, split, size)
        return Episodes(
            languages=tuple(language for language, _ in drawn),
            indices=tuple(indices),
            total=self.shape.episodes,
            support=tuple(batch(start, start + size) for start in firsts) * repeats,
            query=batch(split, split + self.shape.query),
            lengths=(*(lengths(start, start + size) for start in firsts),) * repeats
            + (lengths(split, split + self.shape.query),),
        )


def stacked(parts: Sequence[Sequence[Row]], collate: Callable[[Sequence[Row]], Batch]) -> Batch:
    """One batch for each part, as one: (T, B, L), padded to the longest window and to the largest number of windows."""
    counts = [sum(len(row.windows) for row in part) for part in parts]
    filled = [[*part, blank(part[0], max(counts) - count)] for part, count in zip(parts, counts, strict=True)]
    flat = collate([row for part in filled for row in part])
    return {name: tensor.view(len(parts), max(counts), -1) for name, tensor in flat.items()}


def _longest(row: Row) -> int:
    """Sub-words of its longest window."""
    return max(len(window.input_ids) for window in row.windows)


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(same_text(row.example.words), []).append(row)
    return list(groups.values())


def same_text(words: Sequence[str]) -> str:
    """What two sentences have in common that count as one: NFKC, case folded."""
    return unicodedata.normalize("NFKC", " ".join(words)).casefold()


def sample(rows: Sequence[Row], count: int, seed: int, language: str) -> list[Row]:
    """K sentences for a K-shot transfer. The same (seed, language) nests: the first 10 of 30 are the 10.

    Raises:
        MetaprimeError: there are fewer than `count`.
    """
    if len(rows) < count:
        raise MetaprimeError(
            f"language {language!r} has {len(rows)} training sentences, transfer.shots asks for {count}: lower it"
        )
    order = stream(seed, "shots", language).permutation(len(rows))[:count]
    return [rows[int(index)] for index in order]
