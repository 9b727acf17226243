"""Builds the report's tables of scores, contrasts, gains, errors and parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from metaprime.reports import curves
from metaprime.reports.compute import COUNTED, Unit, how_equal, priming_cost, unit_of
from metaprime.reports.curves import moved, over_parameters
from metaprime.reports.document import ReportSection, Table, TableCell, figure_section
from metaprime.reports.read import Suite, cost
from metaprime.reports.scores import ContrastKey, Means, gains_over
from metaprime.reports.wording import (
    NOTHING,
    TOO_FEW,
    UNKNOWN,
    beside_trivial,
    interval_text,
    limits,
    listed,
    means,
    number,
    p_text,
    signed,
    subtraction,
    whole,
)
from metaprime.runs.results import Arm
from metaprime.stats.intervals import Contrast, Interval


def scores_section(suite: Suite, scores: Means, over_examples: set[tuple[str, str, int]]) -> ReportSection:
    """Returns the section with one table of scores and compute for each K.

    Args:
        suite: the suite.
        scores: (arm, method, K) -> interval.
        over_examples: keys of scores whose interval is over test examples too.

    Example:
        scores_section(suite, *all_scores(suite))
    """
    if not scores:
        return ReportSection("scores", "Scores", "No arm has a seed with all target languages yet.")
    return ReportSection(
        "scores",
        "Scores",
        "",
        (
            *(_scores_table(suite, scores, over_examples, shots) for shots in suite.results.shots),
            *(_compute_table(suite, shots) for shots in suite.results.shots),
        ),
    )


def _scores_table(suite: Suite, scores: Means, over_examples: set[tuple[str, str, int]], shots: int) -> Table:
    """Returns one row per arm: scores by method, and those of its baseline at equal compute."""
    results = suite.results
    rows = []
    for name, arm in results.arms.items():
        keys = [(name, method, shots) for method in results.methods]
        cells = [
            TableCell(arm.title),
            *(_score_cell(suite, key, scores.get(key), key in over_examples) for key in keys),
        ]
        if results.matched:
            cells.append(_baseline_means(suite, scores, results.matched.get(name), shots))
        rows.append(tuple(cells))

    caption = (
        f"{suite.kind.metric.described}, mean of {listed(results.languages)} after K = {shots} sentences each; mean ± standard "
        "deviation over priming seeds; in brackets the 95 % interval over priming seeds and test examples (°: over seeds "
        "alone, where predictions are lacking). A single seed has neither."
    )
    if results.matched:
        caption += f" {how_equal(results.matched, {name: priming_cost(arm) for name, arm in results.arms.items()})}"
    matched = ("at equal compute",) if results.matched else ()
    return Table(caption, ("arm", *results.methods, *matched), tuple(rows))


def _compute_table(suite: Suite, shots: int) -> Table:
    """Returns one row per arm: the compute of priming and of one transfer."""
    arms = suite.results.arms
    priming_unit = unit_of(priming_cost(arm).flops for arm in arms.values())
    spent = {name: cost(suite.select(arm=name, shots=shots)) for name in arms}
    transfer_unit = unit_of(transfer.flops for transfer in spent.values())
    rows = []
    for name, arm in arms.items():
        passes, flops, seconds = spent[name]
        own = (whole(passes), transfer_unit.text(flops, UNKNOWN), whole(seconds))
        rows.append((TableCell(arm.title), *priming_cells(arm, priming_unit), *map(TableCell, own)))
    caption = (
        f"Compute of priming, up to the chosen stopping point and of all steps, and of one transfer (K = {shots}). Passes are "
        f"sentences through the encoder in training. {COUNTED}. Seconds depend on the machine."
    )
    compute = (
        f"{stage} {quantity}"
        for stage, unit in (("priming", priming_unit), ("transfer", transfer_unit))
        for quantity in ("passes", unit.name, "s")
    )
    return Table(caption, ("arm", *compute), tuple(rows))


def _score_cell(suite: Suite, key: tuple[str, str, int], score: Interval | None, over_examples: bool) -> TableCell:
    """Returns mean and deviation, with a note of the interval and of missing seeds."""
    if score is None:
        return TableCell(UNKNOWN)
    arm, method, shots = key
    if suite.silent(arm, method=method, shots=shots):
        return TableCell(interval_text(score), NOTHING)
    note = limits(score, scale=suite.scale) + ("" if over_examples or score.count < 2 else " °")
    if score.count < (seeds := len(suite.results.seeds)):
        note = f"{note} {score.count} of {seeds} seeds".strip()
    return TableCell(interval_text(score), note)


def _baseline_means(suite: Suite, scores: Means, arm: str | None, shots: int) -> TableCell:
    """Returns the means of a baseline at equal compute, by method; unknown for None."""
    if arm is None:
        return TableCell(UNKNOWN)
    methods = suite.results.methods
    return TableCell(means(scores.get((arm, method, shots)) for method in methods), " / ".join(methods))


def priming_cells(arm: Arm, unit: Unit) -> list[TableCell]:
    """Returns passes, FLOPs and seconds of priming up to the stopping point; notes: all steps.

    Args:
        arm: arm of the results.
        unit: unit of the column of FLOPs.

    Example:
        passes, flops, seconds = priming_cells(arm, unit_of([priming_cost(arm).flops]))
    """
    if arm.priming is None:
        return [TableCell("0")] * 3
    facts, flops = arm.facts, priming_cost(arm)
    return [
        TableCell(whole(facts.sentence_passes_chosen), f"of {whole(facts.sentence_passes)}")
        if facts
        else TableCell(UNKNOWN),
        TableCell(unit.text(flops.chosen, UNKNOWN), f"of {unit.text(flops.flops, UNKNOWN)}" if flops.flops else ""),
        TableCell(whole(facts.seconds if facts else None)),
    ]


def parameters_sections(suite: Suite, scores: Means, shots: int) -> Iterable[ReportSection]:
    """Yields the figure over parameters, and the table of parameters and stability, if arms differ.

    Args:
        suite: the suite.
        scores: (arm, method, K) -> interval.
        shots: K.

    Example:
        sections = [*parameters_sections(suite, scores, 50)]
    """
    metric = suite.kind.metric.label
    figure = over_parameters(suite, scores, shots)
    yield from figure_section("over-parameters", f"{metric} over parameters", figure, None)
    rows = []
    for arm, method in product(suite.results.arms, suite.results.methods):
        size, score = moved(suite, arm, method, shots), scores.get((arm, method, shots))
        if size and score:
            losses = (size.change, size.gap)
            stability = [f"{loss.mean:.3f} ± {loss.deviation:.3f}" if loss else UNKNOWN for loss in losses]
            cells = (suite.title(arm), method, f"{size.count:,}", f"{size.share:.2f}", interval_text(score), *stability)
            rows.append(tuple(TableCell(cell) for cell in cells))
    if len({row[2] for row in rows}) < 2 and not any(row[5].text != UNKNOWN for row in rows):
        return

    caption = (
        f"Parameters that fine-tuning moves, the head apart, and their share of the encoder's (K = {shots}). Left out: the mean "
        "absolute difference (nats) between the losses on a training sentence after training with and without it; gap: the loss "
        "without it minus the loss with it. Means ± standard deviations over seeds, each a mean over languages."
    )
    header = ("arm", "method", "parameters", "%", metric, "left out", "gap")
    yield ReportSection("parameters", "Parameters and stability", "", (Table(caption, header, tuple(rows)),))


BOLD = "Bold: the corrected interval excludes zero, with three seeds at least."
"""Explanation of bold differences, for captions."""


@dataclass(frozen=True)
class ContrastTexts:
    """The texts of a contrast's intervals and p-values; empty intervals do not exist."""

    interval: str
    corrected: str
    p: str
    adjusted_p: str


def contrast_texts(suite: Suite, key: ContrastKey, contrast: Contrast) -> ContrastTexts:
    """Returns the texts of a contrast; without numbers where neither arm predicted anything.

    Example: `contrast_texts(suite, key, contrasts_of(suite)[key]).corrected`
    """
    arm, subtracted, method, shots = key
    if suite.silent(arm, subtracted, method=method, shots=shots):
        return ContrastTexts(NOTHING, NOTHING, UNKNOWN, UNKNOWN)
    alone, corrected = (limits(one, sign=True, scale=suite.scale) for one in (contrast.interval, contrast.corrected))
    return ContrastTexts(alone, corrected, p_text(contrast.p), p_text(contrast.adjusted_p))


def explained(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> str:
    """Returns the explanation of the texts in place of intervals, if a table of these contrasts has any.

    Example: `caption += explained(suite, contrasts_of(suite))`
    """
    texts = {text for key, one in contrasts.items() for text in vars(contrast_texts(suite, key, one)).values()}
    wide = f" “{TOO_FEW}”: the interval is wider than the scale ({number(suite.scale)})." if TOO_FEW in texts else ""
    return wide + (f" “{NOTHING}”: by neither arm, in any test example." if NOTHING in texts else "")


def warnings_of(suite: Suite) -> list[str]:
    """Returns sentences about transfers that learned nothing: silent ones, and those like an answer that reads no text.

    Example: `warnings_of(suite)`
    """
    names = [f"{suite.title(one.entry.arm)} ({one.entry.method}, K = {one.entry.shots})" for one in suite.transfers]
    return [*_silences(suite), *beside_trivial([one.record for one in suite.transfers], suite.kind, names)]


def _silences(suite: Suite) -> list[str]:
    """Returns a sentence about the transfers that predicted nothing, or no sentence."""
    silent = [transfer for transfer in suite.transfers if transfer.silent]
    if not silent:
        return []
    if len(silent) == len(suite.transfers):
        return [
            f"None of the {len(silent)} transfers predicted anything in any test example: all scores are those of empty "
            "predictions, and their differences say nothing."
        ]
    rows = Counter((t.entry.arm, t.entry.method, t.entry.shots) for t in silent)
    where = (
        f"{suite.title(arm)} ({method}, K = {shots}) {count} of {len(suite.select(arm=arm, method=method, shots=shots))}"
        for (arm, method, shots), count in rows.items()
    )
    return [
        f"{len(silent)} of {len(suite.transfers)} transfers predicted nothing in any test example, which gives the score of "
        f"empty predictions: {'; '.join(where)}."
    ]


def contrasts_section(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> ReportSection:
    """Returns the table of contrasts: `contrasts_section(suite, contrasts_of(suite))`.

    Bold: the corrected interval excludes zero.
    """
    if not contrasts:
        return ReportSection("contrasts", "Contrasts", "No contrast has two arms with a common complete seed yet.")
    several = len(suite.results.shots) > 1
    rows = []
    for key, contrast in contrasts.items():
        arm, subtracted, method, shots = key
        told, known = contrast_texts(suite, key, contrast), math.isfinite(contrast.difference)
        name = subtraction(suite.title(arm), suite.title(subtracted))
        rows.append(
            (
                TableCell(name, f"{method}, K = {shots}" if several else method),
                TableCell(signed(contrast.difference), told.interval, contrast.bold),
                TableCell(told.p),
                TableCell(told.adjusted_p),
                TableCell(told.corrected or UNKNOWN),
                TableCell(str(contrast.interval.count if known else 0)),
            )
        )

    caption = (
        f"Differences in {suite.kind.metric.label} (points), paired by priming seed, with 95 % t-interval; p of "
        f"the paired t-test, alone and adjusted "
        f"by Holm over all {len(contrasts)} contrasts here; corrected: interval at 1 − 0.05/{len(contrasts)} (Bonferroni). "
        f"{BOLD}{explained(suite, contrasts)}"
    )
    header = ("contrast", "difference", "p", "p (Holm)", "corrected interval", "seeds")
    figure = curves.forest(suite, contrasts)
    return ReportSection(
        "contrasts", "Contrasts", "", (Table(caption, header, tuple(rows)),), (figure,) if figure else ()
    )


def gains_section(suite: Suite, shots: int) -> ReportSection:
    """Returns the gains over the control by language, one table per method, and their figure.

    Example: `gains_section(suite, 50)`
    """
    if suite.control is None:
        return ReportSection("gains", "Gains by language", "No arm without priming to compare with.")
    gains = gains_over(suite, suite.control, shots)
    if not gains:
        return ReportSection("gains", "Gains by language", "No arm shares a seed with the control yet.")
    tables = []
    for method in suite.results.methods:
        rows = []
        for arm in suite.results.arms:
            keys = [(arm, method, language) for language in suite.results.languages]
            if gains.keys() & set(keys):
                cells = (_gain_cell(suite, key, shots, gains.get(key)) for key in keys)
                rows.append((TableCell(suite.title(arm)), *cells))
        if rows:
            caption = (
                f"{method}, K = {shots}: {suite.kind.metric.label} above {suite.title(suite.control)}, in "
                f"points, paired by seed, with 95 % t-interval "
                "over priming seeds. The intervals are not corrected for their number: no claim rests on one of them."
            )
            tables.append(Table(caption, ("arm", *suite.results.languages), tuple(rows)))
    figure = curves.gain_dots(suite, gains, shots)
    return ReportSection("gains", "Gains by language", "", tuple(tables), (figure,) if figure else ())


def _gain_cell(suite: Suite, key: tuple[str, str, str], shots: int, gain: Interval | None) -> TableCell:
    """Returns the difference from the control of an arm, method and language, with its interval."""
    if gain is None:
        return TableCell(UNKNOWN)
    arm, method, language = key
    silent = suite.silent(arm, str(suite.control), method=method, language=language, shots=shots)
    return TableCell(signed(gain.mean), NOTHING if silent else limits(gain, sign=True, scale=suite.scale))


def errors_section(suite: Suite, shots: int) -> ReportSection:
    """Returns the table of errors by kind, per 100 gold answers, and its figure.

    Example: `errors_section(suite, 50)`
    """
    errors = suite.kind.errors
    if errors is None:
        return ReportSection("errors", "Errors", f"The task {suite.kind.name} does not sort its mistakes.")

    rates: dict[tuple[str, str], dict[str, float]] = {}
    rows = []
    for arm, method in product(suite.results.arms, suite.results.methods):
        known = [t.errors for t in suite.select(arm=arm, method=method, shots=shots) if t.errors]
        if known:
            sums = dict(zip(errors.kinds, map(sum, zip(*known, strict=True)), strict=True))
            gold = sum(sums[kind] for kind in errors.reference)
            per_100 = {kind: 100 * sums[kind] / gold if gold else math.nan for kind in errors.kinds}
            cells = [TableCell(number(rate)) for rate in per_100.values()]
            rows.append((TableCell(suite.title(arm)), TableCell(method), *cells, TableCell(whole(gold))))
            if gold:
                rates[arm, method] = per_100
    if not rows:
        return ReportSection("errors", "Errors", f"No predictions at K = {shots}.")

    caption = f"Per 100 {errors.unit}, all seeds and target languages together, K = {shots}. {errors.caption}"
    figure = curves.error_bars(suite, rates, errors.unit, shots)
    table = Table(caption, ("arm", "method", *errors.kinds, errors.unit), tuple(rows))
    return ReportSection("errors", "Errors", "", (table,), (figure,) if figure else ())
