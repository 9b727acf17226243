"""Gathers the content of a report for `write` to render: sections of tables, figures, sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from metaprime.config.yaml import written
from metaprime.reports import curves
from metaprime.reports.document import Report, ReportSection, Table, TableCell, figure_section
from metaprime.reports.headline import finding, title_of
from metaprime.reports.read import Suite, cost
from metaprime.reports.run_tables import primings_section, run_rows, runs_summary, transfers_section
from metaprime.reports.score_tables import (
    contrasts_section,
    errors_section,
    gains_section,
    parameters_sections,
    scores_section,
    warnings_of,
)
from metaprime.reports.scores import all_scores, contrasts_of, middle_shots
from metaprime.reports.sentences import arms_compared, examples
from metaprime.reports.wording import UNKNOWN, listed
from metaprime.runs.found import suites_below
from metaprime.runs.provenance import machines_text
from metaprime.runs.records import Record, headline

if TYPE_CHECKING:
    from metaprime.tasks.task import Metric


def gather(suite: Suite) -> Report:
    """Returns the content of the report; a section without data gives the reason.

    Example:
        report = gather(read_suite(Path("runs/order")))
    """
    if not suite.results.asked:
        return _gather_runs(suite)
    results, label = suite.results, suite.kind.metric.label
    scores, over_examples = all_scores(suite)
    shots = middle_shots(suite)
    contrasts = contrasts_of(suite)

    sections = [
        scores_section(suite, scores, over_examples),
        contrasts_section(suite, contrasts),
        *parameters_sections(suite, scores, shots),
        *figure_section("shots", f"{label} over K", curves.shot_curves(suite, scores), None),
        *figure_section("destination", "Destination", curves.destination(suite, scores, shots), None),
        gains_section(suite, shots),
        *figure_section("learning", "Learning curves", curves.learning_curves(suite), "No metrics of priming runs."),
        *figure_section("inner", "Inner loop", curves.inner_curves(suite), "No priming run with an inner loop."),
        errors_section(suite, shots),
        _examples_section(suite, shots),
        _missing_section(suite),
        _environment_section(suite),
    ]

    bold = [contrast for contrast in contrasts.values() if contrast.bold]
    unprimed = [suite.title(suite.control)] if suite.control else []
    summary = [
        finding(suite, contrasts),
        f"{len(results.arms)} arms, methods {listed(results.methods)}, target languages {listed(results.languages)}, K = "
        f"{listed(results.shots)}, priming seeds {listed(results.seeds)}.",
        f"{len(suite.transfers)} transfers read of {_wanted(suite)}; {len(results.failed)} failed.",
        *(
            [f"{len(bold)} of {len(contrasts)} contrasts are bold: their corrected interval excludes zero."]
            if contrasts
            else []
        ),
        *(f"Control: {title}." for title in unprimed),
        *warnings_of(suite),
    ]
    kinds = suite.kind.errors.kinds if suite.kind.errors else ()
    return Report(title_of(suite), tuple(summary), tuple(sections), tuple(_csv_rows(suite)), kinds)


def _gather_runs(suite: Suite) -> Report:
    """Returns the content of the report on plain runs."""
    sections = [
        transfers_section(suite),
        primings_section(suite),
        *figure_section("learning", "Learning curves", curves.learning_curves(suite), None),
        *figure_section("inner", "Inner loop", curves.inner_curves(suite), None),
        *([errors_section(suite, middle_shots(suite))] if suite.transfers else []),
        _missing_section(suite),
        _environment_section(suite),
    ]
    suites = [f"A suite with a page of its own: metaprime report {path}" for path in suites_below(suite.folder)]
    kinds = suite.kind.errors.kinds if suite.kind.errors else ()
    rows = [*_csv_rows(suite)] or run_rows(suite)
    return Report(
        suite.results.name, (*runs_summary(suite), *warnings_of(suite), *suites), tuple(sections), tuple(rows), kinds
    )


def _examples_section(suite: Suite, shots: int) -> ReportSection:
    """Returns test examples that two arms answer differently."""
    arms = arms_compared(suite)
    if arms is None:
        return ReportSection("sentences", "Sentences", "There are no two arms to compare.")
    note, comparisons = examples(suite, arms, shots)
    return ReportSection("sentences", "Sentences", note, examples=comparisons)


def _missing_section(suite: Suite) -> ReportSection:
    """Returns tables of failed cells, missing transfers and unusable files."""
    results, missing = suite.results, suite.missing() if suite.results.asked else []
    tables = []
    if results.failed:
        rows = (
            (TableCell(suite.title(f.arm)), TableCell(UNKNOWN if f.seed is None else str(f.seed)), TableCell(f.error))
            for f in results.failed
        )
        caption = "Failed cells." if results.asked else "Records that are not shown."
        tables.append(Table(caption, ("arm", "seed", "error"), tuple(rows)))
    if missing:
        rows = (
            (TableCell(suite.title(arm)), TableCell(str(seed)), TableCell(f"{present} of {wanted}"))
            for arm, seed, present, wanted in missing
        )
        caption = "Missing transfers. A seed that lacks a language is left out of scores and contrasts."
        tables.append(Table(caption, ("arm", "seed", "transfers"), tuple(rows)))
    if suite.problems:
        problems = tuple((TableCell(problem),) for problem in suite.problems)
        tables.append(Table("Files that could not be used.", ("problem",), problems))
    note = "" if tables else "Nothing failed, nothing is missing."
    return ReportSection("missing", "Failed and missing", note, tuple(tables))


def _environment_section(suite: Suite) -> ReportSection:
    """Returns tables of arms and versions, with the commands and the base config."""
    results = suite.results
    versions = tuple((TableCell(name), TableCell(version)) for name, version in results.versions.items())
    arms = tuple(
        (
            TableCell(name),
            TableCell(arm.title),
            TableCell(_listed_overrides(arm.set)),
            TableCell(_listed_overrides(arm.transfer)),
            TableCell(arm.priming[:12] if arm.priming else UNKNOWN),
            TableCell(
                ", ".join(f"{m} {UNKNOWN if rate is None else f'{rate:g}'}" for m, rate in arm.rates.items()) or UNKNOWN
            ),
        )
        for name, arm in results.arms.items()
    )
    header = ("arm", "title", "overrides", "overrides of transfer", "priming run", "downstream rates")
    tables = [Table("Arms and their changes to the base config.", header, arms)] if arms and results.asked else []
    tables += [Table("Versions.", ("package", "version"), versions)] if versions else []

    commands = "\n".join(line for line in (results.command, f"metaprime report {suite.folder}") if line)
    config = written(results.config) if results.config else ""
    code = [("Commands", commands), *([("Base config", config)] if config else [])]
    machines = f"{machines_text(transfer.record.get('volatile', {}) for transfer in suite.transfers)}."
    note = f"Priming seeds {listed(results.seeds)}. {machines}" if results.asked else machines
    return ReportSection("environment", "Environment", note, tuple(tables), code=tuple(code))


def _listed_overrides(overrides: Any) -> str:
    """Writes an arm's overrides, a mapping or a list of `key=value` strings, on one line."""
    if not overrides:
        return UNKNOWN
    if isinstance(overrides, dict):
        return ", ".join(f"{key}={value}" for key, value in overrides.items())
    return ", ".join(map(str, overrides)) if isinstance(overrides, list | tuple) else str(overrides)


def _wanted(suite: Suite) -> int:
    """Returns the number of transfers in a complete suite."""
    results = suite.results
    return math.prod(map(len, (results.arms, results.methods, results.languages, results.shots, results.seeds)))


def _csv_rows(suite: Suite) -> Iterable[dict[str, Any]]:
    """Yields the CSV's row of each transfer; None: unknown."""
    for transfer in suite.transfers:
        entry, record = transfer.entry, transfer.record
        arm = suite.results.arms.get(entry.arm)
        facts = arm.facts if arm else None
        scores = {metric.column: _number_of(record, metric) for metric in suite.kind.metrics}
        kinds = suite.kind.errors.kinds if suite.kind.errors else ()
        errors = dict(zip(kinds, transfer.errors or (None,) * len(kinds), strict=True))
        passes, flops, seconds = cost([transfer])
        yield {
            "arm": entry.arm,
            "title": suite.title(entry.arm),
            "method": entry.method,
            "shots": entry.shots,
            "seed": entry.seed,
            "language": entry.language,
            **scores,
            **errors,
            "rate": record["training"].get("lr"),
            "priming_passes": facts.sentence_passes if facts else None,
            "priming_passes_chosen": facts.sentence_passes_chosen if facts else None,
            "priming_flops": facts.flops if facts else None,
            "priming_flops_chosen": facts.flops_chosen if facts else None,
            "priming_seconds": facts.seconds if facts else None,
            "at_equal_compute": suite.results.matched.get(entry.arm),
            "transfer_passes": None if math.isnan(passes) else passes,
            "transfer_flops": None if math.isnan(flops) else flops,
            "transfer_seconds": None if math.isnan(seconds) else seconds,
            "record": entry.path,
        }


def _number_of(record: Record, metric: Metric) -> float | None:
    """Returns a record's value of a metric; None if it has none."""
    try:
        return headline(record, metric)
    except (KeyError, TypeError):
        return None
