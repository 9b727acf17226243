"""Provenance: every change of config, versions, weights, sentences or memory is found, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprime.data.rows import Example, Row, Window
from metaprime.runs import provenance
from metaprime.runs.provenance import (
    PACKAGES,
    PARTS,
    Provenance,
    changes,
    fingerprint,
    machine,
    machines_text,
    made_here,
    versions,
)

CONFIG = {"inner": {"lr": 0.1, "steps": 5}, "data": {"languages": ["qaa", "qab"], "cut": None}, "seed": 0}


def rows(*pairs: tuple[str, str]) -> list[Row]:
    """One row per text and tags, both written with spaces."""
    window = Window((1, 2), (0,), (0,), (0,))
    return [Row((window,), Example(tuple(words.split()), tuple(tags.split()))) for words, tags in pairs]


def test_empty_parts_are_not_recorded() -> None:
    provenance = Provenance(weights={"encoder.name": "ab"}, memory={"task_chunk": 2})
    assert provenance.as_json() == {"weights": {"encoder.name": "ab"}, "memory": {"task_chunk": 2}}
    assert Provenance().as_json() == {}


def test_the_same_inputs_have_no_changes() -> None:
    provenance = Provenance(CONFIG, {"torch": "2"}, {"encoder.name": "ab"}, {"qaa": "11"}, {"task_chunk": 2})
    assert set(provenance.as_json()) == set(PARTS)
    assert changes(provenance.as_json(), provenance) == []


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"inner": {"lr": 0.3, "steps": 5}}, "inner.lr: 0.1 -> 0.3"),
        ({"data": {"languages": ["qaa"], "cut": None}}, 'data.languages: ["qaa", "qab"] -> ["qaa"]'),
        ({"data": {"languages": ["qaa", "qab"], "cut": "é"}}, "data.cut: null -> é"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"seed": 0}, None),
        ({"inner": {"lr": 0.1, "steps": 5, "clip": 1.0}}, "inner.clip: (not there) -> 1.0"),
        ({"inner": {"lr": 0.1}}, "inner.steps: 5 -> (not there)"),
    ],
)
def test_a_changed_added_or_removed_key_is_one_line(now: dict[str, Any], line: str | None) -> None:
    assert changes({"config": CONFIG}, Provenance(config={**CONFIG, **now})) == ([line] if line else [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0, False),
        (1, True),
        ([0, 1], [False, True]),
        ([{"method": "lora", "rank": 1}], [{"method": "lora", "rank": True}]),
    ],
)
def test_a_number_is_no_truth_value(before: Any, after: Any) -> None:
    for one, other in ((before, after), (after, before)):
        assert changes({"config": {"key": one}}, Provenance(config={"key": other})) == [
            f"key: {json.dumps(one)} -> {json.dumps(other)}"
        ]
        assert changes({"config": {"key": one}}, Provenance(config={"key": one})) == []
    assert changes({"config": {"key": [1, 0.5]}}, Provenance(config={"key": [1.0, 0.5]})) == []


def test_a_section_that_becomes_empty_is_named_with_its_keys() -> None:
    after = Provenance(config={**CONFIG, "inner": {}})
    assert changes({"config": CONFIG}, after) == [
        "inner: (not there) -> {}",
        "inner.lr: 0.1 -> (not there)",
        "inner.steps: 5 -> (not there)",
    ]


def test_each_part_is_introduced_by_its_name_in_order() -> None:
    before = Provenance({"a": 1}, {"torch": "1"}, {"encoder.name": "ab"}, {"qaa": "11"}, {"task_chunk": 1})
    after = Provenance({"a": 2}, {"torch": "2"}, {"encoder.name": "cd"}, {"qaa": "22"}, {"task_chunk": 2})
    assert changes(before.as_json(), after) == [
        "a: 1 -> 2",
        "version of torch: 1 -> 2",
        "weights of encoder.name: ab -> cd",
        "sentences of qaa: 11 -> 22",
        "task_chunk: 1 -> 2",
    ]


@pytest.mark.parametrize("before", [{}, {"sentences": None}, {"sentences": "11"}, {"sentences": ["qaa"]}])
def test_a_part_that_was_not_recorded_is_not_compared(before: dict[str, Any]) -> None:
    assert changes(before, Provenance(sentences={"qaa": "11"})) == []


def test_a_part_that_is_empty_now_is_not_compared() -> None:
    assert changes({"memory": {"task_chunk": 2}, "weights": {"encoder.name": "ab"}}, Provenance()) == []


def test_a_config_of_version_0_1_is_compared_in_the_present_layout() -> None:
    old = {"data": {"source": "synthetic:", "labels": ["PER"], "invalid": "repair"}}
    now = {"data": {"source": "synthetic:"}, "task": {"name": "tagging", "labels": ["PER"], "invalid": "drop"}}
    assert changes({"config": old}, Provenance(config=now)) == ["task.invalid: repair -> drop"]


def test_a_key_that_was_added_later_had_its_default() -> None:
    old = {"data": {"source": "conll:ner"}, "task": {"name": "tagging"}}
    now = {"data": {"source": "conll:ner", "encoding": "utf-8"}, "task": {"name": "tagging", "tags": None}}
    assert changes({"config": old}, Provenance(config=now)) == []
    now["data"]["encoding"] = "cp1251"
    assert changes({"config": old}, Provenance(config=now)) == ["data.encoding: utf-8 -> cp1251"]


def test_a_fingerprint_is_a_hash_of_words_and_answers() -> None:
    expected = hashlib.sha256(b'[["Ada", "naps"], ["B-PER", "O"]]' + b'[["."], ["O"]]').hexdigest()[:12]
    assert fingerprint(rows(("Ada naps", "B-PER O"), (".", "O"))) == expected
    assert fingerprint([]) == hashlib.sha256().hexdigest()[:12]


@pytest.mark.parametrize(
    "other",
    [
        [("Ada nap", "B-PER O"), (".", "O")],
        [("Ada naps", "B-LOC O"), (".", "O")],
        [(".", "O"), ("Ada naps", "B-PER O")],
        [("Ada naps", "B-PER O")],
        [("Ada naps .", "B-PER O O")],
    ],
)
def test_a_fingerprint_changes_with_words_answers_order_and_rows(other: list[tuple[str, str]]) -> None:
    assert fingerprint(rows(*other)) != fingerprint(rows(("Ada naps", "B-PER O"), (".", "O")))


def test_a_fingerprint_does_not_depend_on_windows_or_origin() -> None:
    first = Row((), Example(("Ada",), ("B-PER",), "train.conll:1"))
    second = Row((Window((7,), (0,), (0,), (1,)),), Example(("Ada",), ("B-PER",), "moved.conll:9"))
    assert fingerprint([first]) == fingerprint(iter([second]))


def test_versions_name_what_results_depend_on() -> None:
    found = versions()
    assert {"python", "platform", "metaprime", "torch", "transformers", "accelerate", "tokenizers"} <= set(found)
    assert all(found.values())
    assert set(found) == {"python", "platform", *PACKAGES}
    assert found["torch"] == torch.__version__
    assert found["numpy"] == version("numpy")


def test_the_machine_is_told() -> None:
    found = machine()
    assert found["threads"] == torch.get_num_threads()
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    listed = Path("/proc/cpuinfo")
    if listed.is_file() and "model name" in listed.read_text("utf-8"):
        name = next(line for line in listed.read_text("utf-8").splitlines() if line.startswith("model name"))
        assert found["cpu"].startswith(name.partition(":")[2].strip())
    assert {"host", "pid", "written"} | found.keys() == made_here().keys()


def test_the_commit_is_that_of_the_packages_own_checkout() -> None:
    root = Path(provenance.__file__).parents[2]
    if shutil.which("git") is None or not (root / ".git").exists():
        assert machine()["commit"] == ""
        return
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert head.startswith(machine()["commit"].removesuffix("-dirty"))


def test_a_package_outside_a_checkout_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Installed below somebody's own repository, whose commit says nothing of the package.
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "venv/site/metaprime/runs/provenance.py"))
    assert provenance._commit.__wrapped__() == ""


def test_machines_are_described_once_each_and_old_records_as_not_recorded() -> None:
    one = {"cpu": "x86", "instructions": "AVX2", "threads": 1, "commit": "ab"}
    assert machines_text([one, one]) == "CPU x86 (AVX2), threads 1, commit ab"
    assert machines_text([one, {"host": "vm"}]) == (
        "CPU x86 (AVX2), threads 1, commit ab or CPU, threads and commit not recorded"
    )
    assert machines_text([{**one, "commit": ""}]) == "CPU x86 (AVX2), threads 1, commit unknown"
    assert machines_text([]) == "CPU, threads and commit not recorded"
