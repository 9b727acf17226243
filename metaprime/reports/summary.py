"""Summarises a suite in two tables, scores and contrasts, for table.md and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from metaprime.reports.compute import COUNTED, how_equal, priming_cost, unit_of
from metaprime.reports.document import Table, TableCell
from metaprime.reports.formats import markdown_table, markdown_text
from metaprime.reports.read import Suite, short_titles
from metaprime.reports.score_tables import BOLD, contrast_texts, explained, priming_cells, warnings_of
from metaprime.reports.scores import ContrastKey, Means, all_scores, contrasts_of
from metaprime.reports.wording import (
    UNKNOWN,
    interval_text,
    listed,
    means,
    signed,
    subtraction,
    terminal,
)
from metaprime.runs.provenance import machines_text
from metaprime.stats.intervals import Contrast

TABLE = "table.md"
"""File in a suite's output folder."""


def tables_of(suite: Suite) -> tuple[Table, ...]:
    """Returns the table of scores and, if there are any, that of contrasts.

    Example:
        tables = tables_of(read_suite(Path("runs/order")))
    """
    scores, _ = all_scores(suite)
    contrasts = contrasts_of(suite)
    return (_score_table(suite, scores), *([_contrast_table(suite, contrasts)] if contrasts else []))


def as_text(suite: Suite, tables: Sequence[Table]) -> str:
    """Returns the content of table.md: tables, failed cells, unreadable files, command, versions.

    Args:
        suite: the suite.
        tables: those of `tables_of`.

    Example:
        write_text(folder / TABLE, as_text(suite, tables_of(suite)))
    """
    results = suite.results
    failed = (
        f"Failed: arm {failure.arm}, seed {UNKNOWN if failure.seed is None else failure.seed}: "
        f"{next(iter(failure.error.splitlines()), '')}"
        for failure in results.failed
    )
    others = f" (and {len(suite.problems) - 1} more, see the report)" if len(suite.problems) > 1 else ""
    unread = (f"Could not be used: {problem}{others}" for problem in suite.problems[:1])
    packages = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    machines = machines_text(transfer.record.get("volatile", {}) for transfer in suite.transfers)
    return "\n\n".join(
        [
            *map(markdown_table, tables),
            *map(markdown_text, [*warnings_of(suite), *failed, *unread]),
            f"Written by `{results.command}`, seeds {listed(results.seeds)}; {packages}. {machines}.\n",
        ]
    )


def print_tables(suite: Suite, tables: Sequence[Table]) -> None:
    """Prints tables on the terminal: `print_tables(suite, tables_of(suite))`."""
    console = Console()
    titles = (f"{suite.kind.metric.name}, mean ± deviation over priming seeds", "paired differences over priming seeds")
    for title, table in zip(titles[: len(tables)], tables, strict=True):
        rows = [[_terminal_text(cell) for cell in row] for row in table.rows]
        console.print(terminal(title, table.header, rows))
    for line in warnings_of(suite):
        console.print(Text(line))


def _terminal_text(cell: TableCell) -> Text:
    """Returns a cell with its note on one line."""
    return Text(f"{cell.text} {cell.note}".strip(), style="bold" if cell.bold else "")


def _score_table(suite: Suite, scores: Means) -> Table:
    """Returns one row per arm: its score for each method and K, and the cost of priming."""
    results, titles, metric = suite.results, short_titles(suite.results), suite.kind.metric
    columns = [(method, shots) for method in results.methods for shots in results.shots]
    unit = unit_of(priming_cost(arm).flops for arm in results.arms.values())
    rows = []
    for name, arm in results.arms.items():
        intervals = [scores.get((name, *column)) for column in columns]
        texts = (interval_text(interval) if interval else UNKNOWN for interval in intervals)
        cells = [TableCell(arm.title), *map(TableCell, texts)]
        if results.matched:
            cells.append(_baseline(suite, scores, results.matched.get(name)))
        rows.append((*cells, *priming_cells(arm, unit)))

    caption = (
        f"{metric.title}{f' ({metric.note})' if metric.note else ''}, mean of {listed(results.languages)} after "
        f"K = {listed(results.shots)} sentences each; "
        f"mean ± standard deviation over {len(results.seeds)} priming seeds. Sentence passes and FLOPs are those up to the "
        f"stopping point of those allowed. {COUNTED}."
    )
    if results.matched:
        caption += f" {how_equal(results.matched, {name: priming_cost(arm) for name, arm in results.arms.items()})}"

    matched = ["at equal compute"] if results.matched else []
    tuned = [_tuned(suite, titles.get(method, method), shots) for method, shots in columns]
    return Table(caption, ("arm", *tuned, *matched, "sentence passes", unit.name, "seconds"), tuple(rows))


def _tuned(suite: Suite, title: str, shots: int) -> str:
    """Returns the heading of a method's column, with K if the suite has several."""
    return f"{title}, K = {shots}" if len(suite.results.shots) > 1 else title


def _baseline(suite: Suite, scores: Means, arm: str | None) -> TableCell:
    """Returns the means of a baseline at equal compute, by method and K; unknown for None."""
    if arm is None:
        return TableCell(UNKNOWN)
    results, titles = suite.results, short_titles(suite.results)
    texts = (
        f"{titles.get(method, method)} {means(scores.get((arm, method, shots)) for shots in results.shots)}"
        for method in results.methods
    )
    return TableCell(", ".join(texts))


def _contrast_table(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> Table:
    """Returns one row per contrast, pair by pair; without a complete common seed no numbers."""
    results, titles = suite.results, short_titles(suite.results)
    keys = [
        (arm, subtracted, method, shots)
        for arm, subtracted in results.contrasts
        for shots in results.shots
        for method in results.methods
        if (arm, subtracted, method, shots) in contrasts
    ]
    rows = []
    for key in keys:
        (arm, subtracted, method, shots), contrast = key, contrasts[key]
        told = contrast_texts(suite, key, contrast)
        cells = (
            TableCell(subtraction(arm, subtracted)),
            TableCell(_tuned(suite, titles.get(method, method), shots)),
            TableCell(signed(contrast.difference), bold=contrast.bold),
            TableCell(told.interval or UNKNOWN),
            TableCell(told.corrected or UNKNOWN),
            TableCell(told.adjusted_p),
        )
        rows.append(cells)

    caption = (
        f"Differences, paired by seed, with 95 % t-intervals over priming seeds: alone, and corrected (Bonferroni) so that all "
        f"{len(keys)} hold at once; p after Holm, over all {len(keys)} too. {BOLD}{explained(suite, contrasts)}"
    )
    if pending := sum(math.isnan(contrast.difference) for contrast in contrasts.values()):
        caption += f" {pending} of the {len(keys)} have no complete seed in common yet (–): they count all the same."
    return Table(caption, ("difference", "tuned", suite.kind.metric.label, "95 %", "corrected", "p"), tuple(rows))
