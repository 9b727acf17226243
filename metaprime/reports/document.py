"""Defines the report's document model: cells, tables, sections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from metaprime.reports.figures import Figure, apart
from metaprime.reports.sentences import Comparison


@dataclass(frozen=True)
class TableCell:
    """One cell of a table; `note` is a smaller line: `TableCell("70.1 ± 0.4", "[69.2, 71.0]")`."""

    text: str
    note: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, each row as long as it. The caption explains the numbers.

    Example:
        Table("Versions.", ("package", "version"), ((TableCell("torch"), TableCell("2.5")),))
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True)
class ReportSection:
    """A section of the report: `ReportSection("gains", "Gains by language", tables=(table,))`.

    Attributes:
        key: its anchor in the page.
        title: its heading.
        note: its opening text; without data, its only content.
        tables: its tables.
        figures: its figures.
        examples: test examples as several arms answer them.
        code: (label, text) of listings, such as the base config.
    """

    key: str
    title: str
    note: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    examples: tuple[Comparison, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Report:
    """Content of a report, which `formats` and `write` render: `as_markdown(report)`.

    Attributes:
        title: title of the suite.
        summary: the suite in a few lines.
        sections: its sections, in order.
        runs: column -> value of each transfer, for the CSV.
        kinds: kinds of errors; the first is that of right answers.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    runs: tuple[dict[str, Any], ...]
    kinds: tuple[str, ...] = ()


def figure_section(key: str, title: str, figure: Figure | None, otherwise: str | None) -> Iterable[ReportSection]:
    """Yields the section of a figure, or one with the reason for its absence, if there is a reason.

    Args:
        key: anchor of the section.
        title: heading of the section.
        figure: the figure, drawn as several if it has too many series; None: there is none.
        otherwise: reason for the absence; None: leave out the section.

    Example:
        sections = [*figure_section("inner", "Inner loop", inner_curves(suite), "No inner loop.")]
    """
    if figure:
        yield ReportSection(key, title, figures=apart(figure))
    elif otherwise:
        yield ReportSection(key, title, otherwise)
