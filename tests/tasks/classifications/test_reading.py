"""Each task is read by its own columns and classes, which stand behind its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaprime.data.reading import UNSTATED, settle
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classifications.reading import examine
from metaprime.tasks.classifications.settings import ClassificationsConfig
from metaprime.types import MetaprimeError

CONFIG = ClassificationsConfig(
    invalid="drop",
    tasks={
        "sst": ClassificationConfig(labels=("bad", "good"), label_map={"0": "bad", "1": "good"}),
        "mrpc": ClassificationConfig(labels=("other", "same"), text="first", pair="second", label="quality"),
    },
)


def write(root: Path, name: str, *rows: dict[str, object]) -> str:
    (root / name).mkdir(exist_ok=True)
    (root / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return f"jsonl:{root}"


def test_each_task_has_columns_and_classes_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "sst", {"text": "well", "label": 1}, {"text": "ill", "label": 7})
    source = write(tmp_path, "mrpc", {"first": "a", "second": "b", "quality": "same"})
    found = examine(source, "sst", "train", CONFIG, True, UNSTATED)
    assert [(one.words, one.gold) for one in found.sentences] == [(("well",), "sst: good")]
    # The policy is the section's.
    assert next(one.text for one in found.problems).startswith("class '7' is neither")
    assert [one.gold for one in settle(found, "drop")] == ["sst: good"]
    (pair,) = examine(source, "mrpc", "train", CONFIG, True, UNSTATED).sentences
    assert (pair.words, pair.gold) == (("a", "b"), "mrpc: same")
    with pytest.raises(MetaprimeError, match=r"task\.tasks has no rte"):
        examine(source, "rte", "train", CONFIG, True, UNSTATED)
