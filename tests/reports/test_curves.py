"""F1 over parameters and stability, from records whose numbers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metaprime.reports.curves import moved, over_parameters
from metaprime.reports.read import Suite, read_suite
from metaprime.reports.scores import all_scores
from metaprime.reports.sections import gather
from metaprime.stats.intervals import t_interval

MakeSuite = Callable[..., Path]
SIZES = {"none": 10, "meta": 100, "shuffled": 1000}


@pytest.fixture
def suite(make_suite: MakeSuite, tmp_path: Path) -> Suite:
    """Three arms, two of one line; a change that is the seed plus 1 for one language and plus 3 for the other."""
    folder = make_suite(tmp_path / "suite", arms=tuple(SIZES), methods=("peft",))
    results = json.loads((folder / "results.json").read_text())
    for arm in ("none", "meta"):
        results["arms"][arm]["line"] = "one line"
    results["arms"]["shuffled"]["line"] = "another"
    (folder / "results.json").write_text(json.dumps(results))
    for entry in results["records"]:
        file = folder / entry["path"]
        record = json.loads(file.read_text())
        record["parameters"] = {"adapter": SIZES[entry["arm"]], "head": 5, "encoder": 1000}
        if entry["arm"] != "shuffled":
            change = entry["seed"] + (1 if entry["language"] == "qai" else 3)
            record["stability"] = {"sentences": 2, "with": 0.25, "without": 0.75, "change": change}
        file.write_text(json.dumps(record))
    return read_suite(folder)


def test_what_moved(suite: Suite) -> None:
    found = moved(suite, "meta", "peft", 50)
    assert found
    assert (found.count, found.share) == (100, 10.0)
    assert found.change == t_interval([2.0, 3.0, 4.0])
    assert found.gap == t_interval([0.5, 0.5, 0.5])
    other = moved(suite, "shuffled", "peft", 50)
    assert other
    assert (other.change, other.gap) == (None, None)


def test_the_figure_has_a_line_for_each_line(suite: Suite) -> None:
    scores, _ = all_scores(suite)
    figure = over_parameters(suite, scores, 50)
    assert figure
    assert figure.legend == ((1, "one line"), (2, "another"))
    one, other = figure.panels[0].lines
    assert (one.x, other.x) == ((1.0, 10.0), (100.0,))
    assert one.y == tuple(scores[arm, "peft", 50].mean for arm in ("none", "meta"))


def test_the_report_has_table_and_figure_and_needs_neither(suite: Suite, make_suite: MakeSuite, tmp_path: Path) -> None:
    sections = {section.key: section for section in gather(suite).sections}
    rows = [[cell.text for cell in row] for row in sections["parameters"].tables[0].rows]
    assert [row[2:4] for row in rows] == [["10", "1.00"], ["100", "10.00"], ["1,000", "100.00"]]
    assert rows[1][5:] == ["3.000 ± 1.000", "0.500 ± 0.000"]
    assert rows[2][5:] == ["–", "–"]
    assert sections["over-parameters"].figures
    plain = {section.key for section in gather(read_suite(make_suite(tmp_path / "plain"))).sections}
    assert not plain & {"parameters", "over-parameters"}
