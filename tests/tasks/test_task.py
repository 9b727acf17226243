"""The interface of tasks: metrics in words and numbers, and kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TAGGING, TaggingConfig
from metaprime.tasks.task import Metric, TaskConfig

F1 = Metric("entity F1", ("strict", "f1"), "strict_f1", short="F1", heading="strict F1", note="strict, micro")
NATS = Metric("loss", ("loss",), "loss", unit="", higher_is_better=False)


def test_a_metric_in_words() -> None:
    assert (F1.label, F1.title, F1.with_unit) == ("F1", "Entity F1", "entity F1 (%)")
    assert F1.described == "Entity F1 (%, strict, micro)"
    assert (NATS.label, NATS.title, NATS.with_unit, NATS.described) == ("loss", "Loss", "loss", "Loss")
    assert replace(NATS, note="per word").described == "Loss (per word)"


def test_a_larger_rank_is_better_in_either_direction() -> None:
    values = [3.0, 1.0, 2.0]
    assert max(values, key=F1.rank) == 3
    assert max(values, key=NATS.rank) == 1


def test_a_metric_finds_its_number_by_its_path() -> None:
    details = {"strict": {"f1": 71, "recall": 60.5}, "loss": 0.25}
    assert (F1.of(details), NATS.of(details)) == (71.0, 0.25)
    assert isinstance(F1.of(details), float)
    with pytest.raises(KeyError, match="precision"):
        replace(F1, key=("strict", "precision")).of(details)
    with pytest.raises(KeyError, match="lenient"):
        replace(F1, key=("lenient", "f1")).of(details)


def test_a_kind_shows_the_first_metric_and_others_with_a_heading() -> None:
    kind = replace(TAGGING, metrics=(NATS, F1, replace(F1, heading="")))
    assert kind.metric is NATS
    assert kind.listed == (NATS, F1)
    assert kind.validation_key == "validation_loss"
    assert replace(kind, metrics=(NATS, replace(F1, heading=""))).listed == (NATS,)
    assert replace(kind, metrics=(F1,)).validation_key == "validation_f1"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_kind_goes_by_the_name_in_its_config(name: str) -> None:
    kind = TASKS[name]
    assert kind.name == kind.config().name == name
    assert issubclass(kind.config, TaskConfig)
    assert len({metric.column for metric in kind.metrics}) == len(kind.metrics)


def test_a_task_shuffles_nothing_unless_its_config_says_so() -> None:
    assert not TaskConfig().shuffles
    assert [TaggingConfig(shuffle_tags=shuffle).shuffles for shuffle in (True, False)] == [True, False]
