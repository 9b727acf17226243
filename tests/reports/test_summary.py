"""table.md, the terminal, report.md and report.csv of one suite say the same: every mean, interval, p-value and bold mark.

What they should say is worked out here from the rows of report.csv, by scipy, with every contrast asked for counted.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats
from toy_suite import MakeSuite, edit

from metaprime.reports.read import read_suite
from metaprime.reports.summary import as_text, print_tables, tables_of
from metaprime.reports.write import report

SHORT = {"AT": "pfeiffer", "HT": "head"}
BOLD = "\x1b[1m"
HEADINGS = ("entity F1, mean ± deviation over priming seeds", "paired differences over priming seeds")
"""Titles of the two tables on the terminal."""
GAINS = (2.8, 4.0, 2.2, 3.4, 1.6)
"""Differences by seed: p of the paired t-test is 0.0027 alone, and 0.068 among 25."""


class Key(NamedTuple):
    """A contrast, method and K."""

    one: str
    other: str
    method: str
    shots: int


@dataclass(frozen=True)
class Row:
    """A contrast as a table has it: texts, and whether the difference is bold."""

    difference: str
    interval: str
    corrected: str
    p: str
    bold: bool


@dataclass(frozen=True)
class Told:
    """Everything that one file says: contrasts, and mean ± deviation by (arm, method, K)."""

    contrasts: dict[Key, Row]
    scores: dict[tuple[str, str, int], str]


def complete(folder: Path, make_suite: MakeSuite) -> None:
    """Everything is there, at two K."""
    make_suite(folder, arms=("none", "multitask", "shuffled", "meta"), seeds=4, shots=(20, 100), sentences=30)


def half_done(folder: Path, make_suite: MakeSuite) -> None:
    """One arm has one seed, one has lost a language, one shares no seed with the control, one is still to come."""
    make_suite(folder, arms=("none", "multitask", "shuffled", "meta", "maml"), seeds=5, sentences=20)

    def there(one: dict[str, Any]) -> bool:
        arm, seed = one["arm"], one["seed"]
        if arm == "none":
            return bool(seed < 4)
        if arm == "maml":
            return bool(seed == 4)
        if arm == "multitask":
            return bool(seed == 0)
        return (arm, seed, one["language"], one["method"]) != ("shuffled", 1, "qao", "head")

    def change(results: dict[str, Any]) -> None:
        results["records"] = [one for one in results["records"] if there(one)]
        results["arms"]["late"] = {"title": "to come", "set": [], "priming": "ffff", "simulates": "pfeiffer"}
        results["contrasts"] += [["maml", "none"], ["late", "none"], ["late", "meta"]]

    edit(folder, change)


def partly_failed(folder: Path, make_suite: MakeSuite) -> None:
    """Two seeds of an arm ended in errors, one record is damaged, one has lost its predictions."""
    failed = [
        {"arm": "meta", "seed": seed, "error": "ZeroDivisionError: the `sky` fell | twice\nand more"} for seed in (1, 2)
    ]
    make_suite(folder, arms=("none", "multitask", "meta"), seeds=5, sentences=20, failed=failed)

    def change(results: dict[str, Any]) -> None:
        lost = {("meta", 1), ("meta", 2)}
        results["records"] = [one for one in results["records"] if (one["arm"], one["seed"]) not in lost]

    edit(folder, change)
    (folder / "cells/multitask/seed3/qai-head-k50/record.json").write_text("{", "utf-8")
    (folder / "cells/none/seed0/qao-pfeiffer-k50/predictions.jsonl").unlink()


def one_of_25(folder: Path, make_suite: MakeSuite) -> None:
    """Five seeds and 25 contrasts asked for, of which one can be computed."""
    make_suite(folder, arms=("none", "meta"), seeds=5, methods=("pfeiffer",), sentences=5)

    def change(results: dict[str, Any]) -> None:
        late = [f"late_{number}" for number in range(24)]
        results["arms"] |= {name: {"title": name, "priming": "ffff", "simulates": "pfeiffer"} for name in late}
        results["contrasts"] = [["meta", "none"], *([name, "none"] for name in late)]

    edit(folder, change)
    for arm, seed, language in itertools.product(("none", "meta"), range(5), ("qai", "qao")):
        cell = folder / f"cells/{arm}/seed{seed}/{language}-pfeiffer-k50"
        (cell / "predictions.jsonl").unlink()
        record = json.loads((cell / "record.json").read_text("utf-8"))
        record["scores"]["lenient"]["overall"]["f1"] = 40.0 + seed + (GAINS[seed] if arm == "meta" else 0.0)
        (cell / "record.json").write_text(json.dumps(record), "utf-8")


SUITES: dict[str, Callable[[Path, MakeSuite], None]] = {
    one.__name__: one for one in (complete, half_done, partly_failed, one_of_25)
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_suite: MakeSuite) -> dict[str, Path]:
    """Each of SUITES with its table.md and report. Only read."""
    made = {}
    for name, make in SUITES.items():
        made[name] = tmp_path_factory.mktemp(name)
        make(made[name], make_suite)
        suite = read_suite(made[name])
        (made[name] / "table.md").write_text(as_text(suite, tables_of(suite)), "utf-8")
        report(made[name])
    return made


def asked_for(results: dict[str, Any]) -> list[Key]:
    pairs, methods, shots = results["contrasts"], results["methods"], results["shots"]
    return [Key(one, other, method, k) for one, other in pairs for k in shots for method in methods]


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def worked_out(folder: Path) -> Told:
    """From the rows of report.csv, by scipy: corrected for every contrast asked for, testable yet or not."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    found: dict[tuple[str, str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["arm"], row["method"], int(row["shots"])][int(row["seed"])].append(float(row["lenient_f1"]))
    by_seed: dict[tuple[str, str, int], dict[int, float]] = {}
    for place, seeds in found.items():
        whole = {seed: float(np.mean(f1)) for seed, f1 in seeds.items() if len(f1) == len(results["languages"])}
        if whole:
            by_seed[place] = whole
    asked = asked_for(results)
    differences: dict[Key, list[float]] = {}
    for key in asked:
        one, other = (by_seed.get((arm, key.method, key.shots), {}) for arm in (key.one, key.other))
        differences[key] = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    tested = {key: p_of(own) for key, own in differences.items() if len(own) > 1}
    adjusted, largest = {}, 0.0
    for smaller, key in enumerate(sorted(tested, key=lambda key: tested[key])):
        largest = max(largest, min(1.0, tested[key] * (len(asked) - smaller)))
        adjusted[key] = largest
    return Told(
        {key: expected_row(differences[key], adjusted.get(key), len(asked)) for key in asked},
        {place: expected_score(list(seeds.values())) for place, seeds in by_seed.items()},
    )


def p_of(differences: list[float]) -> float:
    """The paired t-test's; of two seeds no less than the sign test can give."""
    p = float(stats.ttest_1samp(differences, 0).pvalue)
    return max(p, stats.binomtest(2, 2).pvalue) if len(differences) == 2 else p


def told_interval(ends: Any) -> str:
    """Both ends, if they are no further apart than F1 can be."""
    return "too few seeds" if ends.high - ends.low > 100 else f"[{signed(ends.low)}, {signed(ends.high)}]"


def expected_row(differences: list[float], p: float | None, family: int) -> Row:
    if not differences:
        return Row("–", "–", "–", "–", False)
    if p is None:
        return Row(signed(differences[0]), "–", "–", "–", False)
    alone, corrected = (
        stats.ttest_1samp(differences, 0).confidence_interval(level) for level in (0.95, 1 - 0.05 / family)
    )
    interval, wider = told_interval(alone), told_interval(corrected)
    bold = len(differences) > 2 and (corrected.low > 0 or corrected.high < 0)
    told_p = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return Row(signed(float(np.mean(differences))), interval, wider, told_p, bool(bold))


def expected_score(by_seed: list[float]) -> str:
    mean = f"{np.mean(by_seed):.1f}"
    return f"{mean} ± {np.std(by_seed, ddof=1):.1f}" if len(by_seed) > 1 else mean


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Rows of each table, its header first."""
    tables = []
    for part in text.split("\n\n"):
        lines = part.splitlines()
        if len(lines) > 1 and lines[0].startswith("| "):
            rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines if not line.startswith("| ---")]
            tables.append([[cell.strip().replace("&lt;", "<") for cell in row] for row in rows])
    return tables


def unmarked(text: str) -> tuple[str, bool]:
    """The text of a Markdown cell's first part, and whether it is bold."""
    bold = re.fullmatch(r"\*\*(.*)\*\*", text)
    return (bold[1], True) if bold else (text, False)


def place_of(tuned: str, results: dict[str, Any]) -> tuple[str, int]:
    """(method, K) of a column's head or of the cell `tuned`."""
    title, _, shots = tuned.partition(", K = ")
    return SHORT.get(title, title), int(shots or results["shots"][0])


def summary_told(tables: list[list[list[tuple[str, bool]]]], results: dict[str, Any]) -> Told:
    """What table.md or the terminal says, from its cells as (text, bold)."""
    names = {arm["title"]: name for name, arm in results["arms"].items()}
    header, *rows = [[text for text, _ in row] for row in tables[0]]
    assert header[0] == "arm"
    width = len(results["methods"]) * len(results["shots"])
    scores = {}
    for row in rows:
        for head, text in zip(header[1 : width + 1], row[1 : width + 1], strict=True):
            if text != "–":
                scores[names[row[0]], *place_of(head, results)] = text
    contrasts = {}
    if len(tables) > 1:
        assert [text for text, _ in tables[1][0]] == ["difference", "tuned", "F1", "95 %", "corrected", "p"]
        for (pair, _), (tuned, _), (difference, bold), (interval, _), (corrected, _), (p, _) in tables[1][1:]:
            one, other = pair.split(" − ")
            contrasts[Key(one, other, *place_of(tuned, results))] = Row(difference, interval, corrected, p, bold)
    return Told(contrasts, scores)


def told_by_table_md(folder: Path, results: dict[str, Any]) -> Told:
    tables = markdown_tables((folder / "table.md").read_text("utf-8"))
    return summary_told([[[unmarked(cell) for cell in row] for row in table] for table in tables], results)


def told_by_terminal(printed: str, results: dict[str, Any]) -> Told:
    tables = []
    for part in printed.split(HEADINGS[0])[1].split(HEADINGS[1]):
        lines = [re.split("[│┃]", line)[1:-1] for line in part.splitlines() if "│" in line or "┃" in line]
        tables.append([[(re.sub(r"\x1b\[[\d;]*m", "", cell).strip(), BOLD in cell) for cell in line] for line in lines])
    return summary_told(tables, results)


def told_by_report_md(folder: Path, results: dict[str, Any]) -> Told:
    """The report has titles for arms, one table of scores for each K, and intervals beside differences and scores."""
    names = {arm["title"]: name for name, arm in results["arms"].items()}
    tables = markdown_tables((folder / "report.md").read_text("utf-8"))
    scores, contrasts = {}, {}
    for shots, (header, *rows) in zip(results["shots"], tables, strict=False):
        assert header[0] == "arm"
        for row in rows:
            for method in results["methods"]:
                if (text := row[header.index(method)]) != "–":
                    mean = re.match(r"[\d.]+( ± [\d.]+)?", text)
                    assert mean
                    scores[names[row[0]], method, shots] = mean[0]
    header, *rows = next(table for table in tables if table[0][0] == "contrast")
    for contrast, difference, _, p, corrected, _ in rows:
        pair, _, method = contrast.partition(", K = ")[0].rpartition(" ")
        one, other = (names[title] for title in pair.split(" − "))
        text, _, interval = difference.partition(" ")
        text, bold = unmarked(text)
        shots = int(contrast.partition(", K = ")[2] or results["shots"][0])
        interval = interval or "–"
        contrasts[Key(one, other, method, shots)] = Row(text, interval, corrected, p, bold)
    return Told(contrasts, scores)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that shows bold and breaks no line."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize("name", SUITES)
def test_all_say_what_the_rows_of_the_csv_come_to(
    name: str, folders: dict[str, Path], wide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders[name]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    expected = worked_out(folder)
    suite = read_suite(folder)
    print_tables(suite, tables_of(suite))
    told = {
        "table.md": told_by_table_md(folder, results),
        "terminal": told_by_terminal(capsys.readouterr().out, results),
        "report.md": told_by_report_md(folder, results),
    }
    assert {file: one.contrasts for file, one in told.items()} == dict.fromkeys(told, expected.contrasts)
    assert {file: one.scores for file, one in told.items()} == dict.fromkeys(told, expected.scores)


def test_the_suites_hold_what_could_go_wrong(folders: dict[str, Path]) -> None:
    rows = {name: list(worked_out(folder).contrasts.values()) for name, folder in folders.items()}
    assert {row.bold for row in rows["complete"]} == {True, False}
    assert any(row.difference.startswith("−") for row in rows["complete"])
    pending = [row for row in rows["half_done"] if row.difference == "–"]
    alone = [row for row in rows["half_done"] if row.difference != "–" and row.p == "–"]
    assert len(pending) == 6
    assert len(alone) == 4
    assert any(row.bold for row in rows["half_done"])
    assert all(row.p != "–" for row in rows["partly_failed"])


def test_one_contrast_of_25_is_not_bold_and_its_p_is_that_of_25(
    folders: dict[str, Path], wide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["one_of_25"]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    alone = stats.ttest_1samp(GAINS, 0)
    assert alone.pvalue == pytest.approx(0.003, abs=0.0005)
    assert alone.confidence_interval(0.95).low > 0
    suite = read_suite(folder)
    print_tables(suite, tables_of(suite))
    for told in (
        told_by_table_md(folder, results),
        told_by_terminal(capsys.readouterr().out, results),
        told_by_report_md(folder, results),
    ):
        assert len(told.contrasts) == 25
        row = told.contrasts[Key("meta", "none", "pfeiffer", 50)]
        assert (row.difference, row.p, row.bold) == ("+2.8", "0.068", False)
        assert {one.difference for key, one in told.contrasts.items() if key.one != "meta"} == {"–"}
    assert r"\textbf{" not in (folder / "report.tex").read_text("utf-8")
    assert "<strong>" not in (folder / "report.html").read_text("utf-8")
    assert "<strong>" in (folders["complete"] / "report.html").read_text("utf-8")
    table = (folder / "table.md").read_text("utf-8")
    assert "so that all 25 hold at once; p after Holm, over all 25 too." in table
    assert "24 of the 25 have no complete seed in common yet (–): they count all the same." in table
    assert "over all 25 contrasts here" in (folder / "report.md").read_text("utf-8")


def test_the_table_names_what_failed_and_what_could_not_be_used(folders: dict[str, Path]) -> None:
    table = (folders["partly_failed"] / "table.md").read_text("utf-8")
    for seed in (1, 2):
        assert f"\nFailed: arm meta, seed {seed}: ZeroDivisionError: the \\`sky\\` fell \\| twice\n" in table
    assert "and more" not in table
    assert "\nCould not be used: predictions " in table
    assert "(and 1 more, see the report)\n" in table
    last = table.splitlines()[-1]
    assert last.startswith("Written by `metaprime ablate recipes/ablations/paper_tweaks.yaml`, seeds 0, 1, 2, 3, 4; ")
    assert "Failed" not in (folders["complete"] / "table.md").read_text("utf-8")


def test_a_suite_that_has_only_begun_has_a_table_of_arms_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    text = (folders["complete"] / "results.json").read_text("utf-8")
    (tmp_path / "results.json").write_text(json.dumps(json.loads(text) | {"records": [], "primings": {}}), "utf-8")
    (table,) = tables_of(read_suite(tmp_path))
    assert [row[0].text for row in table.rows][:2] == ["no priming", "multi-task full fine-tuning"]
    assert {cell.text for row in table.rows for cell in row[1:5]} == {"–"}
    assert (len(table.rows), len(table.header)) == (4, 1 + 4 + 3)


def test_what_a_title_or_a_name_holds_does_not_act(
    tmp_path: Path, make_suite: MakeSuite, wide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    title = "[bold]one_step[/bold] | **a** <b> [c](http://d)"
    make_suite(tmp_path, arms=("none", "meta"), seeds=2, sentences=5, titles={"meta": title})
    suite = read_suite(tmp_path)
    tables = tables_of(suite)
    text = as_text(suite, tables)
    assert r"| \[bold\]one_step\[/bold\] \| \*\*a\*\* &lt;b&gt; \[c\](http://d) |" in text
    print_tables(suite, tables)
    assert title in capsys.readouterr().out
