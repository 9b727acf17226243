"""Computes what a suite's scores come to: means with intervals, corrected contrasts, gains by language."""

from __future__ import annotations

import math
from itertools import product
from typing import TypeAlias

from metaprime.reports.read import Suite
from metaprime.stats.bootstrap import mean_of, resample, two_way_t_interval
from metaprime.stats.intervals import Contrast, Interval, correct, paired_contrast, t_interval

Means: TypeAlias = dict[tuple[str, str, int], Interval]
"""By arm, method and K."""
ContrastKey: TypeAlias = tuple[str, str, str, int]
"""Arm, the arm subtracted from it, method and K."""


def middle_shots(suite: Suite) -> int:
    """Returns the K of figures and tables that are for one K: the middle one, of two in the middle the smaller."""
    ordered = sorted(suite.results.shots)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0


def score_interval(suite: Suite, arm: str, method: str, shots: int) -> tuple[Interval, bool] | None:
    """Returns the mean over complete seeds with its 95 % interval; None without such a seed.

    The second value tells if the interval is over test examples too: that needs predictions of every language, on the
    same examples for every seed, and a task whose score is a function of sums over examples.
    """
    replicates, statistics = suite.replicates(arm, method, shots), suite.kind.statistics
    if not replicates:
        return None
    parts = []
    try:
        if statistics is None:
            raise ValueError("no statistics of examples")
        for language in suite.results.languages:
            mine = {seed: t for seed, done in replicates.items() for t in done if t.entry.language == language}
            counts = {seed: t.counts_Bk for seed, t in mine.items() if t.counts_Bk is not None}
            if len(counts) < len(replicates):
                raise ValueError(f"{language}: predictions are lacking")
            parts.append(resample(counts, statistics.of_sums))
        return two_way_t_interval(mean_of(parts)), True
    except ValueError:
        return t_interval(list(suite.by_seed(arm, method, shots).values())), False


def all_scores(suite: Suite) -> tuple[Means, set[tuple[str, str, int]]]:
    """Returns the score of every arm, method and K that has one, and those whose interval is over examples too."""
    scores: Means = {}
    both = set()
    for arm in suite.results.arms:
        for method in suite.results.methods:
            for shots in suite.results.shots:
                if found := score_interval(suite, arm, method, shots):
                    scores[arm, method, shots], over_examples = found
                    if over_examples:
                        both.add((arm, method, shots))
    return scores, both


def contrasts_of(suite: Suite) -> dict[ContrastKey, Contrast]:
    """Returns every contrast that the suite asks for, corrected for their number; nothing where none can be computed.

    One without a common seed cannot be tested yet, but counts among the others: what is claimed now must still hold
    when it is there.
    """
    results = suite.results
    nothing_yet = ({0: math.nan}, {0: math.nan})
    pairs = {}
    for method in results.methods:
        for shots in results.shots:
            for one, other in results.contrasts:
                if {one, other} <= results.arms.keys():
                    scores = suite.by_seed(one, method, shots), suite.by_seed(other, method, shots)
                    comparable = scores[0].keys() & scores[1].keys()
                    pairs[one, other, method, shots] = scores if comparable else nothing_yet
    if all(pair is nothing_yet for pair in pairs.values()):
        return {}
    return correct(pairs)


def gains_over(suite: Suite, control: str, shots: int) -> dict[tuple[str, str, str], Interval]:
    """Returns by arm, method and language the score above the control, over the seeds that both have there."""

    def by_seed(arm: str, method: str, language: str) -> dict[int, float]:
        return {t.entry.seed: t.score for t in suite.select(arm=arm, method=method, language=language, shots=shots)}

    gains = {}
    for place in product(suite.results.arms, suite.results.methods, suite.results.languages):
        arm, method, language = place
        one, other = by_seed(arm, method, language), by_seed(control, method, language)
        if arm != control and one.keys() & other.keys():
            gains[place] = paired_contrast(one, other)
    return gains
