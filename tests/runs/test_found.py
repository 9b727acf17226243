"""What lies below a folder: transfers and priming runs of any commands, in a folder of their own or mixed with suites."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from metaprime.runs.found import find, suites_below
from metaprime.types import MetaprimeError

OLD = Path(__file__).parents[1] / "fixtures" / "from_2db22c3"
"""A finished run with transfers, an interrupted one, and a suite."""


def test_transfers_and_priming_of_one_run() -> None:
    found = find(OLD / "finished")
    assert (found.name, found.asked, found.task, found.failed) == ("finished", False, "tagging", ())
    assert [entry.path for entry in found.records] == [
        f"transfer/primed/qai-{method}-k200-s0/record.json" for method in ("head", "pfeiffer", "sam")
    ]
    assert {entry.arm for entry in found.records} == {"primed"}
    assert (found.methods, found.languages, found.shots, found.seeds) == (
        ("head", "pfeiffer", "sam"),
        ("qai",),
        (200,),
        (0,),
    )
    assert found.primings == {"finished": {0: "."}}
    assert found.arms["finished"].set == {"learner.name": "peft_maml", "peft.method": "pfeiffer", "outer.steps": 4}
    assert found.versions["torch"] == "2.13.0+cpu"


@pytest.mark.parametrize("inside", ["transfer", "transfer/primed", "transfer/primed/qai-head-k200-s0"])
def test_a_folder_inside_a_run_holds_its_transfers(inside: str) -> None:
    found = find(OLD / "finished" / inside)
    assert {entry.arm for entry in found.records} == {"primed"}
    assert len(found.records) == (1 if "head" in inside else 3)
    assert found.primings == {}


def test_several_runs_are_told_apart_by_their_folders() -> None:
    found = find(OLD)
    own = {entry.arm for entry in found.records if entry.path.startswith("finished")}
    assert own == {"finished/primed"}
    assert {"finished", "interrupted"} <= found.primings.keys()
    assert len({entry.path for entry in found.records}) == len(found.records) == len(list(OLD.rglob("record.json")))
    assert [path.name for path in suites_below(OLD)] == ["arms"]
    assert suites_below(OLD / "suite" / "arms") == []


def test_what_cannot_be_read_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "finished", tmp_path / "run")
    (run / "transfer/primed/qai-head-k200-s0/record.json").write_text("{", "utf-8")
    (run / "run.json").write_text("[]", "utf-8")
    other = run / "transfer/primed/qai-sam-k200-s0/record.json"
    record = json.loads(other.read_text("utf-8"))
    other.write_text(json.dumps({**record, "cell": {}}), "utf-8")
    found = find(run)
    assert [entry.method for entry in found.records] == ["pfeiffer"]
    errors = [failure.error for failure in found.failed]
    assert ["qai-head" in errors[0], "qai-sam" in errors[1], "run.json cannot be read" in errors[2]] == [True] * 3


def test_a_record_of_a_rarer_task_is_told_with_the_folder_that_shows_it(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "finished", tmp_path / "run")
    file = run / "transfer/primed/qai-sam-k200-s0/record.json"
    record = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**record, "config": {"data": {}, "task": {"name": "parsing"}}}), "utf-8")
    found = find(run)
    assert (found.task, len(found.records)) == ("tagging", 2)
    assert found.failed[0].error.endswith(f"metaprime report {file.parent.parent} shows it")


def test_what_a_killed_process_left_is_no_record(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "finished", tmp_path / "run")
    cell = run / "transfer/primed/qai-sam-k200-s0"
    cell.rename(cell.with_name(".qai-sam-k200-s0.123.partial"))
    assert len(find(run).records) == 2


def test_nothing_is_an_error_that_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        MetaprimeError, match=r"holds nothing to report.*results\.json.*record\.json.*run\.json.*run\.output"
    ):
        find(tmp_path)
    with pytest.raises(MetaprimeError, match=r"is no folder: give the run\.output of a command"):
        find(tmp_path / "gone")
