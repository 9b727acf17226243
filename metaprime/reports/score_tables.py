"""Makes the report's tables of scores, contrasts, gains, errors and parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product

from metaprime.reports import curves
from metaprime.reports.compute import COUNTED, Unit, how_equal, priming_cost, unit_of
from metaprime.reports.curves import moved, over_parameters
from metaprime.reports.document import Cell, Section, Table, figure_section
from metaprime.reports.read import Suite, cost
from metaprime.reports.scores import ContrastKey, Scores, gains_over
from metaprime.reports.wording import UNKNOWN, limits, listed, means, number, p_text, signed, spread, subtraction, whole
from metaprime.runs.results import Arm
from metaprime.stats.intervals import Contrast, Interval
from metaprime.tasks.tagging.errors import KINDS, ErrorCounts


def scores_section(suite: Suite, scores: Scores, over_sentences: set[tuple[str, str, int]]) -> Section:
    """Returns one table of scores and compute for each K; `over_sentences` as of `scores.all_scores`."""
    if not scores:
        return Section("scores", "Scores", "No arm has a seed with all target languages yet.")
    return Section(
        "scores",
        "Scores",
        "Compute stands beside every score: priming up to its chosen stopping point of what was allowed, then one transfer; "
        "seconds are of the machine it ran on.",
        tuple(_scores_table(suite, scores, over_sentences, shots) for shots in suite.results.shots),
    )


def _scores_table(suite: Suite, scores: Scores, over_sentences: set[tuple[str, str, int]], shots: int) -> Table:
    results = suite.results
    priming_unit = unit_of(priming_cost(arm).flops for arm in results.arms.values())
    spent = {name: cost(suite.select(arm=name, shots=shots)) for name in results.arms}
    transfer_unit = unit_of(one.flops for one in spent.values())
    rows = []
    for name, arm in results.arms.items():
        keys = [(name, method, shots) for method in results.methods]
        cells = [
            Cell(arm.title),
            *(_score_cell(scores.get(key), key in over_sentences, len(results.seeds)) for key in keys),
        ]
        if results.matched:
            cells.append(_baseline(suite, scores, results.matched.get(name), shots))
        passes, flops, seconds = spent[name]
        cells += priming_cells(arm, priming_unit)
        cells += [Cell(whole(passes)), Cell(transfer_unit.text(flops, UNKNOWN)), Cell(whole(seconds))]
        rows.append(tuple(cells))
    caption = (
        f"Entity F1 (%, lenient, micro), mean of {listed(results.languages)} after K = {shots} sentences each; mean ± standard "
        "deviation over priming seeds; in brackets the 95 % interval over priming seeds and test sentences (°: over seeds "
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


def _score_cell(found: Interval | None, over_sentences: bool, seeds: int) -> Cell:
    if found is None:
        return Cell(UNKNOWN)
    note = limits(found) + ("" if over_sentences or found.count < 2 else " °")
    if found.count < seeds:
        note = f"{note} {found.count} of {seeds} seeds".strip()
    return Cell(spread(found), note)


def _baseline(suite: Suite, scores: Scores, arm: str | None, shots: int) -> Cell:
    """Returns the means of the arm's baseline at equal compute, by method."""
    if arm is None:
        return Cell(UNKNOWN)
    methods = suite.results.methods
    return Cell(means(scores.get((arm, method, shots)) for method in methods), " / ".join(methods))


def priming_cells(arm: Arm, unit: Unit) -> list[Cell]:
    """Returns passes, FLOPs and seconds of an arm's priming, up to the stopping point and in the notes of all steps.

    Args:
        unit: of the column of FLOPs.

    Example:
        passes, flops, seconds = priming_cells(arm, unit_of([priming_cost(arm).flops]))
    """
    if arm.priming is None:
        return [Cell("0")] * 3
    facts, flops = arm.facts, priming_cost(arm)
    return [
        Cell(whole(facts.sentence_passes_chosen), f"of {whole(facts.sentence_passes)}") if facts else Cell(UNKNOWN),
        Cell(unit.text(flops.chosen, UNKNOWN), f"of {unit.text(flops.flops, UNKNOWN)}" if flops.flops else ""),
        Cell(whole(facts.seconds if facts else None)),
    ]


def parameters_sections(suite: Suite, scores: Scores, shots: int) -> Iterable[Section]:
    """Yields F1 over parameters where arms differ in them, and how stable each arm is where that was measured."""
    yield from figure_section("over-parameters", "F1 over parameters", over_parameters(suite, scores, shots), None)
    rows = []
    for arm, method in product(suite.results.arms, suite.results.methods):
        size, found = moved(suite, arm, method, shots), scores.get((arm, method, shots))
        if size and found:
            stability = [f"{one.mean:.3f} ± {one.deviation:.3f}" if one else UNKNOWN for one in (size.change, size.gap)]
            cells = (suite.title(arm), method, f"{size.count:,}", f"{size.share:.2f}", spread(found), *stability)
            rows.append(tuple(Cell(cell) for cell in cells))
    if len({row[2] for row in rows}) < 2 and not any(row[5].text != UNKNOWN for row in rows):
        return
    caption = (
        f"Parameters that fine-tuning moves, the head apart, and their share of the encoder's (K = {shots}). Left out: the mean "
        "distance of the loss on a training sentence (nats) from its loss after training without it; gap: how much higher the "
        "latter is. Means ± standard deviations over seeds, each a mean over languages."
    )
    header = ("arm", "method", "parameters", "%", "F1", "left out", "gap")
    yield Section("parameters", "Parameters and stability", "", (Table(caption, header, tuple(rows)),))


def contrasts_section(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> Section:
    """Returns the table of all contrasts asked for, in bold those that stand among the others."""
    if not contrasts:
        return Section("contrasts", "Contrasts", "No contrast has two arms with a common complete seed yet.")
    several = len(suite.results.shots) > 1
    rows = []
    for (one, other, method, shots), found in contrasts.items():
        known = math.isfinite(found.difference)
        rows.append(
            (
                Cell(
                    subtraction(suite.title(one), suite.title(other)), f"{method}, K = {shots}" if several else method
                ),
                Cell(signed(found.difference), limits(found.interval, sign=True), found.bold),
                Cell(p_text(found.p)),
                Cell(p_text(found.adjusted_p)),
                Cell(limits(found.corrected, sign=True) or UNKNOWN),
                Cell(str(found.interval.count if known else 0)),
            )
        )
    caption = (
        f"Differences in F1 (points), paired by priming seed, with 95 % t-interval; p of the paired t-test, alone and adjusted "
        f"by Holm over all {len(contrasts)} contrasts here; corrected: interval at 1 − 0.05/{len(contrasts)} (Bonferroni). "
        "Bold: the corrected interval excludes zero."
    )
    header = ("contrast", "difference", "p", "p (Holm)", "corrected interval", "seeds")
    return Section("contrasts", "Contrasts", "", (Table(caption, header, tuple(rows)),))


def gains_section(suite: Suite, shots: int) -> Section:
    """Returns the gains over the control by language, a table for each method, and their figure."""
    if suite.control is None:
        return Section("gains", "Gains by language", "No arm without priming to compare with.")
    gains = gains_over(suite, suite.control, shots)
    if not gains:
        return Section("gains", "Gains by language", "No arm shares a seed with the control yet.")
    tables = []
    for method in suite.results.methods:
        rows = []
        for arm in suite.results.arms:
            found = [gains.get((arm, method, language)) for language in suite.results.languages]
            if any(found):
                cells = (Cell(signed(one.mean), limits(one, sign=True)) if one else Cell(UNKNOWN) for one in found)
                rows.append((Cell(suite.title(arm)), *cells))
        if rows:
            caption = (
                f"{method}, K = {shots}: F1 above {suite.title(suite.control)}, in points, paired by seed, with 95 % t-interval "
                "over priming seeds, each by itself: not corrected for their number, no claim rests on one."
            )
            tables.append(Table(caption, ("arm", *suite.results.languages), tuple(rows)))
    figure = curves.gain_dots(suite, gains, shots)
    return Section("gains", "Gains by language", "", tuple(tables), (figure,) if figure else ())


def errors_section(suite: Suite, shots: int) -> Section:
    """Returns the table of errors by kind, per 100 gold entities, and its figure."""
    errors: dict[tuple[str, str], ErrorCounts] = {}
    for arm in suite.results.arms:
        for method in suite.results.methods:
            known = [t.errors for t in suite.select(arm=arm, method=method, shots=shots) if t.errors]
            if known:
                errors[arm, method] = sum(known, ErrorCounts())
    if not errors:
        return Section("errors", "Entity errors", f"No predictions at K = {shots}.")
    rows = []
    for (arm, method), found in errors.items():
        rates = [Cell(number(100 * getattr(found, k) / found.gold) if found.gold else UNKNOWN) for k in KINDS]
        rows.append((Cell(suite.title(arm)), Cell(method), *rates, Cell(whole(found.gold))))
    caption = (
        f"Per 100 gold entities, all seeds and target languages together, K = {shots}: correct, boundary, type and missed add "
        "up to 100, spurious ones come on top. Type: same words, other type. Boundary: same type, at least one common "
        "word. Missed and spurious: the rest, gold and predicted; an overlap with neither the same limits nor the same type "
        "is one of each. Every entity counts once."
    )
    figure = curves.error_bars(suite, errors, shots)
    table = Table(caption, ("arm", "method", *KINDS, "gold entities"), tuple(rows))
    return Section("errors", "Entity errors", "", (table,), (figure,) if figure else ())
