"""Makes the report's tables of scores, contrasts, gains, errors and parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product

from metaprime.reports import curves
from metaprime.reports.compute import COUNTED, Unit, how_equal, priming_cost, unit_of
from metaprime.reports.curves import moved, over_parameters
from metaprime.reports.document import ReportSection, Table, TableCell, figure_section
from metaprime.reports.read import Suite, cost
from metaprime.reports.scores import ContrastKey, Means, gains_over
from metaprime.reports.wording import (
    UNKNOWN,
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
    """Returns one table of scores and compute for each K; `over_examples` as of `scores.all_scores`."""
    if not scores:
        return ReportSection("scores", "Scores", "No arm has a seed with all target languages yet.")
    return ReportSection(
        "scores",
        "Scores",
        "Compute stands beside every score: priming up to its chosen stopping point of what was allowed, then one transfer; "
        "seconds are of the machine it ran on.",
        tuple(_scores_table(suite, scores, over_examples, shots) for shots in suite.results.shots),
    )


def _scores_table(suite: Suite, scores: Means, over_examples: set[tuple[str, str, int]], shots: int) -> Table:
    results = suite.results
    priming_unit = unit_of(priming_cost(arm).flops for arm in results.arms.values())
    spent = {name: cost(suite.select(arm=name, shots=shots)) for name in results.arms}
    transfer_unit = unit_of(one.flops for one in spent.values())
    rows = []
    for name, arm in results.arms.items():
        keys = [(name, method, shots) for method in results.methods]
        cells = [
            TableCell(arm.title),
            *(_score_cell(scores.get(key), key in over_examples, len(results.seeds)) for key in keys),
        ]
        if results.matched:
            cells.append(_baseline_means(suite, scores, results.matched.get(name), shots))
        passes, flops, seconds = spent[name]
        cells += priming_cells(arm, priming_unit)
        cells += [TableCell(whole(passes)), TableCell(transfer_unit.text(flops, UNKNOWN)), TableCell(whole(seconds))]
        rows.append(tuple(cells))
    caption = (
        f"{suite.kind.metric.described}, mean of {listed(results.languages)} after K = {shots} sentences each; mean ± standard "
        "deviation over priming seeds; in brackets the 95 % interval over priming seeds and test examples (°: over seeds "
        "alone, where predictions are lacking). A single seed has neither. Passes are sentences through the encoder in "
        f"training. {COUNTED}."
    )
    if results.matched:
        caption += f" {how_equal(results.matched, {name: priming_cost(arm) for name, arm in results.arms.items()})}"
    matched = ("at equal compute",) if results.matched else ()
    compute = tuple(
        f"{stage} {what}"
        for stage, unit in (("priming", priming_unit), ("transfer", transfer_unit))
        for what in ("passes", unit.name, "s")
    )
    return Table(caption, ("arm", *results.methods, *matched, *compute), tuple(rows))


def _score_cell(found: Interval | None, over_examples: bool, seeds: int) -> TableCell:
    if found is None:
        return TableCell(UNKNOWN)
    note = limits(found) + ("" if over_examples or found.count < 2 else " °")
    if found.count < seeds:
        note = f"{note} {found.count} of {seeds} seeds".strip()
    return TableCell(interval_text(found), note)


def _baseline_means(suite: Suite, scores: Means, arm: str | None, shots: int) -> TableCell:
    """Returns the means of the arm's baseline at equal compute, by method."""
    if arm is None:
        return TableCell(UNKNOWN)
    methods = suite.results.methods
    return TableCell(means(scores.get((arm, method, shots)) for method in methods), " / ".join(methods))


def priming_cells(arm: Arm, unit: Unit) -> list[TableCell]:
    """Returns passes, FLOPs and seconds of an arm's priming, up to the stopping point and in the notes of all steps.

    Args:
        unit: of the column of FLOPs.

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
    """Yields the score over parameters where arms differ in them, and each arm's stability where that was measured."""
    metric = suite.kind.metric.label
    figure = over_parameters(suite, scores, shots)
    yield from figure_section("over-parameters", f"{metric} over parameters", figure, None)
    rows = []
    for arm, method in product(suite.results.arms, suite.results.methods):
        size, found = moved(suite, arm, method, shots), scores.get((arm, method, shots))
        if size and found:
            stability = [f"{one.mean:.3f} ± {one.deviation:.3f}" if one else UNKNOWN for one in (size.change, size.gap)]
            cells = (suite.title(arm), method, f"{size.count:,}", f"{size.share:.2f}", interval_text(found), *stability)
            rows.append(tuple(TableCell(cell) for cell in cells))
    if len({row[2] for row in rows}) < 2 and not any(row[5].text != UNKNOWN for row in rows):
        return
    caption = (
        f"Parameters that fine-tuning moves, the head apart, and their share of the encoder's (K = {shots}). Left out: the mean "
        "distance of the loss on a training sentence (nats) from its loss after training without it; gap: how much higher the "
        "latter is. Means ± standard deviations over seeds, each a mean over languages."
    )
    header = ("arm", "method", "parameters", "%", metric, "left out", "gap")
    yield ReportSection("parameters", "Parameters and stability", "", (Table(caption, header, tuple(rows)),))


def contrasts_section(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> ReportSection:
    """Returns the table of all contrasts asked for, in bold those that stand among the others."""
    if not contrasts:
        return ReportSection("contrasts", "Contrasts", "No contrast has two arms with a common complete seed yet.")
    several = len(suite.results.shots) > 1
    rows = []
    for (one, other, method, shots), found in contrasts.items():
        known = math.isfinite(found.difference)
        rows.append(
            (
                TableCell(
                    subtraction(suite.title(one), suite.title(other)), f"{method}, K = {shots}" if several else method
                ),
                TableCell(signed(found.difference), limits(found.interval, sign=True), found.bold),
                TableCell(p_text(found.p)),
                TableCell(p_text(found.adjusted_p)),
                TableCell(limits(found.corrected, sign=True) or UNKNOWN),
                TableCell(str(found.interval.count if known else 0)),
            )
        )
    caption = (
        f"Differences in {suite.kind.metric.label} (points), paired by priming seed, with 95 % t-interval; p of "
        f"the paired t-test, alone and adjusted "
        f"by Holm over all {len(contrasts)} contrasts here; corrected: interval at 1 − 0.05/{len(contrasts)} (Bonferroni). "
        "Bold: the corrected interval excludes zero."
    )
    header = ("contrast", "difference", "p", "p (Holm)", "corrected interval", "seeds")
    return ReportSection("contrasts", "Contrasts", "", (Table(caption, header, tuple(rows)),))


def gains_section(suite: Suite, shots: int) -> ReportSection:
    """Returns the gains over the control by language, a table for each method, and their figure."""
    if suite.control is None:
        return ReportSection("gains", "Gains by language", "No arm without priming to compare with.")
    gains = gains_over(suite, suite.control, shots)
    if not gains:
        return ReportSection("gains", "Gains by language", "No arm shares a seed with the control yet.")
    tables = []
    for method in suite.results.methods:
        rows = []
        for arm in suite.results.arms:
            found = [gains.get((arm, method, language)) for language in suite.results.languages]
            if any(found):
                cells = (
                    TableCell(signed(one.mean), limits(one, sign=True)) if one else TableCell(UNKNOWN) for one in found
                )
                rows.append((TableCell(suite.title(arm)), *cells))
        if rows:
            caption = (
                f"{method}, K = {shots}: {suite.kind.metric.label} above {suite.title(suite.control)}, in "
                f"points, paired by seed, with 95 % t-interval "
                "over priming seeds, each by itself: not corrected for their number, no claim rests on one."
            )
            tables.append(Table(caption, ("arm", *suite.results.languages), tuple(rows)))
    figure = curves.gain_dots(suite, gains, shots)
    return ReportSection("gains", "Gains by language", "", tuple(tables), (figure,) if figure else ())


def errors_section(suite: Suite, shots: int) -> ReportSection:
    """Returns the table of errors by kind, per 100 gold answers, and its figure."""
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
            own = {kind: 100 * sums[kind] / gold if gold else math.nan for kind in errors.kinds}
            cells = [TableCell(number(rate)) for rate in own.values()]
            rows.append((TableCell(suite.title(arm)), TableCell(method), *cells, TableCell(whole(gold))))
            if gold:
                rates[arm, method] = own
    if not rows:
        return ReportSection("errors", "Errors", f"No predictions at K = {shots}.")
    caption = f"Per 100 {errors.unit}, all seeds and target languages together, K = {shots}. {errors.caption}"
    figure = curves.error_bars(suite, rates, errors.unit, shots)
    table = Table(caption, ("arm", "method", *errors.kinds, errors.unit), tuple(rows))
    return ReportSection("errors", "Errors", "", (table,), (figure,) if figure else ())
