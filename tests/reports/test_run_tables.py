"""The report of plain runs: the same four files as a suite's, from whatever records a folder holds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from toy_suite import section

from metaprime.reports.read import read_suite
from metaprime.reports.run_tables import run_rows
from metaprime.reports.sections import gather
from metaprime.reports.write import report
from metaprime.types import MetaprimeError

OLD = Path(__file__).parents[1] / "fixtures" / "from_2db22c3"
"""A finished run with transfers, an interrupted one, and a suite."""


def test_a_row_for_each_transfer_and_each_priming_run(tmp_path: Path) -> None:
    files = report(OLD / "finished", tmp_path)
    assert [file.name for file in files] == ["report.html", "report.md", "report.tex", "report.csv"]
    html, markdown, latex, _ = (file.read_text("utf-8") for file in files)
    records = {file: json.loads(file.read_text("utf-8")) for file in (OLD / "finished").rglob("record.json")}
    with files[3].open(encoding="utf-8", newline="") as lines:
        rows = {row["method"]: row for row in csv.DictReader(lines)}
    for record in records.values():
        method, f1 = record["cell"]["method"], record["scores"]["lenient"]["overall"]["f1"]
        assert float(rows[method]["lenient_f1"]) == f1
        assert f"| primed | {method} | 200 | qai | 0 | 0 | {f1:.1f} |" in markdown
        assert f"primed & {method} & 200 & qai & 0 & 0 & {f1:.1f} &".replace("_", r"\_") in latex
        assert f"<td>{f1:.1f}</td>" in html
    assert "| finished | peft\\_maml" not in markdown
    assert "| finished | peft_maml | pfeiffer | 0 | finished | 4 of 4 |" in markdown
    assert "Learning curves" in markdown
    assert "1 priming runs" not in markdown


def test_a_mixture_names_the_suite_and_the_run_that_is_not_finished() -> None:
    made = gather(suite := read_suite(OLD))
    assert [line for line in made.summary if line.endswith("suite/arms")]
    states = {row["run"]: (row["state"], row["of"]) for row in run_rows(suite)}
    assert states["finished"] == ("finished", 4)
    assert states["interrupted"][0] == "not finished"
    assert len(section(made, "transfers").tables[0].rows) == len(list(OLD.rglob("record.json")))
    assert section(made, "missing").note == "Nothing failed, nothing is missing."


def test_priming_runs_alone_have_a_page_and_rows(tmp_path: Path) -> None:
    files = report(OLD / "interrupted", tmp_path)
    with files[3].open(encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["run"], row["state"]) == ("interrupted", "not finished")
    assert "No transfer (record.json) lies here." in files[1].read_text("utf-8")


def test_a_damaged_record_does_not_hide_the_others(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "finished", tmp_path / "run")
    (run / "transfer/primed/qai-head-k200-s0/record.json").write_text("{", "utf-8")
    made = gather(read_suite(run))
    assert len(section(made, "transfers").tables[0].rows) == 2
    assert "qai-head-k200-s0" in section(made, "missing").tables[0].rows[0][2].text


def test_nothing_to_report_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match="holds nothing to report"):
        report(tmp_path)
    assert list(tmp_path.iterdir()) == []
