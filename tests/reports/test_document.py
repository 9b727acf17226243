"""The document model: a figure has a section, or a line that says why there is none."""

from __future__ import annotations

from metaprime.reports.document import ReportSection, TableCell, figure_section
from metaprime.reports.figures import Figure


def test_a_figure_has_a_section() -> None:
    figure = Figure("inner", "Inner loop", "A caption.", ())
    assert list(figure_section("inner", "Inner loop", figure, "none yet")) == [
        ReportSection("inner", "Inner loop", figures=(figure,))
    ]


def test_without_a_figure_a_line_says_why_or_nothing_does() -> None:
    assert list(figure_section("inner", "Inner loop", None, "none yet")) == [
        ReportSection("inner", "Inner loop", "none yet")
    ]
    assert list(figure_section("inner", "Inner loop", None, None)) == []


def test_a_cell_is_plain_unless_it_says_otherwise() -> None:
    assert (TableCell("1.0").note, TableCell("1.0").bold) == ("", False)
