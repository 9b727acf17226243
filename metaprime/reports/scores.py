"""Computes what a suite's scores come to: means with intervals, corrected contrasts, gains by language."""

from __future__ import annotations

import math
from itertools import product
from typing import TypeAlias

from metaprime.reports.read import Suite
from metaprime.stats.bootstrap import mean_of, resample_sentences, two_way_t_interval
from metaprime.stats.intervals import Contrast, Interval, correct, paired_contrast, t_interval

Scores: TypeAlias = dict[tuple[str, str, int], Interval]
"""By arm, method and K."""
ContrastKey: TypeAlias = tuple[str, str, str, int]
"""Arm, the arm subtracted from it, method and K."""


def middle_shots(suite: Suite) -> int:
    """Returns the K of figures and tables that are for one K: the middle one, of two in the middle the smaller."""
    ordered = sorted(suite.results.shots)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0


def score_interval(suite: Suite, arm: str, method: str, shots: int) -> tuple[Interval, bool] | None:
    """Returns the mean over complete seeds with its 95 % interval; None without such a seed.

    Also whether the interval is over test sentences too: that needs predictions of every language, on the same sentences
    for every seed.
    """
    replicates = suite.replicates(arm, method, shots)
    if not replicates:
        return None
    parts = []
    try:
        for language in suite.results.languages:
            mine = {seed: t for seed, done in replicates.items() for t in done if t.entry.language == language}
            counts = {seed: t.counts_B3 for seed, t in mine.items() if t.counts_B3 is not None}
            if len(counts) < len(replicates):
                raise ValueError(f"{language}: predictions are lacking")
            parts.append(resample_sentences(counts))
        return two_way_t_interval(mean_of(parts)), True
    except ValueError:
        return t_interval(list(suite.by_seed(arm, method, shots).values())), False


def all_scores(suite: Suite) -> tuple[Scores, set[tuple[str, str, int]]]:
    """Returns the score of every arm, method and K that has one, and those whose interval is over sentences too."""
    scores: Scores = {}
    both = set()
    for arm in suite.results.arms:
        for method in suite.results.methods:
            for shots in suite.results.shots:
                if found := score_interval(suite, arm, method, shots):
                    scores[arm, method, shots], over_sentences = found
                    if over_sentences:
                        both.add((arm, method, shots))
    return scores, both


def contrasts_of(suite: Suite) -> dict[ContrastKey, Contrast]:
    """Returns every contrast that the suite asks for, corrected for their number; nothing where none can be computed.

    One without a common seed cannot be tested yet, but counts among the others: what stands now must stand when it is
    there.
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
    """Returns by arm, method and language the F1 above the control, over the seeds both have there."""

    def by_seed(arm: str, method: str, language: str) -> dict[int, float]:
        return {t.entry.seed: t.f1 for t in suite.select(arm=arm, method=method, language=language, shots=shots)}

    gains = {}
    for place in product(suite.results.arms, suite.results.methods, suite.results.languages):
        arm, method, language = place
        one, other = by_seed(arm, method, language), by_seed(control, method, language)
        if arm != control and one.keys() & other.keys():
            gains[place] = paired_contrast(one, other)
    return gains
