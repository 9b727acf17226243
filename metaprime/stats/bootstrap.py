"""Resamples the test sentences on which all replicates are scored, for an interval over replicates and sentences both.

An interval over priming seeds alone speaks of one test set: the seeds share its sentences, hence its luck. To speak of
the language, sentences are resampled too, the same ones for every seed and arm, as they were scored. For the score of
one arm the difference is large, for that of two arms small: what makes a sentence hard does so for both.

Coverage is stated as measured on simulated studies by tests/stats/test_coverage.py, for intervals of 95 %.
Shape suffixes: R replicates, B sentences, N resamples. Scores are F1 in per cent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from metaprime.rng import stream
from metaprime.stats.intervals import Interval, t_interval

Counts: TypeAlias = npt.NDArray[np.integer[Any]]
"""(B, 3), one row a sentence: entities predicted right, entities predicted, gold entities."""
Floats: TypeAlias = npt.NDArray[np.float64]

CHUNK = 2**20
"""Sentences drawn at a time: some 25 MB at work, whatever the size of the test set."""


def f1_of_counts(counts: Counts) -> float:
    """Returns micro-F1 (per cent) of all sentences; 0 where nothing is predicted and nothing there, as seqeval has it.

    Args:
        counts: (B, 3), one row a sentence: entities predicted right, entities predicted, gold entities.

    Example:
        f1_of_counts(np.array([[1, 2, 1], [1, 1, 3]]))  # 57.1
    """
    return float(_f1(counts.sum(axis=0, dtype=np.float64)))


def _f1(totals: Floats) -> Floats:
    """Returns micro-F1 (per cent) of sums of counts: (..., 3) -> (...)."""
    return 200 * totals[..., 0] / np.maximum(totals[..., 1] + totals[..., 2], 1)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores of R priming seeds as observed, and on N resamples of the sentences they share.

    `one - other` pairs two arms: by seed, and by sentence within each resample.
    """

    seeds: tuple[int, ...]
    observed_R: Floats
    scores_NR: Floats
    sentences: str
    """Digest of the sentences and their draws: only what is scored on the same may be paired."""

    def __sub__(self, other: Resampled) -> Resampled:
        if self.sentences != other.sentences:
            raise ValueError("the two arms are not scored on the same resamples of the same sentences")
        seeds = tuple(seed for seed in self.seeds if seed in other.seeds)
        if not seeds:
            raise ValueError("the two arms share no seed")
        mine, theirs = ([arm.seeds.index(seed) for seed in seeds] for arm in (self, other))
        return Resampled(
            seeds,
            self.observed_R[mine] - other.observed_R[theirs],
            self.scores_NR[:, mine] - other.scores_NR[:, theirs],
            self.sentences,
        )


def resample_sentences(counts: Mapping[int, Counts], *, resamples: int = 1000, seed: int = 0) -> Resampled:
    """Returns the micro-F1 of every replicate, as observed and on draws of B sentences out of B.

    Draws are keyed by `seed` and the gold counts, so two arms on the same sentences meet the same draws.

    Args:
        counts: priming seed -> (B, 3), one row a sentence.
        resamples: how many draws, N.
        seed: key of the draws.

    Raises:
        ValueError: no replicates; counts of a wrong shape, kind or order; replicates on different sentences.

    Example:
        two_way_t_interval(resample_sentences({0: counts_of_seed_0, 1: counts_of_seed_1}))
    """
    seeds = tuple(sorted(counts))
    counts_RB3 = _checked([counts[one] for one in seeds])
    gold = counts_RB3[0, :, 2].tobytes()
    sentences = hashlib.blake2b(gold + f"{seed} {resamples}".encode(), digest_size=16).hexdigest()
    draws = stream(seed, "bootstrap of sentences", sentences)
    size = counts_RB3.shape[1]
    table = np.moveaxis(counts_RB3, 1, 0).reshape(size, -1).astype(np.float64)
    rows = max(1, CHUNK // size)
    totals = [_weights(draws, min(rows, resamples - at), size) @ table for at in range(0, resamples, rows)]
    totals_NR3 = np.concatenate(totals).reshape(resamples, len(seeds), 3)
    return Resampled(seeds, _f1(counts_RB3.sum(axis=1).astype(np.float64)), _f1(totals_NR3), sentences)


def _weights(draws: np.random.Generator, rows: int, size: int) -> Floats:
    """Returns how often each sentence is drawn, (rows, size). Whole numbers, so that sums are exact on any machine."""
    places = draws.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _checked(counts: Sequence[Counts]) -> npt.NDArray[np.int64]:
    """Returns the counts as one (R, B, 3) array."""
    if not counts:
        raise ValueError("no replicates")
    for one in counts:
        if one.ndim != 2 or one.shape[1] != 3 or not len(one) or not np.issubdtype(one.dtype, np.integer):
            raise ValueError(f"counts must be whole numbers, sentences x 3, at least one: {one.dtype} {one.shape}")
        if (one < 0).any() or (one[:, :1] > one[:, 1:]).any():
            raise ValueError("counts must be right <= predicted, right <= gold, none negative")
        if not np.array_equal(one[:, 2], counts[0][:, 2]):
            raise ValueError("replicates differ in their gold entities: they are not scored on the same sentences")
    return np.stack(counts).astype(np.int64)


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Returns the mean score over several test sets (languages), each resampled by itself.

    Raises:
        ValueError: no test sets; test sets with different seeds or numbers of resamples.

    Example:
        mean_of([resample_sentences(counts[language]) for language in languages])
    """
    if len({(part.seeds, len(part.scores_NR)) for part in parts}) != 1:
        raise ValueError("a mean needs the same seeds and as many resamples on every test set")
    return Resampled(
        parts[0].seeds,
        np.mean([part.observed_R for part in parts], axis=0),
        np.mean([part.scores_NR for part in parts], axis=0),
        " ".join(part.sentences for part in parts),
    )


def two_way_t_interval(scores: Resampled, confidence: float = 0.95) -> Interval:
    """Returns Student's interval over replicates and sentences both; nan with one replicate.

    The variance over seeds holds what is a seed's own. The luck that all seeds share is the covariance of their scores
    over resamples, and is added; degrees of freedom after Satterthwaite (1946). With five seeds as with twenty it covers
    93 to 97 %, where `t_interval` covers 40 to 93 % for one arm (94 to 96 % for a difference).

    Example:
        found = two_way_t_interval(resample_sentences(counts))
    """
    found = t_interval(scores.observed_R.tolist())
    if found.count < 2:
        return found
    own = found.deviation**2 / found.count
    covariance_RR = np.cov(scores.scores_NR, rowvar=False)
    shared = max(0.0, float(covariance_RR.sum() - np.trace(covariance_RR)) / (found.count * (found.count - 1)))
    freedom = (found.count - 1) * (1 + shared / own) ** 2 if own else math.inf
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(own + shared)
    return Interval(found.mean, found.deviation, found.mean - half, found.mean + half, found.count)
