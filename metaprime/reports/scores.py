"""Computes the scores of a suite: means with intervals, corrected contrasts, gains by language."""

from __future__ import annotations

import math
from itertools import product
from typing import TypeAlias

from metaprime.reports.read import Suite
from metaprime.stats.bootstrap import mean_of, resample, two_way_t_interval
from metaprime.stats.intervals import Contrast, Interval, correct, paired_contrast, t_interval

Means: TypeAlias = dict[tuple[str, str, int], Interval]
"""(arm, method, K) -> interval."""
ContrastKey: TypeAlias = tuple[str, str, str, int]
"""(arm, arm that is subtracted, method, K)."""


def middle_shots(suite: Suite) -> int:
    """Returns the median K, of two the smaller, for tables and figures of one K; 0 without any.

    Example: `middle_shots(suite)`
    """
    ordered = sorted(suite.results.shots)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0


def score_interval(suite: Suite, arm: str, method: str, shots: int) -> tuple[Interval, bool] | None:
    """Computes the mean score over complete seeds with its 95 % interval.

    An interval over seeds and test examples needs predictions of every language, on the same
    examples for every seed, and a task whose score is a function of sums over examples.

    Returns:
        The interval, and whether it is over test examples too; None if no seed is complete.

    Example: `score_interval(suite, "meta", "lora", 50)`
    """
    replicates, statistics = suite.replicates(arm, method, shots), suite.kind.statistics
    if not replicates:
        return None
    parts = []
    try:
        if statistics is None:
            raise ValueError("no statistics of examples")
        for language in suite.results.languages:
            transfers = {seed: t for seed, done in replicates.items() for t in done if t.entry.language == language}
            counts = {seed: t.counts_Bk for seed, t in transfers.items() if t.counts_Bk is not None}
            if len(counts) < len(replicates):
                raise ValueError(f"{language}: predictions are lacking")
            parts.append(resample(counts, statistics.of_sums))
        return two_way_t_interval(mean_of(parts)), True
    except ValueError:
        return t_interval(list(suite.by_seed(arm, method, shots).values())), False


def all_scores(suite: Suite) -> tuple[Means, set[tuple[str, str, int]]]:
    """Computes the score of every arm, method and K: `scores, over_examples = all_scores(suite)`.

    Returns:
        Scores by (arm, method, K), and the keys whose interval is over test examples too.
    """
    scores: Means = {}
    over_examples = set()
    for arm in suite.results.arms:
        for method in suite.results.methods:
            for shots in suite.results.shots:
                if score := score_interval(suite, arm, method, shots):
                    scores[arm, method, shots], counts_examples = score
                    if counts_examples:
                        over_examples.add((arm, method, shots))
    return scores, over_examples


def contrasts_of(suite: Suite) -> dict[ContrastKey, Contrast]:
    """Computes the contrasts of a suite, corrected for their number; empty if none can be computed.

    A contrast without a common seed cannot be tested yet but counts in the correction, so that a
    claim made now still holds when the contrast is complete.

    Example:
        contrasts_of(suite)["meta", "none", "lora", 50].bold
    """
    results = suite.results
    nothing_yet = ({0: math.nan}, {0: math.nan})
    pairs = {}
    for method in results.methods:
        for shots in results.shots:
            for arm, subtracted in results.contrasts:
                if {arm, subtracted} <= results.arms.keys():
                    scores = suite.by_seed(arm, method, shots), suite.by_seed(subtracted, method, shots)
                    comparable = scores[0].keys() & scores[1].keys()
                    pairs[arm, subtracted, method, shots] = scores if comparable else nothing_yet
    if all(pair is nothing_yet for pair in pairs.values()):
        return {}
    return correct(pairs)


def gains_over(suite: Suite, control: str, shots: int) -> dict[tuple[str, str, str], Interval]:
    """Computes the differences from the control by language, paired by seed.

    Args:
        suite: the suite.
        control: arm that is subtracted.
        shots: K.

    Returns:
        (arm, method, language) -> interval over the seeds that both arms have.

    Example: `gains_over(suite, "none", 50)`
    """

    def by_seed(arm: str, method: str, language: str) -> dict[int, float]:
        """Returns seed -> score."""
        return {t.entry.seed: t.score for t in suite.select(arm=arm, method=method, language=language, shots=shots)}

    gains = {}
    for key in product(suite.results.arms, suite.results.methods, suite.results.languages):
        arm, method, language = key
        scores, baseline = by_seed(arm, method, language), by_seed(control, method, language)
        if arm != control and scores.keys() & baseline.keys():
            gains[key] = paired_contrast(scores, baseline)
    return gains
