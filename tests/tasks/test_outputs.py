"""Outputs of rows in any order, against each row alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_config import Parts

from metaprime.data.rows import Row
from metaprime.tasks import outputs
from metaprime.tasks.outputs import outputs_of
from metaprime.types import Params


def values_of(parts: Parts) -> Params:
    return dict(parts.model.named_parameters())


def long_rows(parts: Parts) -> list[Row]:
    """Rows of one to three windows, which differ in length."""
    rows = parts.rows[:23]
    return [replace(row, windows=row.windows * (1 + number % 3)) for number, row in enumerate(rows)]


@pytest.mark.parametrize("together", [1, 4, 64])
def test_outputs_are_those_of_each_row_alone(parts: Parts, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle runs the model on one window at a time, without padding."""
    monkeypatch.setattr(outputs, "PREDICTED_TOGETHER", together)
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
    monkeypatch.setattr(outputs, "PREDICTED_TOGETHER", 5)
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
