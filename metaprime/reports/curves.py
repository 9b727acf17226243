"""Makes the figures of a report out of a suite: lines, dots, bars and grids, which `figures` draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaprime.reports.figures import BarPanel, Dot, DotPanel, Figure, HeatPanel, Line, LinePanel
from metaprime.reports.read import Suite, mean_of_known, primed_for
from metaprime.stats.intervals import Interval, t_interval

POINTS = 60
"""A curve of more meta-steps shows means over stretches of them."""
BAND = "The band is the mean ± one standard deviation over priming seeds; a single seed has none."
KIND_SERIES = (3, 1, 4, 0, 2)
"""Colours of kinds of errors, that of right answers first."""


def series_of(suite: Suite) -> dict[str, int]:
    """Returns each arm's colour, the same in every figure; the control's is neutral."""
    others = [arm for arm in suite.results.arms if arm != suite.control]
    return {arm: place for place, arm in enumerate(others, 1)} | ({suite.control: 0} if suite.control else {})


def curve(
    metrics: Mapping[int, Sequence[Mapping[str, Any]]], key: str, series: int, marked: bool = False
) -> Line | None:
    """Returns one value over meta-steps, mean and band over the seeds; only steps that all seeds have come to.

    Args:
        metrics: seed -> lines of its `metrics.jsonl`.
        key: of the value in a line.
        series: colour.
        marked: whether each point has a marker.

    Example:
        line = curve(suite.metrics["meta"], "query_loss", 1)
    """
    by_seed = [{line["step"]: _finite(line[key]) for line in lines if key in line} for lines in metrics.values()]
    by_seed = [values for values in by_seed if values]
    if not by_seed:
        return None
    steps = sorted(set.intersection(*(set(values) for values in by_seed)))
    size = max(1, math.ceil(len(steps) / POINTS))
    chunks = [steps[at : at + size] for at in range(0, len(steps), size)]
    found = [t_interval([mean_of_known([values[step] for step in chunk]) for values in by_seed]) for chunk in chunks]
    return Line(
        series,
        tuple(sum(chunk) / len(chunk) for chunk in chunks),
        tuple(one.mean for one in found),
        tuple(one.mean - one.deviation for one in found),
        tuple(one.mean + one.deviation for one in found),
        marked,
    )


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _priming_runs(suite: Suite) -> dict[str, list[str]]:
    """Returns arms with metrics by the first of those that share their priming run."""
    runs: dict[str | None, list[str]] = {}
    for name, arm in suite.results.arms.items():
        if suite.metrics.get(name):
            runs.setdefault(arm.priming or name, []).append(name)
    return {arms[0]: arms for arms in runs.values()}


def learning_curves(suite: Suite) -> Figure | None:
    """Returns query loss and held-out score over meta-steps, one line for each priming run; None without metrics."""
    runs, series = _priming_runs(suite), series_of(suite)
    kind = suite.kind
    panels = []
    for key, title, label in (
        ("query_loss", "Query loss", f"nats per {kind.unit}"),
        (kind.validation_key, "Held-out languages", kind.metric.with_unit),
    ):
        found = [curve(suite.metrics[arm], key, series[arm], key == kind.validation_key) for arm in runs]
        if lines := tuple(line for line in found if line):
            panels.append(LinePanel(title, "meta-step", label, lines))
    if not panels:
        return None
    caption = (
        f"Loss on the query sentences after the inner loop, and {kind.metric.label} on held-out languages, over meta-steps. "
        f"{BAND} Losses of "
        f"more than {POINTS} steps are means over stretches of steps. Losses of different learners, or after different "
        "numbers of inner steps, are different quantities; held-out scores compare."
    )
    shared = "; ".join(" = ".join(map(suite.title, arms)) for arms in runs.values() if len(arms) > 1)
    caption += f" Arms that share a priming run share its line: {shared}." if shared else ""
    return Figure("learning", "Learning curves", caption, tuple(panels), _legend(suite, runs))


def inner_curves(suite: Suite) -> Figure | None:
    """Returns support loss before and after the inner loop, a panel for each priming run that has one."""
    panels = []
    for arm in _priming_runs(suite):
        keys = ("support_loss_before", "support_loss_after")
        found = [curve(suite.metrics[arm], key, place) for place, key in enumerate(keys)]
        if lines := tuple(line for line in found if line):
            panels.append(LinePanel(suite.title(arm), "meta-step", f"nats per {suite.kind.unit}", lines))
    if not panels:
        return None
    caption = (
        "Loss on the support sentences as the first and the last inner step find it: the distance of the two lines is what "
        f"adapting gains within an episode; with one inner step they are one. {BAND}"
    )
    legend = ((0, "before (first inner step)"), (1, "after (last inner step)"))
    return Figure("inner", "Inner loop", caption, tuple(panels), legend)


def shot_curves(suite: Suite, scores: Mapping[tuple[str, str, int], Interval]) -> Figure | None:
    """Returns the score over K, a panel for each method; None with one K."""
    metric = suite.kind.metric
    results, series = suite.results, series_of(suite)
    if len(results.shots) < 2:
        return None
    panels = []
    for method in results.methods:
        lines = []
        for arm in results.arms:
            known = [(shots, scores[arm, method, shots]) for shots in results.shots if (arm, method, shots) in scores]
            if known:
                x, found = zip(*sorted(known, key=lambda pair: pair[0]), strict=True)
                means, lows, highs = zip(*((one.mean, one.low, one.high) for one in found), strict=True)
                lines.append(Line(series[arm], x, means, lows, highs, marked=True))
        if lines:
            panels.append(LinePanel(method, "K labelled sentences (log)", metric.with_unit, tuple(lines), log_x=True))
    if not panels:
        return None
    caption = (
        f"{metric.title} after K sentences of the target language. The band is the 95 % interval of the score table; a single "
        "seed has none."
    )
    return Figure("shots", f"{metric.label} over K", caption, tuple(panels), _legend(suite, results.arms))


def destination(suite: Suite, scores: Mapping[tuple[str, str, int], Interval], shots: int) -> Figure | None:
    """Returns primed for (rows) against tuned with (columns); None where all priming is for one method."""
    results = suite.results
    primed = {name: primed_for(arm, results.config) for name, arm in results.arms.items() if arm.priming}
    if len({method for method in primed.values() if method}) < 2:
        return None
    values, texts = [], []
    for arm in primed:
        row = []
        for method in results.methods:
            score, base = scores.get((arm, method, shots)), scores.get((suite.control or "", method, shots))
            row.append(math.nan if score is None or base is None else score.mean - base.mean)
        values.append(tuple(map(suite.kind.metric.rank, row)))
        texts.append(tuple("–" if math.isnan(gain) else f"{gain:+.1f}".replace("-", "−") for gain in row))
    marked = frozenset(
        (row, column)
        for row, (arm, method) in enumerate(primed.items())
        for column, tuned in enumerate(results.arms[arm].methods or results.methods)
        if method and (tuned == method or tuned.startswith(f"{method}-"))
    )
    rows = tuple(suite.title(arm) for arm in primed)
    panel = HeatPanel("Gain over the control", "tuned with", rows, results.methods, tuple(values), tuple(texts), marked)
    caption = (
        f"Mean {suite.kind.metric.label} above the control, in points (K = {shots}): rows are primed for, "
        f"columns tuned with. Blue: better, orange: "
        "worse, the stronger the more. Framed: tuned with what it was primed for. No intervals here; see the contrasts."
    )
    return Figure("destination", "Destination", caption, (panel,))


def gain_dots(suite: Suite, gains: Mapping[tuple[str, str, str], Interval], shots: int) -> Figure | None:
    """Returns gains over the control by language, a panel for each method.

    Args:
        gains: by (arm, method, language).
    """
    series, languages = series_of(suite), suite.results.languages
    panels = []
    for method in suite.results.methods:
        dots = tuple(
            Dot(languages.index(language), series[arm], one.mean, one.low, one.high)
            for (arm, tuned, language), one in gains.items()
            if tuned == method
        )
        if dots:
            panels.append(DotPanel(method, f"{suite.kind.metric.label} above the control (points)", languages, dots))
    if not panels:
        return None
    caption = (
        f"Gain over the control by target language (K = {shots}), paired by seed. Bars are 95 % t-intervals over priming "
        "seeds, each by itself, not corrected for their number; a single seed has none."
    )
    return Figure("gains", "Gains by language", caption, tuple(panels), _legend(suite, {arm for arm, _, _ in gains}))


def error_bars(
    suite: Suite, errors: Mapping[tuple[str, str], Mapping[str, float]], unit: str, shots: int
) -> Figure | None:
    """Returns errors by kind and arm, a panel for each method.

    Args:
        suite: whose arms these are.
        errors: by (arm, method) the number of each kind of error in 100 gold answers, right answers first.
        unit: what is counted.
        shots: K.
    """
    panels = []
    for method in suite.results.methods:
        mine = {arm: one for (arm, tuned), one in errors.items() if tuned == method}
        if mine:
            kinds = list(next(iter(mine.values())))
            parts = tuple(
                (_kind_series(place), tuple(one[kind] for one in mine.values()))
                for place, kind in enumerate(kinds)
                if place
            )
            panels.append(BarPanel(method, f"errors per 100 {unit}", tuple(map(suite.title, mine)), parts))
    if not panels:
        return None
    caption = f"Errors by kind, all seeds and target languages together (K = {shots}). No band: these are plain counts."
    legend = tuple((_kind_series(place), kind) for place, kind in enumerate(kinds) if place)
    return Figure("errors", "Errors", caption, tuple(panels), legend)


def _kind_series(place: int) -> int:
    return KIND_SERIES[place % len(KIND_SERIES)]


def _legend(suite: Suite, arms: Iterable[str]) -> tuple[tuple[int, str], ...]:
    shown, series = set(arms), series_of(suite)
    return tuple((series[arm], suite.title(arm)) for arm in suite.results.arms if arm in shown)


TICKS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Per cent."""


@dataclass(frozen=True)
class Moved:
    """Of one arm and method, as its records have it.

    Attributes:
        count: parameters of the change that fine-tuning leaves, the head apart.
        share: of the encoder's, per cent.
        change: leave-one-out change of the loss (nats) over seeds, each a mean over languages; None where it was not measured.
        gap: the loss on a sentence left out above that on the same trained on (nats), likewise.
    """

    count: int
    share: float
    change: Interval | None
    gap: Interval | None


def moved(suite: Suite, arm: str, method: str, shots: int) -> Moved | None:
    """Returns how many parameters an arm and method move, and how stable they are; None where no record says."""
    found = suite.select(arm=arm, method=method, shots=shots)
    sizes = [transfer.record["parameters"] for transfer in found if "parameters" in transfer.record]
    if not sizes:
        return None
    changes: dict[int, list[float]] = {}
    gaps: dict[int, list[float]] = {}
    for transfer in found:
        if stability := transfer.record.get("stability"):
            changes.setdefault(transfer.entry.seed, []).append(stability["change"])
            gaps.setdefault(transfer.entry.seed, []).append(stability["without"] - stability["with"])
    count = sizes[0].get("stored", sizes[0]["adapter"])
    return Moved(count, 100 * count / sizes[0]["encoder"], _over_seeds(changes), _over_seeds(gaps))


def _over_seeds(values: Mapping[int, list[float]]) -> Interval | None:
    means = [sum(own) / len(own) for own in values.values()]
    return t_interval(means) if means else None


def over_parameters(suite: Suite, scores: Mapping[tuple[str, str, int], Interval], shots: int) -> Figure | None:
    """Returns the score over the share of parameters, one line for each `line` of arms; None where no two arms share one."""
    metric = suite.kind.metric
    lines: dict[str, list[str]] = {}
    for name, arm in suite.results.arms.items():
        if arm.line:
            lines.setdefault(arm.line, []).append(name)
    if not any(len(arms) > 1 for arms in lines.values()):
        return None
    panels = []
    for method in suite.results.methods:
        drawn = []
        for series, arms in enumerate(lines.values(), 1):
            points = [
                (size.share, scores[arm, method, shots])
                for arm in arms
                if (size := moved(suite, arm, method, shots)) and size.count and (arm, method, shots) in scores
            ]
            if points:
                x, found = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                drawn.append(
                    Line(
                        series,
                        x,
                        tuple(one.mean for one in found),
                        tuple(one.mean - _or_zero(one.deviation / math.sqrt(one.count)) for one in found),
                        tuple(one.mean + _or_zero(one.deviation / math.sqrt(one.count)) for one in found),
                        marked=True,
                    )
                )
        if drawn:
            shares = [x for line in drawn for x in line.x]
            ticks = tuple(tick for tick in TICKS if min(shares) / 2 < tick < 2 * max(shares))
            panels.append(
                LinePanel(
                    method, "parameters moved, % of the encoder's (log)", metric.with_unit, tuple(drawn), True, ticks
                )
            )
    if not panels:
        return None
    caption = (
        f"{metric.title} (K = {shots}) over the parameters that fine-tuning moves, the head apart. The band is the mean ± one "
        "standard error over seeds."
    )
    return Figure("parameters", f"{metric.label} over parameters", caption, tuple(panels), tuple(enumerate(lines, 1)))


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
