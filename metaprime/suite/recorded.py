"""Compares a run of the demonstration with the recorded one, arm by arm.

Another processor gives other last digits in the first step, which training amplifies: a seed run elsewhere
is at most another draw of that seed. So a mean is within the recorded spread where the mean of as many new
seeds would lie, 19 times of 20: recorded mean ± t(0.975, n - 1) * deviation * sqrt(2 / n).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy

from metaprime.config.loading import override
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.reports.read import Suite, read_suite, short_titles
from metaprime.reports.wording import number

RecordedMeans = Mapping[tuple[str, str], tuple[float, float]]
"""(arm, method) -> mean and standard deviation over SEEDS."""

SEEDS = (0, 1, 2, 3, 4)
"""Priming seeds of the recorded demonstration."""

SHORTENED = ("encoder.pretrain.steps=500", "inner.steps=2", "outer.early_stop=2", "transfer.steps=50")
"""Its settings where they are not the defaults of the config: what makes it take minutes."""

PAGE = "docs/results/demo.md"
"""Page of the recorded demonstration; a test holds its numbers and RECORDED together."""

RECORDED: RecordedMeans = {
    ("none", "pfeiffer"): (25.6, 1.7),
    ("none", "head"): (19.9, 0.5),
    ("multitask", "pfeiffer"): (37.6, 2.2),
    ("multitask", "head"): (32.4, 2.1),
    ("shuffled", "pfeiffer"): (25.6, 1.7),
    ("shuffled", "head"): (19.9, 0.5),
    ("meta", "pfeiffer"): (38.1, 1.4),
    ("meta", "head"): (32.7, 2.8),
}
"""Entity F1 of the recorded demonstration, on a processor that its page names."""


@dataclass(frozen=True)
class BesideRecorded:
    """The mean of an arm and method beside the recorded one: `BesideRecorded("meta", "AT", 39.2, 39.9, 6.0).within`.

    Attributes:
        title: title of the arm.
        tuned: short name of the method.
        mean: mean over seeds in this run.
        recorded: recorded mean.
        spread: distance from the recorded mean up to which a run is within the recorded spread.
    """

    title: str
    tuned: str
    mean: float
    recorded: float
    spread: float

    @property
    def within(self) -> bool:
        """Whether the mean is within the recorded spread."""
        return abs(self.mean - self.recorded) <= self.spread

    def __str__(self) -> str:
        verdict = "within" if self.within else "NOT within"
        return (
            f"{self.title}, {self.tuned}: {number(self.mean)}, recorded {number(self.recorded)} ± {number(self.spread)}: "
            f"{verdict} the recorded spread"
        )


def spread(deviation: float, seeds: int = len(SEEDS)) -> float:
    """Returns how far the mean of as many new seeds lies from the recorded mean, at most 19 times of 20.

    Args:
        deviation: sample standard deviation of the recorded scores.
        seeds: number of recorded scores.

    Example: `spread(2.7)`
    """
    return float(scipy.stats.t.ppf(0.975, seeds - 1)) * deviation * math.sqrt(2 / seeds)


def is_recorded(facts: Mapping[str, Any], seeds: Sequence[int]) -> bool:
    """Returns True if the recorded demonstration had these settings and seeds.

    Args:
        facts: the config as `Config.facts` returns it.
        seeds: priming seeds.

    Example: `is_recorded(config.facts(), SEEDS)`
    """
    return tuple(seeds) == SEEDS and facts == override(Config(), *SHORTENED).at_rates(EMBEDDED, EMBEDDED).facts()


def compared(suite: Suite, recorded: RecordedMeans = RECORDED) -> list[BesideRecorded]:
    """Compares each recorded arm and method that a suite has with every seed.

    Args:
        suite: a run of the demonstration.
        recorded: the recorded means.

    Example: `[str(row) for row in compared(read_suite(Path("runs/demo")))]`
    """
    (shots,) = suite.results.shots
    titles = short_titles(suite.results)
    rows = []
    for (arm, method), (mean, deviation) in recorded.items():
        found = suite.by_seed(arm, method, shots)
        if len(found) == len(SEEDS):
            own = sum(found.values()) / len(found)
            rows.append(BesideRecorded(suite.title(arm), titles.get(method, method), own, mean, spread(deviation)))
    return rows


def against_recorded(facts: Mapping[str, Any], seeds: Sequence[int], output: Path) -> list[str]:
    """Returns the comparison of a run with the recorded demonstration as lines, or why there is none.

    Args:
        facts: the run's config as `Config.facts` returns it.
        seeds: its priming seeds.
        output: its folder.

    Example: `print(*against_recorded(config.facts(), SEEDS, Path("runs/demo")), sep="\\n")`
    """
    if not is_recorded(facts, seeds):
        return [f"not compared with {PAGE}: it is of recipes/configs/demo.yaml, seeds {SEEDS[0]} to {SEEDS[-1]}"]
    rows = compared(read_suite(output))
    within = sum(row.within for row in rows)
    return [
        f"Compared with the recorded demonstration ({PAGE}), whose processor may be another:",
        *(f"  {row}" for row in rows),
        f"{within} of {len(rows)} within the recorded spread: as far as the mean of {len(SEEDS)} new seeds lies, 19 times of 20.",
    ]
