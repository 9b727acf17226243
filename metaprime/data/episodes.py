"""Draws episodes: a pure function of (seed, meta-step, episode index).

An episode is one language's support (one batch of B sentences for each inner step) and query (one
batch), drawn without replacement from that language's pool; no text occurs twice in it. Support
sentences are grouped into inner steps by length, not at random, which saves padding. Where a task's
examples have classes, support and query each have all classes of the language in its proportion.

Shape suffixes: T episodes, B windows, L sub-words.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metaprime.data.rows import Example, Row, all_subwords, blank, longest_window
from metaprime.data.strata import grouped, places
from metaprime.rng import stream, torch_stream
from metaprime.types import Batch, Episodes, MetaprimeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EpisodeShape:
    """Sizes of the episodes of a run.

    Attributes:
        episodes: T, episodes per meta-step, over all processes.
        support: sentences per inner step.
        steps: inner steps; each has its own support batch.
        query: sentences of the query batch.
        tau: a language is drawn with probability proportional to size^tau; 0 is uniform, 1 is by
            size.
        same: every inner step has the same support batch.
        bands: number of equal parts into which each language is divided by sentence length; all
            episodes of a meta-step draw from the same part.

    Example: `EpisodeShape(episodes=8, support=8, steps=5, query=16, tau=0.5).sentences` is 56.
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
        """Number of different support batches of one episode."""
        return min(1, self.steps) if self.same else self.steps

    @property
    def sentences(self) -> int:
        """Number of sentences of one episode."""
        return self.support * self.batches + self.query


class EpisodeSampler:
    """Sampler of episodes from per-language pools of rows; equal texts count as one sentence.

    Args:
        pools: rows by language.
        shape: sizes of the episodes.
        seed: of all draws.
        stratum: returns the class of an example; None: draws are uniform.

    Raises:
        MetaprimeError: there is no language, or one has fewer different sentences than an episode.

    Example: `EpisodeSampler({"de": rows}, shape, seed=0).draw(step=3, index=0)`.
    """

    def __init__(
        self,
        pools: Mapping[str, Sequence[Row]],
        shape: EpisodeShape,
        seed: int,
        stratum: Callable[[Example], str] | None = None,
    ) -> None:
        """Groups equal texts, so that an episode takes at most one sentence of a group."""
        if not pools:
            raise MetaprimeError("data.languages is empty: name at least one language to draw episodes from")
        self.shape, self.seed, self.stratum = shape, seed, stratum
        self._known: dict[tuple[str, int, int], dict[str, list[int]]] = {}
        # Sorted, since the order in the config must not change the draws.
        self.languages = tuple(sorted(pools))
        self.pools = {language: _groups(pools[language]) for language in self.languages}
        if shape.bands > 1:
            self.pools = {
                language: sorted(groups, key=lambda group: longest_window(group[0]))
                for language, groups in self.pools.items()
            }

        # Refuse a language, or the smallest length band of one, that cannot fill an episode.
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

        # Duplicates count here: size^tau follows the corpus as it is.
        sizes = np.array([len(pools[language]) for language in self.languages], dtype=np.float64) ** shape.tau
        self.weights = sizes / sizes.sum()

    def languages_of(self, step: int) -> list[str]:
        """Returns the languages of all T episodes of a meta-step, other processes' included."""
        return [self._language(step, index)[0] for index in range(self.shape.episodes)]

    def draw(self, step: int, index: int) -> tuple[str, list[Row]]:
        """Draws one episode.

        Args:
            step: number of the meta-step.
            index: number of the episode in the whole meta-batch.

        Returns:
            The language, and the rows: support of inner step 0, of step 1, ..., then query.
        """
        language, draw = self._language(step, index)
        first, end = self._band(language, step)
        groups = self.pools[language][first:end]
        chosen = self._chosen((language, first, end), draw)
        rows = [groups[group][int(draw.integers(len(groups[group])))] for group in chosen]
        return language, [*self._by_length(rows[: -self.shape.query], step), *rows[-self.shape.query :]]

    def _chosen(self, part: tuple[str, int, int], draw: np.random.Generator) -> list[int]:
        """Draws the numbers of an episode's texts in a part of a language, those of the query last."""
        _, first, end = part
        if not self.stratum:
            return [int(group) for group in draw.choice(end - first, size=self.shape.sentences, replace=False)]
        strata = self._strata(*part)
        sizes = Counter({name: len(members) for name, members in strata.items()})
        support = places(sizes, self.shape.sentences - self.shape.query)
        order = support + places(sizes - Counter(support), self.shape.query)
        drawn = {
            name: iter(draw.choice(len(strata[name]), size=count, replace=False))
            for name, count in sorted(Counter(order).items())
        }
        return [strata[name][next(drawn[name])] for name in order]

    def _strata(self, language: str, first: int, end: int) -> dict[str, list[int]]:
        """Returns the numbers of the texts of each class in a part of a language, which are found once."""
        assert self.stratum
        key = language, first, end
        if key not in self._known:
            groups = self.pools[language][first:end]
            self._known[key] = grouped((self.stratum(group[0].example), number) for number, group in enumerate(groups))
        return self._known[key]

    def _band(self, language: str, step: int) -> tuple[int, int]:
        """Returns the ends of the length band of a language from which a meta-step draws.

        Bands are drawn uniformly, so that every sentence is as likely as without bands, but next to
        sentences of similar length.
        """
        size, bands = len(self.pools[language]), self.shape.bands
        place = int(stream(self.seed, "length band", step).integers(bands)) if bands > 1 else 0
        return place * size // bands, (place + 1) * size // bands

    def _by_length(self, support: list[Row], step: int) -> list[Row]:
        """Groups support rows of similar length into inner steps.

        All episodes of a meta-step share the order of the inner steps: the T batches of a step then
        need little padding, and no step always has the long rows.
        """
        size, steps = self.shape.support, self.shape.batches
        rows = sorted(support, key=longest_window)
        order = stream(self.seed, "support order", step).permutation(steps)
        return [row for place in order for row in rows[place * size : (place + 1) * size]]

    def _language(self, step: int, index: int) -> tuple[str, np.random.Generator]:
        """Draws an episode's language; returns the generator too, for the draws that follow."""
        draw = stream(self.seed, "episode", step, index)
        return self.languages[int(draw.choice(len(self.languages), p=self.weights))], draw

    def meta_batch(
        self,
        step: int,
        indices: Sequence[int],
        collate: Callable[[Sequence[Row]], Batch],
        corrupt: Callable[[Sequence[Row], torch.Generator], list[Row]] | None = None,
    ) -> Episodes:
        """Draws episodes of one meta-step and stacks them.

        Args:
            step: number of the meta-step.
            indices: numbers of the T episodes in the whole meta-batch, such as those of one
                process.
            collate: pads the windows of some rows to one batch (B, L).
            corrupt: changes the rows of one episode with a generator of that episode.

        Returns:
            Episodes with tensors (T, B, L): at each inner step all episodes are padded to the
            longest window and to the largest number of windows among them.

        Example: `sampler.meta_batch(0, range(shape.episodes), task.collate)`.
        """
        drawn = [self.draw(step, index) for index in indices]
        if corrupt:
            draws = [torch_stream(self.seed, "corrupt", step, index) for index in indices]
            drawn = [(name, corrupt(rows, draw)) for (name, rows), draw in zip(drawn, draws, strict=True)]

        size, split = self.shape.support, self.shape.support * self.shape.batches
        repeats = self.shape.steps if self.shape.same else 1

        def batch(start: int, stop: int) -> Batch:
            """Stacks the same slice of every episode: tensors (T, B, L)."""
            return stacked([rows[start:stop] for _, rows in drawn], collate)

        def lengths(start: int, stop: int) -> tuple[int, ...]:
            """Returns the sub-words of each episode's longest window in that slice."""
            return tuple(max(map(longest_window, rows[start:stop])) for _, rows in drawn)

        def total(start: int, stop: int) -> tuple[int, ...]:
            """Returns the sub-words of all windows of each episode in that slice."""
            return tuple(sum(map(all_subwords, rows[start:stop])) for _, rows in drawn)

        firsts = range(0, split, size)
        whole = (split, split + self.shape.query)
        return Episodes(
            languages=tuple(language for language, _ in drawn),
            indices=tuple(indices),
            total=self.shape.episodes,
            support=tuple(batch(start, start + size) for start in firsts) * repeats,
            query=batch(*whole),
            lengths=(*(lengths(start, start + size) for start in firsts),) * repeats + (lengths(*whole),),
            subwords=(*(total(start, start + size) for start in firsts),) * repeats + (total(*whole),),
        )


def stacked(parts: Sequence[Sequence[Row]], collate: Callable[[Sequence[Row]], Batch]) -> Batch:
    """Collates parts of equal standing, such as the T episodes of a meta-batch, into one batch.

    Args:
        parts: T sequences of rows.
        collate: pads the windows of some rows to one batch (B, L).

    Returns:
        Tensors (T, B, L), padded to the longest window and to the largest number of windows B.

    Example: `stacked([rows[:4], rows[4:]], task.collate)`.
    """
    counts = [sum(len(row.windows) for row in part) for part in parts]
    filled = [[*part, blank(part[0], max(counts) - count)] for part, count in zip(parts, counts, strict=True)]
    flat = collate([row for part in filled for row in part])
    return {name: tensor.view(len(parts), max(counts), -1) for name, tensor in flat.items()}


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups rows with equal texts, in the order of their first occurrence."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(same_text(row.example.words), []).append(row)
    return list(groups.values())


def same_text(words: Sequence[str]) -> str:
    """Returns the text by which sentences are compared: joined by spaces, NFKC, case-folded.

    Example: `same_text(["Ada", "NAPS"])` is `"ada naps"`.
    """
    return unicodedata.normalize("NFKC", " ".join(words)).casefold()


def sample(
    rows: Sequence[Row],
    count: int,
    seed: int,
    language: str,
    stratum: Callable[[Example], str] | None = None,
) -> list[Row]:
    """Draws K rows for a K-shot transfer; smaller samples are prefixes of larger ones.

    Args:
        rows: training rows of the language.
        count: K.
        seed: of the draw.
        language: also part of the draw's address.
        stratum: returns the class of an example, of which a sample has all in the rows' proportion; None:
            it is drawn uniformly.

    Raises:
        MetaprimeError: there are fewer than `count` rows.

    Example: `sample(rows, 10, 0, "de") == sample(rows, 30, 0, "de")[:10]`.
    """
    if len(rows) < count:
        raise MetaprimeError(
            f"language {language!r} has {len(rows)} training sentences, transfer.shots asks for {count}: lower it"
        )
    order = stream(seed, "shots", language).permutation(len(rows))
    if not stratum:
        return [rows[int(index)] for index in order[:count]]
    strata = grouped((stratum(rows[int(index)].example), rows[int(index)]) for index in order)
    left = {name: iter(members) for name, members in strata.items()}
    return [next(left[name]) for name in places({name: len(own) for name, own in strata.items()}, count)]
