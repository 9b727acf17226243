"""The report as a whole: nothing breaks on what is missing, and only contrasts are ever bold."""

from __future__ import annotations

import math
import re
from pathlib import Path

from toy_suite import MakeSuite, edit, section

from metaprime.reports.document import Report
from metaprime.reports.formats import as_csv, as_latex, as_markdown
from metaprime.reports.read import read_suite
from metaprime.reports.sections import gather
from metaprime.reports.write import as_html

FORMS = (as_html, as_markdown, as_latex, as_csv)


def test_nothing_else_is_bold(report: Report) -> None:
    for one in report.sections:
        bold = [cell for table in one.tables for row in table.rows for cell in row if cell.bold]
        assert not bold or one.key == "contrasts"


def test_one_seed_has_no_interval(tmp_path: Path, make_suite: MakeSuite) -> None:
    one = gather(read_suite(make_suite(tmp_path, arms=("none", "meta"), seeds=1, sentences=12, shots=(20, 50))))
    cell = section(one, "scores").tables[0].rows[0][1]
    assert "±" not in cell.text
    assert cell.note == ""
    assert [c.text for c in section(one, "contrasts").tables[0].rows[0][2:]] == ["–", "–", "–", "1"]
    for form in FORMS:
        text = form(one)
        assert not re.search(r"\bnan\b", text)
    lines = [line for figure in section(one, "learning").figures for p in figure.panels for line in p.lines]  # type: ignore[union-attr]
    assert all(math.isnan(low) for line in lines for low in line.low)


def test_a_suite_that_has_only_begun_renders(small: Path) -> None:
    edit(small, lambda results: results.update(records=[], primings={}, seeds=[0, 1], versions={}, config={}))
    begun = gather(read_suite(small))
    assert "0 transfers read of 8" in begun.summary[1]
    for key in ("scores", "contrasts", "gains", "learning", "inner", "errors", "sentences"):
        assert section(begun, key).note
        assert not section(begun, key).tables
    assert [row[2].text for row in section(begun, "missing").tables[0].rows] == ["0 of 2"] * 4
    for form in FORMS:
        form(begun)
    assert as_csv(begun) == ""


def test_a_suite_without_anything_renders(small: Path) -> None:
    edit(small, lambda r: r.update(arms={}, records=[], primings={}, contrasts=[], methods=[], languages=[], shots=[]))
    for form in FORMS:
        form(gather(read_suite(small)))
