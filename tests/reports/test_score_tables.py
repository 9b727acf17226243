"""The tables of scores, contrasts, gains, errors and parameters: every cell is what the statistics say."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
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
from metaprime.reports.summary import as_text, print_tables, tables_of
from metaprime.reports.wording import NOTHING, TOO_FEW, interval_text, limits, signed
from metaprime.reports.write import as_html


def test_a_score_stands_with_its_interval_and_its_compute(suite: Suite, report: Report) -> None:
    found = score_interval(suite, "meta", "head", 20)
    assert found is not None
    interval, _ = found
    tables = section(report, "scores").tables
    assert len(tables) == 4
    assert tables[0].header == ("arm", "pfeiffer", "head")
    row = next(row for row in tables[0].rows if row[0].text == "meta-priming")
    assert (row[2].text, row[2].note) == (interval_text(interval), limits(interval))
    row = next(row for row in tables[2].rows if row[0].text == "meta-priming")
    compute = dict(zip(tables[2].header[1:], ((cell.text, cell.note) for cell in row[1:]), strict=True))
    assert compute.pop("transfer s")[0] in ("2", "3")
    assert compute == {
        "priming passes": ("26,880", "of 33,600"),
        "priming TFLOP": ("2.69", "of 3.36"),
        "priming s": ("42", ""),
        "transfer passes": ("1,600", ""),
        "transfer GFLOP": ("16", ""),
    }
    unprimed = next(row for row in tables[2].rows if row[0].text == "no priming")
    assert [(cell.text, cell.note) for cell in unprimed[1:4]] == [("0", "")] * 3


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
    table = section(made, "scores").tables[1]
    assert table.header == (
        *("arm", "priming passes", "priming GFLOP", "priming s"),
        *("transfer passes", "transfer GFLOP", "transfer s"),
    )
    assert [(row[2].text, row[2].note, row[5].text) for row in table.rows] == [("0", "", "–"), ("–", "", "–")]
    assert {row["transfer_flops"] for row in csv.DictReader(io.StringIO(as_csv(made)))} == {""}


def test_an_arm_whose_priming_says_nothing_of_its_cost_has_none(small: Path) -> None:
    edit(small, lambda results: results["arms"]["meta"].update(facts=None))
    rows = section(gather(read_suite(small)), "scores").tables[1].rows
    assert [(cell.text, cell.note) for cell in rows[1][1:4]] == [("–", "")] * 3


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


def silence(files: Iterator[Path]) -> None:
    """Makes transfers of which no test sentence has an entity."""
    for file in files:
        predictions = file.parent / "predictions.jsonl"
        lines = [json.loads(text) for text in predictions.read_text("utf-8").splitlines()]
        told = [json.dumps({**line, "predicted": ["O"] * len(line["words"])}) + "\n" for line in lines]
        predictions.write_text("".join(told), "utf-8")
        record = json.loads(file.read_text("utf-8"))
        for reading in ("lenient", "strict"):
            record["scores"][reading]["overall"] |= {"f1": 0.0, "precision": 0.0, "recall": 0.0}
        file.write_text(json.dumps(record), "utf-8")


def told_everywhere(suite: Suite, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What each form of a suite's results says, on lines without breaks."""
    made, tables = gather(suite), tables_of(suite)
    print_tables(suite, tables)
    texts = {"terminal": capsys.readouterr().out, "table.md": as_text(suite, tables)}
    texts |= {form.__name__: form(made) for form in (as_html, as_markdown, as_latex)}
    return {form: " ".join(text.split()) for form, text in texts.items()}


def test_an_interval_wider_than_the_scale_is_told_as_too_few_seeds(
    make_suite: MakeSuite, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    suite = read_suite(make_suite(tmp_path, seeds=2, sentences=12))
    contrasts = contrasts_of(suite)
    wide = [key for key, one in contrasts.items() if one.corrected.high - one.corrected.low > 100]
    assert 0 < len(wide) <= len(contrasts)
    rows = section(gather(suite), "contrasts").tables[0].rows
    assert sum(row[4].text == TOO_FEW for row in rows) == len(wide)
    for form, text in told_everywhere(suite, capsys).items():
        assert text.count(TOO_FEW) >= len(wide), form
        assert not [end for key in wide if (end := signed(contrasts[key].corrected.high)) in text], form
        assert form == "terminal" or "the interval is wider than the scale (100.0)" in text


def test_a_metric_without_a_range_is_measured_by_its_largest_score(suite: Suite) -> None:
    assert suite.scale == 100.0
    unbounded = replace(suite.kind.metrics[0], unit="nats")
    found = replace(suite, kind=replace(suite.kind, metrics=(unbounded,)))
    assert found.scale == max(transfer.score for transfer in suite.transfers)


def test_transfers_that_predict_nothing_are_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silence(small.rglob("record.json"))
    suite = read_suite(small)
    assert suite.problems == ()
    row = section(gather(suite), "contrasts").tables[0].rows[0]
    assert (row[1].note, [cell.text for cell in row[2:5]]) == (NOTHING, ["–", "–", NOTHING])
    assert section(gather(suite), "scores").tables[0].rows[0][1] == TableCell("0.0 ± 0.0", NOTHING)
    for form, text in told_everywhere(suite, capsys).items():
        assert NOTHING in text, form
        assert "[+0.0, +0.0]" not in text, form
        assert form == "as_latex" or "None of the 8 transfers predicted anything in any test example" in text


def test_an_arm_that_predicts_nothing_is_named(small: Path) -> None:
    silence(small.glob("cells/none/**/record.json"))
    summary = gather(read_suite(small)).summary
    assert summary[-1].startswith("4 of 8 transfers predicted nothing in any test example")
    assert summary[-1].endswith("no priming (head, K = 50) 4 of 4.")


def test_a_suite_that_predicts_says_nothing_of_it(report: Report) -> None:
    assert not [line for line in report.summary if "predicted" in line]
