"""The report's document model: cells, tables, sections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from metaprime.reports.figures import Figure
from metaprime.reports.sentences import Comparison


@dataclass(frozen=True)
class TableCell:
    """One cell of a table, with a second, smaller line."""

    text: str
    note: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under a header; the caption says what the numbers are."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True)
class ReportSection:
    """A chapter. `note` opens it; where there is no data it is all there is."""

    key: str
    title: str
    note: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    examples: tuple[Comparison, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        title: of the suite.
        summary: the suite in a few lines.
        sections: chapters.
        runs: one row a transfer, for the CSV.
        kinds: of errors, that of right answers first.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    runs: tuple[dict[str, Any], ...]
    kinds: tuple[str, ...] = ()


def figure_section(key: str, title: str, figure: Figure | None, otherwise: str | None) -> Iterable[ReportSection]:
    """Yields the section of a figure, or of the line that says why there is none; without such a line nothing.

    Example:
        sections = [*figure_section("inner", "Inner loop", inner_curves(suite), "No priming run with an inner loop.")]
    """
    if figure:
        yield ReportSection(key, title, figures=(figure,))
    elif otherwise:
        yield ReportSection(key, title, otherwise)
