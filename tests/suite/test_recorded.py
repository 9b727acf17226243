"""The demonstration beside the recorded one: the page's numbers, the rule, and what is said of each arm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scipy import stats
from toy_suite import MakeSuite, make_suite

from metaprime.config.loading import load_config
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.reports.read import Suite, read_suite
from metaprime.suite.demo import ARMS
from metaprime.suite.recorded import PAGE, RECORDED, SEEDS, SHORTENED, against_recorded, compared, is_recorded, spread

ROOT = Path(__file__).parents[2]
COLUMNS = {"pfeiffer": 1, "head": 2}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The four arms with five seeds, every score of an arm and method the recorded mean."""
    make: MakeSuite = make_suite
    folder = make(tmp_path_factory.mktemp("demo"), seeds=5, arms=("none", "multitask", "shuffled", "meta"), sentences=2)
    for file in folder.rglob("record.json"):
        (file.parent / "predictions.jsonl").unlink()
        record = json.loads(file.read_text("utf-8"))
        mean, _ = RECORDED[file.parts[-4], record["cell"]["method"]]
        record["scores"]["lenient"]["overall"]["f1"] = mean
        file.write_text(json.dumps(record), "utf-8")
    return read_suite(folder)


def test_the_page_and_the_constants_are_the_same_numbers() -> None:
    rows = [
        line.strip("| ").split(" | ") for line in (ROOT / PAGE).read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    # The first table is the recorded one, a later one another processor's.
    by_title = {row[0]: row for row in reversed(rows)}
    for (arm, method), (mean, deviation) in RECORDED.items():
        assert by_title[ARMS[arm].title][COLUMNS[method]] == f"{mean} ± {deviation}"


def test_the_recipe_of_the_demonstration_is_what_was_recorded() -> None:
    config = load_config(ROOT / "recipes/configs/demo.yaml", ["run.output=elsewhere"]).at_rates(EMBEDDED, EMBEDDED)
    assert is_recorded(config.facts(), range(5))
    assert not is_recorded(config.facts(), (15, 16, 17, 18, 19))
    assert not is_recorded(load_config(None, ["outer.steps=5"]).facts(), SEEDS)


def test_the_spread_covers_the_mean_of_new_seeds() -> None:
    # Difference of two means of five normal scores each, whose deviation is estimated from the first five.
    draws = stats.norm.rvs(size=(20_000, 2, 5), random_state=0)
    far = [spread(float(deviation)) for deviation in draws[:, 0].std(axis=1, ddof=1)]
    covered = abs(draws[:, 0].mean(axis=1) - draws[:, 1].mean(axis=1)) <= far
    assert covered.mean() == pytest.approx(0.95, abs=0.01)


def test_the_same_figures_are_within(suite: Suite) -> None:
    rows = compared(suite)
    assert [(row.mean, row.within) for row in rows] == [(pytest.approx(mean), True) for mean, _ in RECORDED.values()]
    facts = load_config(None, SHORTENED).at_rates(EMBEDDED, EMBEDDED).facts()
    lines = against_recorded(facts, SEEDS, suite.folder)
    assert lines[-1].startswith("8 of 8 within the recorded spread")
    assert "  meta-priming, AT: 38.1, recorded 38.1 ± 2.5: within the recorded spread" in lines


def test_what_another_processor_gave_is_within_and_another_method_is_not(suite: Suite) -> None:
    # Multi-task training: 37.6 recorded; 36.1 is what another processor may give, 25.6 is no priming.
    near, far = ({("multitask", "pfeiffer"): (mean, 2.2)} for mean in (36.1, 25.6))
    assert [row.within for row in compared(suite, near)] == [True]
    assert [row.within for row in compared(suite, far)] == [False]
    assert re.search(r"37\.6, recorded 25\.6 ± 3\.9: NOT within", str(compared(suite, far)[0]))


def test_an_arm_without_all_seeds_is_not_compared(tmp_path: Path) -> None:
    assert compared(read_suite(make_suite(tmp_path, seeds=4, arms=("none", "meta"), sentences=2))) == []


def test_other_settings_are_not_compared() -> None:
    (line,) = against_recorded(Config().facts(), (0, 1), Path("nowhere"))
    assert line == "not compared with docs/results/demo.md: it is of recipes/configs/demo.yaml, seeds 0 to 4"
