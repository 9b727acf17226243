"""Several classifications: classes with their task before them, in an order that files keep."""

from __future__ import annotations

import pytest

from metaprime.config.loading import load_config
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classifications.settings import ClassificationsConfig
from metaprime.types import MetaprimeError

SST = ClassificationConfig(labels=("bad", "good"))
MRPC = ClassificationConfig(labels=("other", "same", "unclear"), pair="second")
CONFIG = ClassificationsConfig(tasks={"sst": SST, "mrpc": MRPC})


def test_classes_are_those_of_all_tasks_by_name() -> None:
    assert CONFIG.labels == ("mrpc: other", "mrpc: same", "mrpc: unclear", "sst: bad", "sst: good")
    # A JSON file with sorted keys has the tasks in another order.
    assert ClassificationsConfig(tasks={"mrpc": MRPC, "sst": SST}).labels == CONFIG.labels
    assert CONFIG.least_shots == 3
    assert CONFIG.texts == ("text", "second")
    assert CONFIG.for_language("sst").texts == ("text",)
    assert CONFIG.for_encoder("cls").pooling == "first"


def test_a_preset_is_one_key_of_a_task() -> None:
    given = "task={name: classifications, tasks: {cola: {preset: glue/cola}, mrpc: {preset: glue/mrpc, text: first}}}"
    config = load_config(None, [given]).task
    assert isinstance(config, ClassificationsConfig)
    assert config.task_of("mrpc").texts == ("first", "sentence2")
    assert config.labels[:2] == ("cola: unacceptable", "cola: acceptable")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (ClassificationsConfig(), "task.tasks is empty: give at least one"),
        (ClassificationsConfig(tasks={"sst": ClassificationConfig()}), r"task\.tasks: sst: task\.labels is \[\]"),
        (
            ClassificationsConfig(tasks={"sst": SST.model_copy(update={"pooling": "first"})}),
            r"sst: pooling is the same for all tasks: set task\.pooling",
        ),
        (ClassificationsConfig(tasks={"sst": SST}, only="cola"), r"task\.only 'cola' is none of sst"),
    ],
)
def test_what_contradicts_itself_is_refused(config: ClassificationsConfig, told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        config.check()


def test_a_task_that_is_not_there_is_named() -> None:
    with pytest.raises(
        MetaprimeError, match=r"task\.tasks has no rte, which the section data names: add it, or name one of sst"
    ):
        CONFIG.task_of("rte")
