"""A suite as it lies on the disk: arms, seeds and methods in their order, and whatever is damaged is named."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_suite import edit, section

from metaprime.reports import curves
from metaprime.reports.document import Report
from metaprime.reports.formats import as_markdown
from metaprime.reports.read import read_suite, short_titles
from metaprime.reports.scores import score_interval
from metaprime.reports.sections import gather
from metaprime.runs.results import Arm, primed_for
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TAGGING
from metaprime.types import MetaprimeError


def test_arms_stand_as_the_suite_lists_them(small: Path) -> None:
    """The file has its keys sorted; one from before has no order, and arms that it does not name come last."""
    names = sorted(json.loads((small / "results.json").read_text("utf-8"))["arms"])
    edit(small, lambda results: results.update(arms={name: results["arms"][name] for name in names}))
    assert list(read_suite(small).results.arms) == names
    first = [name for name in sorted(names, reverse=True) if name != "none"]
    edit(small, lambda results: results.update(order=first))
    assert list(read_suite(small).results.arms) == [*first, "none"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (None, "lora"),
        (["peft.method=head", "inner.steps=1"], "head"),
        ({"peft.method": "prefix"}, "prefix"),
        (["peft={method: head}"], "head"),
        ({"peft": {"method": "prefix"}}, "prefix"),
        # As YAML 1.1 this is a day that there is not.
        (["data.train_split=2024-13-45", "peft.method=head"], "head"),
        (["learner.name=maml"], "full"),
        (["learner.name=anil"], "head"),
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


def test_a_file_from_before_methods_and_task_were_told_has_the_same_report(
    folder: Path, report: Report, tmp_path: Path
) -> None:
    def forget(results: dict[str, Any]) -> None:
        del results["titles"], results["task"]
        for arm in results["arms"].values():
            del arm["simulates"], arm["methods"]

    shutil.copytree(folder, tmp_path / "suite")
    edit(tmp_path / "suite", forget)
    old = read_suite(tmp_path / "suite")
    assert old.kind is TAGGING
    assert section(gather(old), "destination") == section(report, "destination")
    short = short_titles(old.results)
    assert {name: short[name] for name in old.results.methods} == short_titles(read_suite(folder).results)


def test_a_seed_that_lacks_a_language_is_left_out_and_named(small: Path) -> None:
    # That of the arm meta, seed 1 and qao goes.
    edit(small, lambda results: results["records"].pop())
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
        ("predictions.jsonl", '{"words": ["a"], "gold": ["O"], "predicted": ["O"]}\n', "they come from different runs"),
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
    # Without predictions: over seeds alone.
    assert interval[1] == (name == "record.json")
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


def test_a_suite_of_an_unknown_task_is_refused_and_the_known_ones_are_named(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "parsing", TAGGING)
    edit(small, lambda results: results.update(task="juggling"))
    with pytest.raises(
        MetaprimeError,
        match=rf"results\.json: task 'juggling' is unknown here \(known: {', '.join(TASKS)}\): use the version",
    ):
        read_suite(small)
    edit(small, lambda results: results.update(task="parsing"))
    assert len(read_suite(small).transfers) == 2 * 2 * 2
