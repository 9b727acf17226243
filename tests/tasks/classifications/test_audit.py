"""What a split lacks of its own task's classes is named."""

from __future__ import annotations

from metaprime.data.rows import Example
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classifications.audit import AUDIT
from metaprime.tasks.classifications.settings import ClassificationsConfig

CONFIG = ClassificationsConfig(
    tasks={
        "sst": ClassificationConfig(labels=("bad", "good")),
        "mrpc": ClassificationConfig(labels=("other", "same"), pair="second"),
    }
)


def test_a_split_without_a_class_of_its_task_is_named() -> None:
    found = [Example(("a", "b"), f"mrpc: {name}") for name in ("same", "other")]
    assert AUDIT.labels("mrpc/train", found, CONFIG) == []
    assert AUDIT.facts(found)["classes"] == {"other": 1, "same": 1}
    wider = CONFIG.tasks["mrpc"].model_copy(update={"labels": ("other", "same", "unclear")})
    lacking = CONFIG.model_copy(update={"tasks": {**CONFIG.tasks, "mrpc": wider}})
    assert [one.text for one in AUDIT.labels("mrpc/train", found, lacking)] == ["no text of class mrpc: unclear"]
    assert [one.kind for one in AUDIT.labels("mrpc/train", found[:1], lacking)] == ["one class"]
