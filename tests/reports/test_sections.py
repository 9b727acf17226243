"""The report: what it claims is what the statistics say, nothing breaks on what is missing, nothing from a corpus acts."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from metaprime.cli.app import app
from metaprime.reports import curves
from metaprime.reports.document import Cell, Report, Section
from metaprime.reports.formats import as_csv, as_latex, as_markdown
from metaprime.reports.read import Suite, primed_for, read_suite, short_titles
from metaprime.reports.scores import contrasts_of, middle_shots, score_interval
from metaprime.reports.sections import gather
from metaprime.reports.wording import limits, p_text, signed, spread
from metaprime.reports.write import as_html, write_report
from metaprime.runs.results import Arm
from metaprime.stats.intervals import Interval, correct, t_interval
from metaprime.types import MetaprimeError

MakeSuite = Callable[..., Path]
FORMS = (as_html, as_markdown, as_latex, as_csv)
ARMS = ("none", "multitask", "multitask_start", "meta", "meta_head")
SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "path", "use"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_suite: MakeSuite) -> Path:
    """Five arms, four seeds, two K. Only read."""
    return make_suite(tmp_path_factory.mktemp("suite"), arms=ARMS, seeds=4, shots=(20, 100), sentences=30)


@pytest.fixture(scope="module")
def suite(folder: Path) -> Suite:
    return read_suite(folder)


@pytest.fixture(scope="module")
def report(suite: Suite) -> Report:
    return gather(suite)


@pytest.fixture
def small(tmp_path: Path, make_suite: MakeSuite) -> Path:
    """Two arms, two seeds: to be damaged."""
    return make_suite(tmp_path / "suite", arms=("none", "meta"), seeds=2, methods=("head",), sentences=12)


def section(report: Report, key: str) -> Section:
    return next(one for one in report.sections if one.key == key)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "results.json"
    results = json.loads(file.read_text("utf-8"))
    change(results)
    file.write_text(json.dumps(results), "utf-8")


class Tags(HTMLParser):
    """Every tag of a page; fails on one that closes what is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_scores_are_means_over_seeds_with_an_interval_over_sentences_too(suite: Suite, report: Report) -> None:
    found = score_interval(suite, "meta", "head", 20)
    assert found is not None
    interval, over_sentences = found
    by_seed = suite.by_seed("meta", "head", 20)
    expected = np.mean([t.f1 for t in suite.select(arm="meta", method="head", shots=20)])
    assert over_sentences
    assert interval.mean == pytest.approx(expected)
    assert interval.deviation == pytest.approx(t_interval(list(by_seed.values())).deviation)
    tables = section(report, "scores").tables
    assert len(tables) == 2
    assert tables[0].header[:3] == ("arm", "pfeiffer", "head")
    row = next(row for row in tables[0].rows if row[0].text == "meta-priming")
    assert (row[2].text, row[2].note) == (spread(interval), limits(interval))
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
    assert cells.pop("meta-priming") == Cell(f"{scores['pfeiffer']:.1f} / {scores['head']:.1f}", "pfeiffer / head")
    assert set(cells.values()) == {Cell("–")}
    assert "FLOPs of “multi-task full fine-tuning” over those of “meta-priming”: 0.50 in all steps" in table.caption
    for form in (as_html, as_markdown, as_latex):
        assert "at equal compute" in form(made)
        assert "priming TFLOP" in form(made)
    row = next(row for row in csv.DictReader(io.StringIO(as_csv(made))) if row["arm"] == "meta")
    assert row["at_equal_compute"] == "multitask"


def test_arms_stand_as_the_suite_lists_them(small: Path) -> None:
    """The file has its keys sorted; one from before has no order, and arms that it does not name come last."""
    names = sorted(json.loads((small / "results.json").read_text("utf-8"))["arms"])
    edit(small, lambda results: results.update(arms={name: results["arms"][name] for name in names}))
    assert list(read_suite(small).results.arms) == names
    first = [name for name in sorted(names, reverse=True) if name != "none"]
    edit(small, lambda results: results.update(order=first))
    assert list(read_suite(small).results.arms) == [*first, "none"]


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


def test_contrasts_are_corrected_over_all_of_them(suite: Suite, report: Report) -> None:
    found = contrasts_of(suite)
    assert len(found) == 3 * 2 * 2
    pairs = {
        (one, other, method, shots): (suite.by_seed(one, method, shots), suite.by_seed(other, method, shots))
        for one, other, method, shots in found
    }
    assert found == correct(pairs)
    rows = section(report, "contrasts").tables[0].rows
    assert [row[1].bold for row in rows] == [one.bold for one in found.values()]
    assert len({one.bold for one in found.values()}) == 2, "the numbers should have both"


def test_nothing_else_is_bold(report: Report) -> None:
    for one in report.sections:
        bold = [cell for table in one.tables for row in table.rows for cell in row if cell.bold]
        assert not bold or one.key == "contrasts"


def test_a_contrast_that_cannot_be_tested_yet_counts_among_the_others(small: Path) -> None:
    edit(small, lambda results: results["arms"].update(late={"title": "to come", "priming": "ffff"}))
    alone = contrasts_of(read_suite(small))["meta", "none", "head", 50]
    edit(small, lambda results: results["contrasts"].append(["late", "none"]))
    both = contrasts_of(read_suite(small))
    assert math.isnan(both["late", "none", "head", 50].p)
    assert both["meta", "none", "head", 50].adjusted_p == pytest.approx(min(1, 2 * alone.p))
    rows = section(gather(read_suite(small)), "contrasts").tables[0].rows
    assert [cell.text for cell in rows[1]] == ["to come − no priming", "–", "–", "–", "–", "0"]


def test_gains_are_over_the_control_by_language(suite: Suite, report: Report) -> None:
    assert suite.control == "none"
    table = section(report, "gains").tables[0]
    assert table.header == ("arm", "qai", "qao")
    assert "no priming" not in [row[0].text for row in table.rows]
    one, other = (
        {t.entry.seed: t.f1 for t in suite.select(arm=arm, method="pfeiffer", language="qai", shots=20)}
        for arm in ("meta", "none")
    )
    row = next(row for row in table.rows if row[0].text == "meta-priming")
    assert row[1].text == signed(float(np.mean([one[seed] - other[seed] for seed in one])))


def test_errors_add_up(suite: Suite, report: Report) -> None:
    for transfer in suite.transfers:
        assert transfer.errors is not None
        assert transfer.errors.gold == transfer.record["scores"]["lenient"]["overall"]["entities"]
    for row in section(report, "errors").tables[0].rows:
        assert sum(float(cell.text) for cell in row[2:6]) == pytest.approx(100, abs=0.2)


def test_arms_that_share_a_priming_run_share_a_line(suite: Suite) -> None:
    figure = curves.learning_curves(suite)
    assert figure is not None
    assert [label for _, label in figure.legend] == [
        "multi-task full fine-tuning",
        "meta-priming",
        "meta-priming, the head alone",
    ]
    assert "multi-task full fine-tuning = multi-task, its head kept" in figure.caption
    assert [len(panel.lines) for panel in figure.panels if isinstance(panel, curves.LinePanel)] == [3, 3]
    inner = curves.inner_curves(suite)
    assert inner is not None
    assert [panel.title for panel in inner.panels] == ["meta-priming", "meta-priming, the head alone"]


def test_a_curve_ends_where_the_slowest_seed_is() -> None:
    metrics = {
        0: [{"step": 0}, *({"step": step, "x": float(step)} for step in range(1, 5))],
        1: [{"step": 1, "x": 3.0}, {"step": 2, "x": math.nan}, {"step": 3, "x": None}],
        2: [],
    }
    line = curves.curve(metrics, "x", 1)
    assert line is not None
    assert line.x == (1, 2, 3)
    assert line.y[0] == 2.0
    assert math.isnan(line.y[1])
    assert (line.low[0], line.high[0]) == pytest.approx((2 - math.sqrt(2), 2 + math.sqrt(2)))
    assert curves.curve(metrics, "y", 1) is None


def test_a_long_curve_is_shown_in_stretches() -> None:
    metrics = {0: [{"step": step, "x": float(step)} for step in range(1, 601)]}
    line = curves.curve(metrics, "x", 1)
    assert line is not None
    assert len(line.x) == curves.POINTS
    assert line.x == line.y
    assert line.x[0] == 5.5


def test_the_destination_frames_what_was_primed_for(suite: Suite, report: Report) -> None:
    (figure,) = section(report, "destination").figures
    (panel,) = figure.panels
    assert isinstance(panel, curves.HeatPanel)
    assert panel.rows[-1] == "meta-priming, the head alone"
    assert panel.marked == {(2, 0), (3, 1)}  # multi-task training is for full fine-tuning, which is no column here
    gain = suite.by_seed("meta", "head", 20), suite.by_seed("none", "head", 20)
    assert panel.values[2][1] == pytest.approx(np.mean(list(gain[0].values())) - np.mean(list(gain[1].values())))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (None, "lora"),
        (["peft.method=head", "inner.steps=1"], "head"),
        ({"peft.method": "prefix"}, "prefix"),
        (["peft={method: head}"], "head"),
        ({"peft": {"method": "prefix"}}, "prefix"),
        (["learner.name=maml"], "full"),
        (["learner.name=anil", "peft={method: head}"], "head"),
        (["learner={name: reptile}"], "full"),
        (["learner.name=multitask_peft"], "lora"),
        (["learner.name=masked_words"], None),
    ],
)
def test_what_an_arm_is_primed_for(changes: Any, expected: str | None) -> None:
    config = {"peft": {"method": "lora"}}
    assert primed_for(Arm(title="a", set=changes, priming="ab"), config) == expected
    assert primed_for(Arm(title="a", set=changes), config) is None
    for said in ("full", None):
        assert primed_for(Arm(title="a", set=changes, priming="ab", simulates=said), config) == said


def test_a_file_from_before_methods_were_told_has_the_same_report(folder: Path, report: Report, tmp_path: Path) -> None:
    def forget(results: dict[str, Any]) -> None:
        del results["titles"]
        for arm in results["arms"].values():
            del arm["simulates"]

    shutil.copytree(folder, tmp_path / "suite")
    edit(tmp_path / "suite", forget)
    old = read_suite(tmp_path / "suite")
    assert section(gather(old), "destination") == section(report, "destination")
    short = short_titles(old.results)
    assert {name: short[name] for name in old.results.methods} == short_titles(read_suite(folder).results)


def test_sentences_are_those_that_differ(suite: Suite, report: Report) -> None:
    found = section(report, "sentences")
    assert 0 < len(found.examples) <= 12
    for example in found.examples:
        assert [one.label for one in example.readings] == ["gold", "no priming", "meta-priming"]
        gold, one, other = ([p.text for p in r.pieces] for r in example.readings)
        assert " ".join(gold) == " ".join(one) == " ".join(other)
        assert example.readings[1].pieces != example.readings[2].pieces
    assert section(gather(suite), "sentences") == found  # a fixed key


def test_all_forms_are_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in out.iterdir()) == ["report.csv", "report.html", "report.md", "report.tex"]
    assert write_report(folder, out)[0].read_bytes() == (out / "report.html").read_bytes()
    assert not (folder / "report.html").exists()


def test_the_page_is_one_well_formed_file_with_every_figure(report: Report) -> None:
    text = as_html(report)
    page = Tags(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    panels = sum(len(figure.panels) for one in report.sections for figure in one.figures)
    assert page.seen.count("svg") == panels
    assert page.seen.count("figure") == page.seen.count("figcaption") == 6
    outside = re.findall(r'(?:src|href)="([^"#][^"]*)"', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert outside == ["data:,"]
    assert "@import" not in text
    assert "prefers-color-scheme" in text


def test_latex_is_balanced(report: Report) -> None:
    text = as_latex(report)
    assert text.count(r"\begin{") == text.count(r"\end{")
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")
    assert r"\textbf{" in text
    assert "±" not in text


def test_csv_has_a_row_for_each_transfer(suite: Suite, report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == len(suite.transfers)
    assert {row["arm"] for row in rows} == set(ARMS)
    assert float(rows[0]["lenient_f1"]) == suite.transfers[0].f1
    assert int(rows[0]["correct"]) > 0
    assert rows[0]["priming_seconds"] == rows[0]["priming_flops"] == ""  # nothing was primed
    assert float(rows[0]["transfer_flops"]) == 1.6e10
    assert {row["priming_flops_chosen"] for row in rows if row["arm"] == "meta"} == {"2688000000000.0"}


def test_nothing_from_corpus_titles_or_errors_acts(tmp_path: Path, make_suite: MakeSuite) -> None:
    hostile = make_suite(
        tmp_path,
        arms=("none", "meta"),
        seeds=2,
        methods=("head",),
        shots=(20, 50),
        sentences=12,
        words=(SCRIPT, "a|b", "`c`", "[d](http://e)"),
        titles={"meta": f'{SCRIPT} & "$x_1$" | \\input{{y}} 100 % #1 ~ ^'},
        failed=[{"arm": "meta", "seed": 7, "error": f"{SCRIPT}\nsecond line | `x`"}],
    )
    edit(hostile, lambda results: results.update(name=SCRIPT, command=f"metaprime ablate '{SCRIPT}' ```"))
    made = gather(read_suite(hostile))
    page = as_html(made)
    assert "script" not in Tags(page).seen
    assert page.count("&lt;script&gt;alert(1)") > 20
    text = as_markdown(made)
    outside_code = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside_code
    assert r"\[d\](http://e)" in outside_code
    tables = [line for line in outside_code.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 2 for line in tables)
    latex = as_latex(made)
    assert r"\input{y}" not in latex
    assert r"\textbackslash{}input\{y\} 100 \% \#1 \textasciitilde{} \textasciicircum{}" in latex


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


def test_a_seed_that_lacks_a_language_is_left_out_and_named(small: Path) -> None:
    edit(small, lambda results: results["records"].pop())  # meta, seed 1, qao
    half = read_suite(small)
    assert list(half.by_seed("meta", "head", 50)) == [0]
    assert half.missing() == [("meta", 1, 1, 2)]
    cells = section(gather(half), "scores").tables[0].rows[1]
    assert cells[1].note == "1 of 2 seeds"


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("record.json", "{", "cannot be read"),
        ("record.json", '{"cell": {}, "scores": {}, "training": {}, "frozen": {}}', "has no score"),
        ("record.json", None, "cannot be read"),
        (
            "predictions.jsonl",
            '{"words": ["a"], "gold": ["O"]}\n',
            r"predictions\.jsonl cannot be read \(line 1: KeyError",
        ),
        ("predictions.jsonl", '{"words": ["a"], "gold": ["O"], "predicted": []}\n', "differ in number"),
        ("predictions.jsonl", '{"words": ["a"], "gold": ["O"], "predicted": ["O"]}\n', "they are not of one run"),
        ("predictions.jsonl", None, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_reported(small: Path, name: str, text: str | None, named: str) -> None:
    file = small / "cells/meta/seed0/qai-head-k50" / name
    file.unlink() if text is None else file.write_text(text, "utf-8")
    damaged = read_suite(small)
    assert len(damaged.problems) == 1
    assert re.search(named, damaged.problems[0])
    assert "seed0" in damaged.problems[0]
    made = gather(damaged)
    problems = next(table for table in section(made, "missing").tables if "could not be used" in table.caption)
    assert problems.rows[0][0].text == damaged.problems[0]
    interval = score_interval(damaged, "meta", "head", 50)
    assert interval is not None
    assert interval[1] == (name == "record.json")  # without predictions: over seeds alone
    assert "could not be used" in as_markdown(made)


def test_a_score_that_is_not_finite_is_named(small: Path) -> None:
    file = small / "cells/meta/seed0/qai-head-k50/record.json"
    record = json.loads(file.read_text("utf-8"))
    record["scores"]["lenient"]["overall"]["f1"] = math.nan
    file.write_text(json.dumps(record), "utf-8")
    assert "F1 is nan" in read_suite(small).problems[0]


def test_metrics_that_are_gone_or_cut_off(small: Path) -> None:
    gone, cut = (small / "priming/e5f6" / seed / "metrics.jsonl" for seed in ("seed0", "seed1"))
    gone.unlink()
    cut.write_text(cut.read_text("utf-8")[:-20], "utf-8")
    left = read_suite(small)
    assert "seed0" in left.problems[0]
    assert curves.learning_curves(left) is not None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", r"results\.json: the file: Invalid JSON"),
        ("[]", r"results\.json: the file"),
        ('{"name": "a"}', r"results\.json: seeds: Field required \(\d in all\): run `metaprime ablate` again"),
    ],
)
def test_what_is_no_suite_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "results.json").write_text(text, "utf-8")
    with pytest.raises(MetaprimeError, match=named):
        read_suite(tmp_path)


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"give the output folder of `metaprime ablate`"):
        write_report(tmp_path / "nothing")


def test_the_middle_k(suite: Suite) -> None:
    assert middle_shots(suite) == 20


def test_numbers_as_text() -> None:
    none = Interval(math.nan, math.nan, math.nan, math.nan, 1)
    some = Interval(-1.26, 0.5, -2.0, 0.5, 3)
    assert (spread(none), limits(none), signed(math.nan)) == ("–", "", "–")
    assert (spread(some), limits(some), limits(some, sign=True)) == ("-1.3 ± 0.5", "[-2.0, 0.5]", "[−2.0, +0.5]")
    assert [p_text(p) for p in (0.0, 0.00099, 0.05, 1.0, math.nan)] == ["< 0.001", "< 0.001", "0.050", "1.000", "–"]


def test_help_does_not_import_what_draws() -> None:
    code = "import sys, metaprime.cli.app; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
