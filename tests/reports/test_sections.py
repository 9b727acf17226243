"""The report as a whole: nothing breaks on what is missing, and only contrasts are ever bold."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from toy_suite import MakeSuite, edit, section

from metaprime.reports.document import Report
from metaprime.reports.formats import as_csv, as_latex, as_markdown
from metaprime.reports.read import Suite, read_suite
from metaprime.reports.sections import gather
from metaprime.reports.summary import tables_of
from metaprime.reports.wording import interval_text, limits
from metaprime.reports.write import as_html
from metaprime.stats.intervals import t_interval
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TAGGING

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
    assert "0 transfers read of 8" in begun.summary[2]
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


def test_a_task_without_statistics_and_errors_has_tables_over_seeds_alone(
    folder: Path, suite: Suite, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "tagging", replace(TAGGING, statistics=None, errors=None))
    plain = read_suite(folder)
    assert plain.problems == ()
    assert [one.score for one in plain.transfers] == [one.score for one in suite.transfers]
    assert {(one.counts_Bk, one.errors) for one in plain.transfers} == {(None, None)}
    # Neither means and deviations nor contrasts depend on counts of examples.
    assert tables_of(plain) == tables_of(suite)
    made = gather(plain)
    assert section(made, "contrasts") == section(report, "contrasts")
    row = next(row for row in section(made, "scores").tables[0].rows if row[0].text == "meta-priming")
    over_seeds = t_interval(list(suite.by_seed("meta", "head", 20).values()))
    assert (row[2].text, row[2].note) == (interval_text(over_seeds), f"{limits(over_seeds)} °")
    for key, note in (
        ("errors", "The task tagging does not sort its mistakes."),
        ("sentences", "The task tagging does not say how its examples are shown."),
    ):
        found = section(made, key)
        assert (found.note, found.tables, found.figures, found.examples) == (note, (), (), ())
    for form in FORMS:
        assert form(made)
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert len(rows) == len(plain.transfers)
    assert "lenient_f1" in rows[0]
    assert not set(TAGGING.errors.kinds if TAGGING.errors else ()) & rows[0].keys()
