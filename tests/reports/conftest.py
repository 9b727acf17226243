"""One made-up suite that all tests of reports read, and a small one for each test that damages it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_suite
from toy_suite import MakeSuite, edit

from metaprime.reports.document import Report
from metaprime.reports.read import Suite, read_suite
from metaprime.reports.sections import gather

SCRIPT = "<script>alert(1)</script>"
SIZES = {"none": 10, "meta": 100, "shuffled": 1000}
"""Parameters that the arms of `sized` move."""


@pytest.fixture(scope="session")
def make_suite() -> MakeSuite:
    """`make_suite(folder, seeds=3, shots=(50,), arms=[...], sentences=40, words=(), titles={})`: writes it."""
    return toy_suite.make_suite


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, make_suite: MakeSuite) -> Path:
    """Five arms, four seeds, two K. Only read."""
    arms = ("none", "multitask", "multitask_start", "meta", "meta_head")
    return make_suite(tmp_path_factory.mktemp("suite"), arms=arms, seeds=4, shots=(20, 100), sentences=30)


@pytest.fixture(scope="session")
def suite(folder: Path) -> Suite:
    return read_suite(folder)


@pytest.fixture(scope="session")
def report(suite: Suite) -> Report:
    return gather(suite)


@pytest.fixture
def small(tmp_path: Path, make_suite: MakeSuite) -> Path:
    """Two arms, two seeds: to be damaged."""
    return make_suite(tmp_path / "suite", arms=("none", "meta"), seeds=2, methods=("head",), sentences=12)


@pytest.fixture
def sized(make_suite: MakeSuite, tmp_path: Path) -> Suite:
    """Three arms of SIZES, two of one line; a change that is the seed plus 1 for one language and plus 3 for the other."""
    folder = make_suite(tmp_path / "suite", arms=tuple(SIZES), methods=("own",))
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


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, make_suite: MakeSuite) -> Report:
    """Marks of HTML, Markdown and LaTeX wherever a corpus, a title, an error or a command puts text."""
    folder = make_suite(
        tmp_path_factory.mktemp("hostile"),
        arms=("none", "meta"),
        seeds=2,
        methods=("head",),
        shots=(20, 50),
        sentences=12,
        words=(SCRIPT, "a|b", "`c`", "[d](http://e)"),
        titles={"meta": f'{SCRIPT} & "$x_1$" | \\input{{y}} 100 % #1 ~ ^'},
        failed=[{"arm": "meta", "seed": 7, "error": f"{SCRIPT}\nsecond line | `x`"}],
    )
    edit(folder, lambda results: results.update(name=SCRIPT, command=f"metaprime ablate '{SCRIPT}' ```"))
    return gather(read_suite(folder))
