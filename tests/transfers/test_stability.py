"""Leaving one sentence out, against a training run that never saw its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_config import MakeConfig, Parts

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import unlabelled
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.stability import leave_one_out
from metaprime.transfers.start import k_shot_run
from metaprime.transfers.transfer import transfer

SETTINGS = TransferConfig(steps=8, batch=4, shots=8, leave_out=2)


@pytest.mark.parametrize("together", [True, False])
def test_it_is_the_distance_of_two_losses(parts: Parts, together: bool) -> None:
    """Over the sentences left out at once, or one by one; the same either way."""
    model = parts.model.variant(supports_one_pass=together)
    context = parts.context(SETTINGS, model)
    backbone, rows = parts.state.backbone, parts.rows[:8]

    def trained(own: Any) -> Any:
        return fine_tune(context, k_shot_run(context, own, 0, "qaa"), 1e-2).values

    def loss(values: Any, row: Any) -> float:
        batch = parts.task.collate([row])
        with torch.no_grad():
            found = torch.func.functional_call(model, {**backbone, **values}, (batch,))
        return parts.task.loss(found, batch).item()

    whole = trained(rows)
    found = leave_one_out(context, k_shot_run(context, rows, 0, "qaa"), 1e-2, whole)
    inside = [loss(whole, rows[place]) for place in range(2)]
    outside = [
        loss(trained([unlabelled(r) if i == place else r for i, r in enumerate(rows)]), rows[place])
        for place in range(2)
    ]
    assert found["sentences"] == 2
    assert found["with"] == pytest.approx(sum(inside) / 2, abs=1e-5)
    assert found["without"] == pytest.approx(sum(outside) / 2, abs=1e-4)
    assert found["change"] == pytest.approx(sum(abs(a - b) for a, b in zip(inside, outside, strict=True)) / 2, abs=1e-4)
    # Its labels did matter.
    assert found["change"] > 1e-3


def test_unlabelled_takes_nothing_but_the_labels(parts: Parts) -> None:
    row = parts.rows[0]
    left = unlabelled(row)
    assert {label for window in left.windows for label in window.labels} == {-100}
    assert [replace(w, labels=()) for w in left.windows] == [replace(w, labels=()) for w in row.windows]


def test_a_record_says_it(primed_run: Any, tiny: MakeConfig, tmp_path: Path) -> None:
    keys = ("transfer.encoder=base", "transfer.leave_out=2", "transfer.methods=[pfeiffer, full]")
    record = [result.record for result in transfer(tiny(tmp_path / "run", *keys))]
    for one in record:
        assert set(one["stability"]) == {"sentences", "with", "without", "change"}
        assert one["parameters"]["encoder"] >= one["parameters"]["adapter"] > 0
    own, full = (one["parameters"] for one in record)
    assert full["adapter"] == full["encoder"] > own["adapter"]
    assert [one["cell"]["method"] for one in record] == ["pfeiffer", "full"]
    assert record[0]["peft"]["method"] == "pfeiffer"
