"""The interface of tasks: metrics in words and numbers, kinds, and outputs of rows in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_config import Parts

from metaprime.data.rows import Row
from metaprime.tasks import TASKS
from metaprime.tasks import task as tasks
from metaprime.tasks.tagging.task import TAGGING, TaggingConfig
from metaprime.tasks.task import Metric, TaskConfig, outputs_of
from metaprime.types import Params

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


def test_a_kind_shows_metrics_with_a_heading_or_else_the_first() -> None:
    kind = replace(TAGGING, metrics=(NATS, F1, replace(F1, heading="")))
    assert kind.metric is NATS
    assert kind.listed == (F1,)
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


def values_of(parts: Parts) -> Params:
    return dict(parts.model.named_parameters())


def long_rows(parts: Parts) -> list[Row]:
    """Rows of one to three windows, which differ in length."""
    rows = parts.rows[:23]
    return [replace(row, windows=row.windows * (1 + number % 3)) for number, row in enumerate(rows)]


@pytest.mark.parametrize("together", [1, 4, 64])
def test_outputs_are_those_of_each_row_alone(parts: Parts, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle runs the model on one window at a time, without padding."""
    monkeypatch.setattr(tasks, "PREDICTED_TOGETHER", together)
    rows, model = long_rows(parts), parts.model.eval()
    seen = []
    for chosen, logits_BLC in outputs_of(model, values_of(parts), rows, parts.task.collate):
        assert not logits_BLC.requires_grad
        assert len(chosen) <= together
        seen += chosen
        windows = [(rows[index].example, window) for index in chosen for window in rows[index].windows]
        assert len(logits_BLC) == len(windows)
        for logits_LC, (example, window) in zip(logits_BLC, windows, strict=True):
            with torch.no_grad():
                alone_LC = model(parts.task.collate([Row((window,), example)]))[0]
            torch.testing.assert_close(logits_LC[: len(alone_LC)], alone_LC, rtol=1e-4, atol=1e-5)
    assert sorted(seen) == list(range(len(rows)))


def test_a_pass_has_no_more_windows_than_rows_go_together(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PREDICTED_TOGETHER", 5)
    sizes: list[int] = []
    parts.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0]["input_ids"])))
    rows = long_rows(parts)
    total = sum(len(logits) for _, logits in outputs_of(parts.model, values_of(parts), rows, parts.task.collate))
    assert total == sum(sizes) == sum(len(row.windows) for row in rows)
    assert max(sizes) == 5


def test_the_values_given_are_those_used(parts: Parts) -> None:
    values = values_of(parts)
    other = {name: torch.zeros_like(value) if name.startswith("head.") else value for name, value in values.items()}
    ((_, logits),) = outputs_of(parts.model, values, parts.rows[:3], parts.task.collate)
    ((_, zeros),) = outputs_of(parts.model, other, parts.rows[:3], parts.task.collate)
    assert logits.any()
    assert not zeros.any()
    assert list(outputs_of(parts.model, values, [], parts.task.collate)) == []
