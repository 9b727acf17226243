"""The record of a suite: the same definition may resume, another one is refused with each difference."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_plan import ENCODER, META, MULTITASK, NONE, plan_at

from metaprime.runs.provenance import versions
from metaprime.suite.record import SUITE_RECORD, check_suite, open_suite
from metaprime.types import MetaprimeError

LEFT = ("results.json", "table.md", "report.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a suite that was started, with results and a report."""
    folder = tmp_path / "tried"
    open_suite(plan_at(tmp_path), folder, ENCODER, overwrite=False)
    for name in LEFT:
        (folder / name).write_text("results", encoding="utf-8")
    return folder


def test_the_record_holds_config_arms_versions_and_weights(tmp_path: Path, folder: Path) -> None:
    plan = plan_at(tmp_path)
    record = json.loads((folder / SUITE_RECORD).read_text("utf-8"))
    assert set(record) == {"config", "versions", "weights"}
    assert record["weights"] == {"encoder.name": ENCODER.weights}
    assert record["versions"] == versions()
    suite = record["config"].pop("suite")
    assert record["config"] == plan.base.facts()
    assert suite["tune"] is True
    assert suite["arms"]["none"] == {"set": [], "transfer": [], "primed": False}
    assert suite["arms"]["kept"] == {"set": [], "transfer": ["transfer.start_head=primed"], "primed": True}
    assert suite["arms"]["multitask"]["set"] == ["outer.lr=0.001", "learner.name=multitask"]


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    check_suite(plan, tmp_path / "new", overwrite=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    check_suite(plan, tmp_path / "new", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_something_else_are_left_alone(tmp_path: Path, overwrite: bool) -> None:
    thesis = tmp_path / "tried" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work", encoding="utf-8")
    message = re.escape(f"{thesis.parent} holds files but no suite: choose another name or run.output")
    with pytest.raises(MetaprimeError, match=message):
        check_suite(plan_at(tmp_path), thesis.parent, overwrite)
    with pytest.raises(MetaprimeError, match=message):
        open_suite(plan_at(tmp_path), thesis.parent, ENCODER, overwrite)
    assert [file.name for file in thesis.parent.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "suite",
    [{}, {"seeds": (7,)}, {"contrasts": (("meta", "none"),)}, {"matched": {"meta": "multitask"}}],
    ids=["same", "seeds", "contrasts", "matched"],
)
def test_the_same_suite_resumes_with_other_seeds_and_comparisons(
    tmp_path: Path, folder: Path, suite: dict[str, Any]
) -> None:
    plan = plan_at(tmp_path, **suite)
    check_suite(plan, folder, overwrite=False)
    check_suite(plan, folder, False, ENCODER.weights)
    open_suite(plan, folder, ENCODER, overwrite=False)
    assert all((folder / name).is_file() for name in LEFT)


def test_where_a_suite_is_kept_makes_no_difference(tmp_path: Path, folder: Path) -> None:
    check_suite(plan_at(tmp_path / "elsewhere", "run.cache=false"), folder, overwrite=False)


@pytest.mark.parametrize(
    ("changes", "suite", "difference"),
    [
        (["inner.lr=0.4"], {}, "inner.lr: 0.1 -> 0.4"),
        (["task.labels=[PER]"], {}, 'task.labels: ["PER", "ORG", "LOC"] -> ["PER"]'),
        ([], {"arms": (NONE, META, MULTITASK)}, "suite.arms.kept.set: [] -> (not there)"),
        (["transfer.lr=[0.1]"], {"tune": False}, "suite.tune: true -> false"),
    ],
)
def test_another_definition_is_refused_with_the_difference(
    tmp_path: Path, folder: Path, changes: list[str], suite: dict[str, Any], difference: str
) -> None:
    before = (folder / SUITE_RECORD).read_bytes()
    plan = plan_at(tmp_path, *changes, **suite)
    with pytest.raises(MetaprimeError, match="was started with another definition") as error:
        open_suite(plan, folder, ENCODER, overwrite=False)
    first, *differences = str(error.value).splitlines()
    assert first.startswith(f"{folder} ")
    assert "--overwrite, which keeps all cells" in first
    assert difference in differences
    with pytest.raises(MetaprimeError, match=re.escape(difference)):
        check_suite(plan, folder, overwrite=False)
    assert (folder / SUITE_RECORD).read_bytes() == before


def test_an_arm_that_no_longer_primes_is_another(tmp_path: Path, folder: Path) -> None:
    plan = plan_at(tmp_path)
    arms = plan.arms | {"meta": replace(plan.arms["meta"], primer=None)}
    with pytest.raises(MetaprimeError, match=r"\nsuite\.arms\.meta\.primed: true -> false$"):
        check_suite(replace(plan, arms=arms), folder, overwrite=False)


def test_other_weights_are_refused_once_they_are_known(tmp_path: Path, folder: Path) -> None:
    plan = plan_at(tmp_path)
    check_suite(plan, folder, overwrite=False, weights=None)
    with pytest.raises(MetaprimeError, match=rf"\nweights of encoder\.name: {'a' * 64} -> {'c' * 64}$"):
        check_suite(plan, folder, overwrite=False, weights="c" * 64)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weights": 3}', '{"weights": {}}'])
def test_a_damaged_record_is_named_and_replaced_on_demand(tmp_path: Path, folder: Path, content: str) -> None:
    record = folder / SUITE_RECORD
    record.write_text(content, encoding="utf-8")
    with pytest.raises(MetaprimeError, match=rf"{re.escape(str(record))} is damaged \(.*\): use --overwrite"):
        check_suite(plan_at(tmp_path), folder, overwrite=False)
    open_suite(plan_at(tmp_path), folder, ENCODER, overwrite=True)
    check_suite(plan_at(tmp_path), folder, overwrite=False)


def test_overwrite_replaces_the_record_and_removes_results_of_the_other_suite(tmp_path: Path, folder: Path) -> None:
    changed = plan_at(tmp_path, "inner.lr=0.4")
    check_suite(changed, folder, overwrite=True)
    assert all((folder / name).is_file() for name in LEFT)
    open_suite(changed, folder, ENCODER, overwrite=True)
    assert {file.name for file in folder.iterdir()} == {SUITE_RECORD, "report.html"}
    check_suite(changed, folder, overwrite=False)
    with pytest.raises(MetaprimeError, match=re.escape("inner.lr: 0.4 -> 0.1")):
        check_suite(plan_at(tmp_path), folder, overwrite=False)
