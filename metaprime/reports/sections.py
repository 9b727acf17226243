"""Gathers the report of a suite as plain values: sections of tables, figures and sentences, which `write` writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import yaml

from metaprime.reports import curves
from metaprime.reports.document import Cell, Report, Section, Table, figure_section
from metaprime.reports.read import Suite, cost
from metaprime.reports.score_tables import (
    contrasts_section,
    errors_section,
    gains_section,
    parameters_sections,
    scores_section,
)
from metaprime.reports.scores import all_scores, contrasts_of, middle_shots
from metaprime.reports.sentences import arms_compared, examples
from metaprime.reports.wording import UNKNOWN, listed
from metaprime.tasks.tagging.errors import KINDS


def gather(suite: Suite) -> Report:
    """Returns everything the suite has to say, whatever it lacks.

    Example:
        report = gather(read_suite(Path("runs/order")))
    """
    results = suite.results
    scores, sentences_counted = all_scores(suite)
    shots = middle_shots(suite)
    contrasts = contrasts_of(suite)
    sections = [
        scores_section(suite, scores, sentences_counted),
        contrasts_section(suite, contrasts),
        *parameters_sections(suite, scores, shots),
        *figure_section("shots", "F1 over K", curves.shot_curves(suite, scores), None),
        *figure_section("destination", "Destination", curves.destination(suite, scores, shots), None),
        gains_section(suite, shots),
        *figure_section("learning", "Learning curves", curves.learning_curves(suite), "No metrics of priming runs."),
        *figure_section("inner", "Inner loop", curves.inner_curves(suite), "No priming run with an inner loop."),
        errors_section(suite, shots),
        _examples_section(suite, shots),
        _missing_section(suite),
        _environment_section(suite),
    ]
    stands = [contrast for contrast in contrasts.values() if contrast.bold]
    unprimed = [suite.title(suite.control)] if suite.control else []
    summary = [
        f"{len(results.arms)} arms, methods {listed(results.methods)}, target languages {listed(results.languages)}, K = "
        f"{listed(results.shots)}, priming seeds {listed(results.seeds)}.",
        f"{len(suite.transfers)} transfers read of {_wanted(suite)}; {len(results.failed)} failed.",
        f"{len(stands)} of {len(contrasts)} contrasts have a corrected interval that excludes zero."
        if contrasts
        else "No contrast can be computed yet.",
        *(f"Control: {title}." for title in unprimed),
    ]
    title = f"{results.name} ({results.setting})" if results.setting else results.name
    return Report(title, tuple(summary), tuple(sections), tuple(_runs(suite)))


def _examples_section(suite: Suite, shots: int) -> Section:
    arms = arms_compared(suite)
    if arms is None:
        return Section("sentences", "Sentences", "No two arms to put side by side.")
    note, found = examples(suite, arms, shots)
    return Section("sentences", "Sentences", note, examples=found)


def _missing_section(suite: Suite) -> Section:
    results, missing = suite.results, suite.missing()
    tables = []
    if results.failed:
        rows = (
            (Cell(suite.title(f.arm)), Cell(UNKNOWN if f.seed is None else str(f.seed)), Cell(f.error))
            for f in results.failed
        )
        tables.append(Table("Failed cells.", ("arm", "seed", "error"), tuple(rows)))
    if missing:
        rows = (
            (Cell(suite.title(arm)), Cell(str(seed)), Cell(f"{there} of {wanted}"))
            for arm, seed, there, wanted in missing
        )
        caption = "Transfers that are not there. A seed without all languages is left out of scores and contrasts."
        tables.append(Table(caption, ("arm", "seed", "transfers"), tuple(rows)))
    if suite.problems:
        problems = tuple((Cell(problem),) for problem in suite.problems)
        tables.append(Table("Files that could not be used.", ("problem",), problems))
    note = "" if tables else "Nothing failed, nothing is missing."
    return Section("missing", "Failed and missing", note, tuple(tables))


def _environment_section(suite: Suite) -> Section:
    results = suite.results
    versions = tuple((Cell(name), Cell(version)) for name, version in results.versions.items())
    arms = tuple(
        (
            Cell(name),
            Cell(arm.title),
            Cell(_overrides(arm.set)),
            Cell(_overrides(arm.transfer)),
            Cell(arm.priming[:12] if arm.priming else UNKNOWN),
            Cell(
                ", ".join(f"{m} {UNKNOWN if rate is None else f'{rate:g}'}" for m, rate in arm.rates.items()) or UNKNOWN
            ),
        )
        for name, arm in results.arms.items()
    )
    header = ("arm", "title", "overrides", "overrides of transfer", "priming run", "downstream rates")
    tables = [Table("Arms: what each changes in the base config.", header, arms)] if arms else []
    tables += [Table("Versions.", ("package", "version"), versions)] if versions else []
    commands = "\n".join(line for line in (results.command, f"metaprime report {suite.folder}") if line)
    config = yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True) if results.config else ""
    code = [("Commands", commands), *([("Base config", config)] if config else [])]
    note = f"Priming seeds {listed(results.seeds)}."
    return Section("environment", "Environment", note, tuple(tables), code=tuple(code))


def _overrides(given: Any) -> str:
    if not given:
        return UNKNOWN
    if isinstance(given, dict):
        return ", ".join(f"{key}={value}" for key, value in given.items())
    return ", ".join(map(str, given)) if isinstance(given, list | tuple) else str(given)


def _wanted(suite: Suite) -> int:
    results = suite.results
    return math.prod(map(len, (results.arms, results.methods, results.languages, results.shots, results.seeds)))


def _runs(suite: Suite) -> Iterable[dict[str, Any]]:
    """Yields what the CSV holds of each transfer; empty where unknown."""
    for transfer in suite.transfers:
        entry, record = transfer.entry, transfer.record
        arm = suite.results.arms.get(entry.arm)
        facts = arm.facts if arm else None
        readings = {
            f"{reading}_{key}": record["scores"].get(reading, {}).get("overall", {}).get(key)
            for reading in ("lenient", "strict")
            for key in ("f1", "precision", "recall")
        }
        errors: dict[str, Any] = {kind: getattr(transfer.errors, kind, None) for kind in KINDS}
        passes, flops, seconds = cost([transfer])
        yield {
            "arm": entry.arm,
            "title": suite.title(entry.arm),
            "method": entry.method,
            "shots": entry.shots,
            "seed": entry.seed,
            "language": entry.language,
            **readings,
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
