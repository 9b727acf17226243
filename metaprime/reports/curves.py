"""Builds the figures of a report from a suite, which `figures` draws: lines, dots, bars, grids."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from metaprime.reports.figures import BarPanel, Dot, DotPanel, Figure, HeatPanel, Line, LinePanel
from metaprime.reports.read import Suite, mean_of_known
from metaprime.reports.wording import TOO_FEW
from metaprime.runs.results import primed_for
from metaprime.stats.intervals import Contrast, Interval, t_interval

POINTS = 60
"""Largest number of points in a curve; with more meta-steps, points are means over stretches."""

BAND = "The band is the mean ± one standard deviation over priming seeds; a single seed has none."

KIND_SERIES = (3, 1, 4, 0, 2)
"""Series of the kinds of errors; the first is that of right answers."""


def series_of(suite: Suite) -> dict[str, int]:
    """Returns arm -> series number, the same in all figures; the control has 0.

    Example: `series_of(suite)["meta"]`
    """
    others = [arm for arm in suite.results.arms if arm != suite.control]
    return {arm: place for place, arm in enumerate(others, 1)} | ({suite.control: 0} if suite.control else {})


def curve(
    metrics: Mapping[int, Sequence[Mapping[str, Any]]], key: str, series: int, marked: bool = False
) -> Line | None:
    """Returns a metric, mean and band over seeds, at the meta-steps that all seeds have reached.

    Args:
        metrics: seed -> lines of its `metrics.jsonl`.
        key: key of the metric in a line.
        series: number of the colour.
        marked: whether each point has a marker.

    Returns:
        The curve; None if no line has the metric.

    Example:
        line = curve(suite.metrics["meta"], "query_loss", 1)
    """
    by_seed = [{line["step"]: _finite(line[key]) for line in lines if key in line} for lines in metrics.values()]
    by_seed = [values for values in by_seed if values]
    if not by_seed:
        return None

    # Means over stretches of steps within a seed first, then over seeds.
    steps = sorted(set.intersection(*(set(values) for values in by_seed)))
    size = max(1, math.ceil(len(steps) / POINTS))
    chunks = [steps[at : at + size] for at in range(0, len(steps), size)]
    means = [t_interval([mean_of_known([values[step] for step in chunk]) for values in by_seed]) for chunk in chunks]
    return Line(
        series,
        tuple(sum(chunk) / len(chunk) for chunk in chunks),
        tuple(mean.mean for mean in means),
        tuple(mean.mean - mean.deviation for mean in means),
        tuple(mean.mean + mean.deviation for mean in means),
        marked,
    )


def _finite(value: Any) -> float:
    """Returns a value of metrics.jsonl as a number; nan if it is not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _priming_runs(suite: Suite) -> dict[str, list[str]]:
    """Returns first arm -> all arms of each priming run that has metrics."""
    runs: dict[str | None, list[str]] = {}
    for name, arm in suite.results.arms.items():
        if suite.metrics.get(name):
            runs.setdefault(arm.priming or name, []).append(name)
    return {arms[0]: arms for arms in runs.values()}


def learning_curves(suite: Suite) -> Figure | None:
    """Returns query loss and validation score by meta-step, a line per priming run; None without.

    Example:
        figure = learning_curves(suite)
    """
    runs, series = _priming_runs(suite), series_of(suite)
    kind = suite.kind
    panels = []
    for key, title, label in (
        ("query_loss", "Query loss", f"nats per {kind.unit}"),
        (kind.validation_key, "Held-out languages", kind.metric.with_unit),
    ):
        curves = [curve(suite.metrics[arm], key, series[arm], key == kind.validation_key) for arm in runs]
        if lines := tuple(line for line in curves if line):
            panels.append(LinePanel(title, "meta-step", label, lines))
    if not panels:
        return None

    caption = (
        f"Loss on the query sentences after the inner loop, and {kind.metric.label} on held-out languages, over meta-steps. "
        f"{BAND} Losses of "
        f"more than {POINTS} steps are means over stretches of steps. Losses of different learners, or after different "
        "numbers of inner steps, are different quantities; held-out scores are comparable."
    )
    shared = "; ".join(" = ".join(map(suite.title, arms)) for arms in runs.values() if len(arms) > 1)
    caption += f" Arms that share a priming run share its line: {shared}." if shared else ""
    return Figure("learning", "Learning curves", caption, tuple(panels), _legend(suite, runs))


def inner_curves(suite: Suite) -> Figure | None:
    """Returns support loss before and after the inner loop, a panel per priming run, or None.

    Example:
        figure = inner_curves(suite)
    """
    panels = []
    for arm in _priming_runs(suite):
        keys = ("support_loss_before", "support_loss_after")
        curves = [curve(suite.metrics[arm], key, place) for place, key in enumerate(keys)]
        if lines := tuple(line for line in curves if line):
            panels.append(LinePanel(suite.title(arm), "meta-step", f"nats per {suite.kind.unit}", lines))
    if not panels:
        return None
    caption = (
        "Loss on the support sentences before the first and before the last inner step: the gap between the lines is the gain "
        f"of adaptation within an episode; with one inner step the lines coincide. {BAND}"
    )
    legend = ((0, "before (first inner step)"), (1, "after (last inner step)"))
    return Figure("inner", "Inner loop", caption, tuple(panels), legend)


def shot_curves(suite: Suite, scores: Mapping[tuple[str, str, int], Interval]) -> Figure | None:
    """Returns the score over K, one panel per method; None with a single K.

    Args:
        suite: the suite.
        scores: (arm, method, K) -> interval.

    Example:
        figure = shot_curves(suite, all_scores(suite)[0])
    """
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
                x, intervals = zip(*sorted(known, key=lambda pair: pair[0]), strict=True)
                shown = [
                    (y.mean, math.nan, math.nan) if y.wider_than(suite.scale) else (y.mean, y.low, y.high)
                    for y in intervals
                ]
                means, lows, highs = zip(*shown, strict=True)
                lines.append(Line(series[arm], x, means, lows, highs, marked=True))
        if lines:
            # A logarithmic axis has no place for K = 0.
            axis, log = ("K labelled sentences", False) if 0 in results.shots else ("K labelled sentences (log)", True)
            panels.append(LinePanel(method, axis, metric.with_unit, tuple(lines), log_x=log))
    if not panels:
        return None
    caption = (
        f"{metric.title} after K sentences of the target language. The band is the 95 % interval of the score table; a single "
        "seed has none, and none is drawn that is wider than the scale."
    )
    return Figure("shots", f"{metric.label} over K", caption, tuple(panels), _legend(suite, results.arms))


def destination(suite: Suite, scores: Mapping[tuple[str, str, int], Interval], shots: int) -> Figure | None:
    """Returns gains by the method that was primed for (rows) and tuned with (columns).

    Args:
        suite: the suite.
        scores: (arm, method, K) -> interval.
        shots: K.

    Returns:
        The figure; None if all priming is for one method.

    Example:
        figure = destination(suite, scores, 50)
    """
    results = suite.results
    primed = {name: primed_for(arm, results.config) for name, arm in results.arms.items() if arm.priming}
    if len({method for method in primed.values() if method}) < 2:
        return None

    # Gains over the control: a positive value, which is drawn in blue, is the better one.
    values, texts = [], []
    for arm in primed:
        row = []
        for method in results.methods:
            score, base = scores.get((arm, method, shots)), scores.get((suite.control or "", method, shots))
            row.append(math.nan if score is None or base is None else score.mean - base.mean)
        values.append(tuple(map(suite.kind.metric.rank, row)))
        texts.append(tuple("–" if math.isnan(gain) else f"{gain:+.1f}".replace("-", "−") for gain in row))

    # Cells tuned with the method, or a variant of it, that the arm was primed for.
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
        f"columns tuned with. Blue is better, orange "
        "worse; the stronger the colour, the larger the difference. Framed: tuned with the method that was primed for. "
        "Intervals are in the table of contrasts."
    )
    return Figure("destination", "Destination", caption, (panel,))


def gain_dots(suite: Suite, gains: Mapping[tuple[str, str, str], Interval], shots: int) -> Figure | None:
    """Returns gains over the control, one panel per method and language, a row per arm; None without gains.

    Args:
        suite: the suite.
        gains: (arm, method, language) -> interval.
        shots: K.

    Example:
        figure = gain_dots(suite, gains_over(suite, "none", 50), 50)
    """
    arms = [arm for arm in suite.results.arms if any(key[0] == arm for key in gains)]
    rows, label = tuple(map(suite.title, arms)), f"{suite.kind.metric.label} above the control (points)"
    panels = []
    for method, language in product(suite.results.methods, suite.results.languages):
        found = (
            (row, gains[arm, method, language]) for row, arm in enumerate(arms) if (arm, method, language) in gains
        )
        if dots := tuple(_dot(suite, row, 1, gain) for row, gain in found):
            panels.append(DotPanel(f"{language}, {method}", label, rows, dots))
    if not panels:
        return None
    caption = (
        f"Gain over the control by target language (K = {shots}), paired by seed. Bars are 95 % t-intervals over priming "
        "seeds, not corrected for their number; a single seed has none."
    )
    return Figure("gains", "Gains by language", caption, tuple(panels))


def forest(suite: Suite, contrasts: Mapping[tuple[str, str, str, int], Contrast]) -> Figure | None:
    """Returns the contrasts with their corrected intervals, one panel per method and K; None without any.

    Args:
        suite: the suite.
        contrasts: (arm, arm that is subtracted, method, K) -> contrast.

    Example:
        figure = forest(suite, contrasts_of(suite))
    """
    panels = []
    for method, shots in product(suite.results.methods, suite.results.shots):
        own = {key[:2]: one for key, one in contrasts.items() if key[2:] == (method, shots)}
        own = {key: one for key, one in own.items() if math.isfinite(one.difference)}
        rows = tuple(f"{suite.title(arm)} − {suite.title(subtracted)}" for arm, subtracted in own)
        dots = tuple(_dot(suite, row, int(one.bold), one.corrected) for row, one in enumerate(own.values()))
        if dots:
            title = f"{method}, K = {shots}" if len(suite.results.shots) > 1 else method
            panels.append(DotPanel(title, f"difference in {suite.kind.metric.label} (points)", rows, dots))
    if not panels:
        return None
    caption = (
        f"Differences, paired by seed. Bars are the corrected intervals of the table, so that all {len(contrasts)} hold at once; "
        f"“{TOO_FEW}”: the interval is wider than the scale."
    )
    legend = ((1, "excludes zero (bold in the table)"), (0, "not told apart from zero"))
    return Figure("forest", "Contrasts", caption, tuple(panels), legend)


def _dot(suite: Suite, row: int, series: int, interval: Interval) -> Dot:
    """Returns a value with its interval, or with a note where that is wider than the scale."""
    if interval.wider_than(suite.scale):
        return Dot(row, series, interval.mean, note=TOO_FEW)
    return Dot(row, series, interval.mean, interval.low, interval.high)


def error_bars(
    suite: Suite, errors: Mapping[tuple[str, str], Mapping[str, float]], unit: str, shots: int
) -> Figure | None:
    """Returns errors by kind and arm, one panel per method; None without errors.

    Args:
        suite: the suite.
        errors: (arm, method) -> kind -> number per 100 gold answers; the first kind, right answers,
            is not drawn.
        unit: the counted thing, in the plural.
        shots: K.

    Example:
        error_bars(suite, {("meta", "lora"): {"right": 60.0, "missed": 40.0}}, "gold entities", 50)
    """
    panels = []
    for method in suite.results.methods:
        rates = {arm: by_kind for (arm, tuned), by_kind in errors.items() if tuned == method}
        if rates:
            kinds = list(next(iter(rates.values())))
            parts = tuple(
                (_kind_series(place), tuple(by_kind[kind] for by_kind in rates.values()))
                for place, kind in enumerate(kinds)
                if place
            )
            panels.append(BarPanel(method, f"errors per 100 {unit}", tuple(map(suite.title, rates)), parts))
    if not panels:
        return None
    caption = f"Errors by kind, all seeds and target languages together (K = {shots}). No band: these are plain counts."
    legend = tuple((_kind_series(place), kind) for place, kind in enumerate(kinds) if place)
    return Figure("errors", "Errors", caption, tuple(panels), legend)


def _kind_series(place: int) -> int:
    """Returns the series number of a kind of error."""
    return KIND_SERIES[place % len(KIND_SERIES)]


def _legend(suite: Suite, arms: Iterable[str]) -> tuple[tuple[int, str], ...]:
    """Returns (series, title) of some arms, in the order of the suite."""
    shown, series = set(arms), series_of(suite)
    return tuple((series[arm], suite.title(arm)) for arm in suite.results.arms if arm in shown)


TICKS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ticks of the axis of parameters, per cent."""


@dataclass(frozen=True)
class Moved:
    """Number of parameters that an arm and method move, and their stability, from the records.

    Attributes:
        count: parameters that fine-tuning changes, the head excluded.
        share: their share of the encoder's parameters, per cent.
        change: leave-one-out change of the loss (nats) over seeds, mean over languages; None: not
            measured.
        gap: loss (nats) on a training sentence after training without it, minus that after training
            with it.
    """

    count: int
    share: float
    change: Interval | None
    gap: Interval | None


def moved(suite: Suite, arm: str, method: str, shots: int) -> Moved | None:
    """Returns the parameters that an arm and method move, with their stability; None if unknown.

    Example:
        moved(suite, "meta", "lora", 50).share
    """
    transfers = suite.select(arm=arm, method=method, shots=shots)
    sizes = [transfer.record["parameters"] for transfer in transfers if "parameters" in transfer.record]
    if not sizes:
        return None
    changes: dict[int, list[float]] = {}
    gaps: dict[int, list[float]] = {}
    for transfer in transfers:
        if stability := transfer.record.get("stability"):
            changes.setdefault(transfer.entry.seed, []).append(stability["change"])
            gaps.setdefault(transfer.entry.seed, []).append(stability["without"] - stability["with"])
    count = sizes[0].get("stored", sizes[0]["adapter"])
    return Moved(count, 100 * count / sizes[0]["encoder"], _over_seeds(changes), _over_seeds(gaps))


def _over_seeds(values: Mapping[int, list[float]]) -> Interval | None:
    """Returns the interval of the seeds' means."""
    means = [sum(of_seed) / len(of_seed) for of_seed in values.values()]
    return t_interval(means) if means else None


def over_parameters(suite: Suite, scores: Mapping[tuple[str, str, int], Interval], shots: int) -> Figure | None:
    """Returns the score over the share of parameters, a curve per `Arm.line` that arms share, or None.

    Args:
        suite: the suite.
        scores: (arm, method, K) -> interval.
        shots: K.

    Example:
        figure = over_parameters(suite, all_scores(suite)[0], 50)
    """
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
                x, intervals = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                drawn.append(
                    Line(
                        series,
                        x,
                        tuple(y.mean for y in intervals),
                        tuple(y.mean - _or_zero(y.deviation / math.sqrt(y.count)) for y in intervals),
                        tuple(y.mean + _or_zero(y.deviation / math.sqrt(y.count)) for y in intervals),
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
    """Returns a finite value; 0 for nan."""
    return value if math.isfinite(value) else 0.0
