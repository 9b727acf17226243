"""The layout of version 0.1: recorded configs are read in the present one, and digests stay what they were."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from metaprime.config.loading import load_config
from metaprime.config.older import ADDED, MOVED, addressed, completed, upgraded
from metaprime.config.sections import Config

WRITTEN = Path(__file__).parents[1] / "fixtures/from_2db22c3"
OLD = {"data": {"source": "synthetic:", "labels": ["PER"], "shuffle_tags": True}, "inner": {"steps": 3}}


def test_a_config_of_version_0_1_gets_a_section_task() -> None:
    assert upgraded(OLD) == {
        "data": {"source": "synthetic:"},
        "inner": {"steps": 3},
        "task": {"name": "tagging", "labels": ["PER"], "shuffle_tags": True},
    }


def test_the_sources_of_moved_keys_and_the_arms_of_a_suite_move_with_them() -> None:
    arms = {
        "shuffled": {"set": ["data.shuffle_tags=true", "inner.lr=1"], "transfer": ["data.labels=[A=B]"], "primed": True}
    }
    upper = upgraded(
        {**OLD, "provenance": {"data.labels": "paper", "data.source": "chosen"}, "suite": {"arms": arms, "tune": {}}}
    )
    assert upper["provenance"] == {"task.labels": "paper", "data.source": "chosen"}
    moved = {"set": ["task.shuffle_tags=true", "inner.lr=1"], "transfer": ["task.labels=[A=B]"], "primed": True}
    assert upper["suite"] == {"arms": {"shuffled": moved}, "tune": {}}


@pytest.mark.parametrize("key", MOVED)
def test_each_moved_key_is_enough(key: str) -> None:
    assert upgraded({"data": {key: "x"}}) == {"data": {}, "task": {"name": "tagging", key: "x"}}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"inner": {"steps": 3}},
        {"data": {"source": "synthetic:"}},
        {"data": "synthetic:"},
        {"data": {"labels": ["PER"]}, "task": {"name": "tagging"}},
        load_config().model_dump(mode="json"),
    ],
    ids=["empty", "no data", "nothing moved", "data is no section", "has a task", "present"],
)
def test_any_other_config_stays_as_it_is(values: dict[str, Any]) -> None:
    assert upgraded(copy.deepcopy(values)) == values


def test_values_are_not_changed_in_place() -> None:
    before, after = copy.deepcopy(OLD), load_config().model_dump(mode="json")
    upgraded(before)
    addressed(copied := copy.deepcopy(after))
    assert before == OLD
    assert copied == after


def test_the_file_that_version_0_1_wrote_is_accepted_once_upgraded() -> None:
    values = yaml.safe_load((WRITTEN / "config.yaml").read_text(encoding="utf-8"))
    moved = set(MOVED) & set(values["data"])
    assert moved
    config = Config.model_validate(upgraded(values)).model_dump(mode="json")
    assert all(config["task"][key] == values["data"][key] for key in moved)


def test_addresses_are_those_of_the_old_layout() -> None:
    changed = ["task.labels=[PER]", "task.shuffle_tags=true", "provenance={task.labels: paper, inner.lr: chosen}"]
    present = load_config(None, changed).model_dump(mode="json")
    old = addressed(present)
    assert "task" not in old
    assert {key: old["data"][key] for key in MOVED} == {key: present["task"][key] for key in MOVED}
    assert "name" not in old["data"]
    assert old["provenance"] == {"data.labels": "paper", "inner.lr": "chosen"}
    assert not set(old["data"]) & {"encoding", "sentences", "words", "tags"}
    assert completed(upgraded(old)) == present


def test_an_added_key_has_the_default_that_version_0_1_behaved_by() -> None:
    present = load_config().model_dump(mode="json")
    for place, default in ADDED.items():
        section, key = place.split(".")
        assert present[section][key] == default


@pytest.mark.parametrize(
    ("change", "key"),
    [("data.encoding=cp1251", "encoding"), ("data.sentences=3", "sentences"), ("task.words=2", "words")],
)
def test_an_added_key_counts_in_digests_once_it_is_set(change: str, key: str) -> None:
    changed = load_config(None, [change])
    assert key in addressed(changed.model_dump(mode="json"))["data"]
    assert changed.digest("data") != load_config().digest("data")


def test_how_an_encoder_is_read_is_addressed_only_if_it_is_set() -> None:
    changed = load_config(None, ["encoder.spacing=none"])
    assert addressed(changed.model_dump(mode="json"))["encoder"]["spacing"] == "none"
    assert "spacing" not in addressed(load_config().model_dump(mode="json"))["encoder"]
    assert changed.digest("encoder") != load_config().digest("encoder")


def test_completing_adds_no_section_and_keeps_what_is_set() -> None:
    values = {"data": {"encoding": "cp1251"}, "inner": {"steps": 3}}
    assert completed(values) == {"data": {"encoding": "cp1251", "sentences": "auto"}, "inner": {"steps": 3}}


def test_another_task_than_tagging_is_addressed_as_a_whole() -> None:
    task = {"name": "parsing", "relations": ["nsubj"]}
    values = {"data": {"source": "x"}, "task": task, "inner": {"steps": 3}}
    assert addressed(values) == {"data": {"source": "x", "task": task}, "inner": {"steps": 3}}


def test_a_digest_is_that_of_the_json_that_version_0_1_wrote() -> None:
    values = json.loads((WRITTEN / "finished/run.json").read_text(encoding="utf-8"))["config"]
    config = Config.model_validate(upgraded(values))
    for section in ("data", "peft"):
        text = json.dumps({section: values[section]}, sort_keys=True)
        assert config.digest(section) == hashlib.sha256(text.encode()).hexdigest()[:12]
