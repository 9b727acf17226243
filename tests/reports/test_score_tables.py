"""The tables of scores, contrasts, gains, errors and parameters: every cell is what the statistics say."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_suite import MakeSuite, edit, section

from metaprime.reports.document import Report, TableCell
from metaprime.reports.formats import as_csv, as_latex, as_markdown
from metaprime.reports.read import Suite, read_suite
from metaprime.reports.scores import contrasts_of, score_interval
from metaprime.reports.sections import gather
from metaprime.reports.wording import interval_text, limits, signed
from metaprime.reports.write import as_html


def test_a_score_stands_with_its_interval_and_its_compute(suite: Suite, report: Report) -> None:
    found = score_interval(suite, "meta", "head", 20)
    assert found is not None
    interval, _ = found
    tables = section(report, "scores").tables
    assert len(tables) == 2
    assert tables[0].header[:3] == ("arm", "pfeiffer", "head")
    row = next(row for row in tables[0].rows if row[0].text == "meta-priming")
    assert (row[2].text, row[2].note) == (interval_text(interval), limits(interval))
    compute = dict(zip(tables[0].header[3:], ((cell.text, cell.note) for cell in row[3:]), strict=True))
    assert compute.pop("transfer s")[0] in ("2", "3")
    assert compute == {
        "priming passes": ("26,880", "of 33,600"),
        "priming TFLOP": ("2.69", "of 3.36"),
        "priming s": ("42", ""),
        "transfer passes": ("1,600", ""),
        "transfer GFLOP": ("16", ""),
    }
    unprimed = next(row for row in tables[0].rows if row[0].text == "no priming")
    assert [(cell.text, cell.note) for cell in unprimed[3:6]] == [("0", "")] * 3


def test_the_baseline_at_equal_compute_stands_beside_its_arm(folder: Path, suite: Suite, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "suite")
    edit(tmp_path / "suite", lambda results: results.update(matched={"meta": "multitask", "gone": "meta"}))
    made = gather(read_suite(tmp_path / "suite"))
    table = section(made, "scores").tables[1]
    assert table.header[3] == "at equal compute"
    scores = {
        method: np.mean(list(suite.by_seed("multitask", method, 100).values())) for method in ("pfeiffer", "head")
    }
    cells = {row[0].text: row[3] for row in table.rows}
    assert cells.pop("meta-priming") == TableCell(f"{scores['pfeiffer']:.1f} / {scores['head']:.1f}", "pfeiffer / head")
    assert set(cells.values()) == {TableCell("–")}
    assert "FLOPs of “multi-task full fine-tuning” over those of “meta-priming”: 0.50 in all steps" in table.caption
    for form in (as_html, as_markdown, as_latex):
        assert "at equal compute" in form(made)
        assert "priming TFLOP" in form(made)
    row = next(row for row in csv.DictReader(io.StringIO(as_csv(made))) if row["arm"] == "meta")
    assert row["at_equal_compute"] == "multitask"


def test_what_was_made_before_flops_were_counted_has_none(small: Path) -> None:
    def forget(results: dict[str, Any]) -> None:
        del results["matched"]
        for name in ("flops", "flops_chosen"):
            del results["arms"]["meta"]["facts"][name]

    edit(small, forget)
    for file in small.rglob("record.json"):
        record = json.loads(file.read_text("utf-8"))
        del record["training"]["flops"]
        file.write_text(json.dumps(record), "utf-8")
    made = gather(read_suite(small))
    table = section(made, "scores").tables[0]
    assert table.header == (
        *("arm", "head", "priming passes", "priming GFLOP", "priming s"),
        *("transfer passes", "transfer GFLOP", "transfer s"),
    )
    assert [(row[3].text, row[3].note, row[6].text) for row in table.rows] == [("0", "", "–"), ("–", "", "–")]
    assert {row["transfer_flops"] for row in csv.DictReader(io.StringIO(as_csv(made)))} == {""}


def test_an_arm_whose_priming_says_nothing_of_its_cost_has_none(small: Path) -> None:
    edit(small, lambda results: results["arms"]["meta"].update(facts=None))
    rows = section(gather(read_suite(small)), "scores").tables[0].rows
    assert [(cell.text, cell.note) for cell in rows[1][2:5]] == [("–", "")] * 3


def test_a_contrast_is_bold_where_its_corrected_interval_excludes_zero(suite: Suite, report: Report) -> None:
    found = contrasts_of(suite)
    rows = section(report, "contrasts").tables[0].rows
    assert [row[1].bold for row in rows] == [one.bold for one in found.values()]
    assert len({one.bold for one in found.values()}) == 2, "the numbers should have both"


def test_a_contrast_that_cannot_be_tested_yet_is_a_row(small: Path) -> None:
    edit(small, lambda results: results["arms"].update(late={"title": "to come", "priming": "ffff"}))
    edit(small, lambda results: results["contrasts"].append(["late", "none"]))
    rows = section(gather(read_suite(small)), "contrasts").tables[0].rows
    assert [cell.text for cell in rows[1]] == ["to come − no priming", "–", "–", "–", "–", "0"]


def test_gains_have_a_column_for_each_language(suite: Suite, report: Report) -> None:
    assert suite.control == "none"
    table = section(report, "gains").tables[0]
    assert table.header == ("arm", "qai", "qao")
    assert "no priming" not in [row[0].text for row in table.rows]
    one, other = (
        {t.entry.seed: t.score for t in suite.select(arm=arm, method="pfeiffer", language="qai", shots=20)}
        for arm in ("meta", "none")
    )
    row = next(row for row in table.rows if row[0].text == "meta-priming")
    assert row[1].text == signed(float(np.mean([one[seed] - other[seed] for seed in one])))


def test_errors_add_up(suite: Suite, report: Report) -> None:
    errors = suite.kind.errors
    assert errors is not None
    for transfer in suite.transfers:
        assert transfer.errors is not None
        found = dict(zip(errors.kinds, transfer.errors, strict=True))
        gold = sum(found[kind] for kind in errors.reference)
        assert gold == transfer.record["scores"]["lenient"]["overall"]["entities"]
    for row in section(report, "errors").tables[0].rows:
        assert sum(float(cell.text) for cell in row[2:6]) == pytest.approx(100, abs=0.2)


def test_the_report_has_table_and_figure_and_needs_neither(sized: Suite, make_suite: MakeSuite, tmp_path: Path) -> None:
    sections = {section.key: section for section in gather(sized).sections}
    rows = [[cell.text for cell in row] for row in sections["parameters"].tables[0].rows]
    assert [row[2:4] for row in rows] == [["10", "1.00"], ["100", "10.00"], ["1,000", "100.00"]]
    assert rows[1][5:] == ["3.000 ± 1.000", "0.500 ± 0.000"]
    assert rows[2][5:] == ["–", "–"]
    assert sections["over-parameters"].figures
    plain = {section.key for section in gather(read_suite(make_suite(tmp_path / "plain"))).sections}
    assert not plain & {"parameters", "over-parameters"}
