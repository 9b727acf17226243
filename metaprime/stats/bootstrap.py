"""Resamples the test examples on which all replicates are scored, for an interval over replicates and examples both.

An interval over priming seeds alone speaks of one test set: the seeds share its sentences, hence its luck. To speak of
the language, sentences are resampled too, the same ones for every seed and arm, as they were scored. For the score of
one arm the difference is large, for that of two arms small: what makes a sentence hard does so for both.

Coverage is stated as measured on simulated studies by tests/stats/test_coverage.py, for intervals of 95 %.
A score is a function of counts that are summed over examples, such as micro-F1. Shape suffixes: R replicates,
B examples, k counts, N resamples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from metaprime.rng import stream
from metaprime.stats.intervals import Interval, t_interval

Counts: TypeAlias = npt.NDArray[np.integer[Any]]
"""(B, k), one row an example; the last column depends on the gold answer alone."""
Floats: TypeAlias = npt.NDArray[np.float64]
OfSums: TypeAlias = Callable[[Floats], Floats]
"""From sums of counts (..., k) to scores (...)."""

DRAWN_TOGETHER = 2**20
"""Examples drawn at a time: some 25 MB at work, whatever the size of the test set."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores of R priming seeds as observed, and on N resamples of the examples they share.

    `one - other` pairs two arms: by seed, and by example within each resample.

    Attributes:
        seeds: of the replicates.
        observed_R: their scores.
        scores_NR: their scores on each resample.
        examples: digest of the examples and their draws: only what is scored on the same may be paired.
    """

    seeds: tuple[int, ...]
    observed_R: Floats
    scores_NR: Floats
    examples: str

    def __sub__(self, other: Resampled) -> Resampled:
        if self.examples != other.examples:
            raise ValueError("the two arms are not scored on the same resamples of the same examples")
        seeds = tuple(seed for seed in self.seeds if seed in other.seeds)
        if not seeds:
            raise ValueError("the two arms share no seed")
        mine, theirs = ([arm.seeds.index(seed) for seed in seeds] for arm in (self, other))
        return Resampled(
            seeds,
            self.observed_R[mine] - other.observed_R[theirs],
            self.scores_NR[:, mine] - other.scores_NR[:, theirs],
            self.examples,
        )


def resample(counts: Mapping[int, Counts], of_sums: OfSums, *, resamples: int = 1000, seed: int = 0) -> Resampled:
    """Returns the score of every replicate, as observed and on draws of B examples out of B.

    Draws are keyed by `seed` and the gold counts, so that two arms on the same examples meet the same draws.

    Args:
        counts: priming seed -> (B, k), one row an example.
        of_sums: sums (..., k) to scores (...).
        resamples: how many draws, N.
        seed: key of the draws.

    Raises:
        ValueError: no replicates; counts of a wrong shape or kind; replicates on different examples.

    Example:
        two_way_t_interval(resample({0: counts_of_seed_0, 1: counts_of_seed_1}, micro_f1))
    """
    seeds = tuple(sorted(counts))
    counts_RBk = _stacked_counts([counts[one] for one in seeds])
    gold = counts_RBk[0, :, -1].tobytes()
    examples = hashlib.blake2b(gold + f"{seed} {resamples}".encode(), digest_size=16).hexdigest()
    draws = stream(seed, "bootstrap of sentences", examples)
    size, width = counts_RBk.shape[1:]
    table = np.moveaxis(counts_RBk, 1, 0).reshape(size, -1).astype(np.float64)
    rows = max(1, DRAWN_TOGETHER // size)
    totals = [_multiplicities(draws, min(rows, resamples - at), size) @ table for at in range(0, resamples, rows)]
    totals_NRk = np.concatenate(totals).reshape(resamples, len(seeds), width)
    return Resampled(seeds, of_sums(counts_RBk.sum(axis=1).astype(np.float64)), of_sums(totals_NRk), examples)


def _multiplicities(draws: np.random.Generator, rows: int, size: int) -> Floats:
    """Returns how often each example is drawn, (rows, size). Whole numbers, so that sums are exact on any machine."""
    places = draws.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _stacked_counts(counts: Sequence[Counts]) -> npt.NDArray[np.int64]:
    """Returns the counts as one (R, B, k) array."""
    if not counts:
        raise ValueError("no replicates")
    for one in counts:
        if one.ndim != 2 or not one.size or not np.issubdtype(one.dtype, np.integer) or (one < 0).any():
            raise ValueError(
                f"counts must be whole numbers from 0, examples x counts, at least one: {one.dtype} {one.shape}"
            )
        if one.shape != counts[0].shape or not np.array_equal(one[:, -1], counts[0][:, -1]):
            raise ValueError("replicates differ in their gold answers: they are not scored on the same examples")
    return np.stack(counts).astype(np.int64)


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Returns the mean score over several test sets (languages), each resampled by itself.

    Raises:
        ValueError: no test sets; test sets with different seeds or numbers of resamples.

    Example:
        mean_of([resample(counts[language], micro_f1) for language in languages])
    """
    if len({(part.seeds, len(part.scores_NR)) for part in parts}) != 1:
        raise ValueError("a mean needs the same seeds and as many resamples on every test set")
    return Resampled(
        parts[0].seeds,
        np.mean([part.observed_R for part in parts], axis=0),
        np.mean([part.scores_NR for part in parts], axis=0),
        " ".join(part.examples for part in parts),
    )


def two_way_t_interval(scores: Resampled, confidence: float = 0.95) -> Interval:
    """Returns Student's interval over replicates and examples both; nan with one replicate.

    The variance over seeds holds what is a seed's own. The luck that all seeds share is the covariance of their scores
    over resamples, and is added; degrees of freedom after Satterthwaite (1946). With five seeds as with twenty it covers
    93 to 97 %, where `t_interval` covers 40 to 93 % for one arm (94 to 96 % for a difference).

    Example:
        found = two_way_t_interval(resample(counts, micro_f1))
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
