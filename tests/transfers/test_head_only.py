"""Head tuning on what the encoder said once gives what it gives when the encoder is asked at every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.config.sections import Config, TransferConfig
from metaprime.data.rows import Row
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, initial_values, partition
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks.task import Task
from metaprime.transfers import finetune
from metaprime.transfers.head_only import moves_head_alone
from metaprime.types import Params

MakeConfig = Callable[..., Config]
SETTINGS = TransferConfig(steps=12, batch=4)


@pytest.fixture
def bench(tiny: MakeConfig, tmp_path: Path) -> tuple[TaskModel, Task, Params, Params, list[Row]]:
    """Model, task, backbone, a fresh head, and rows of one and of several windows."""
    config = tiny(tmp_path / "unused", "data.max_length=12")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config, encoder)
    rows = priming_rows(config, task)["qaa"][:9]
    assert {len(row.windows) > 1 for row in rows} == {True, False}
    model = build_model(encoder, task, METHODS["head"].config(), rows)
    return model, task, partition(model).backbone, initial_values(model, "head", torch_stream(0, "head")), rows


@pytest.mark.parametrize("stop", ["fixed", "development"])
def test_it_is_the_same_training(bench: Any, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    *model_and_task, backbone, head, rows = bench
    settings = SETTINGS.model_copy(update={"stop": stop, "evaluate_every": 4})
    given = (*model_and_task, backbone, head, rows, settings, 1e-2, 3, "qaa")
    once = finetune.fine_tune(*given)
    monkeypatch.setattr(finetune, "moves_head_alone", lambda model, values: False)
    each_time = finetune.fine_tune(*given)
    assert once.losses == pytest.approx(each_time.losses, rel=1e-5)
    assert once.steps == each_time.steps
    for name, value in each_time.values.items():
        torch.testing.assert_close(once.values[name], value, rtol=1e-4, atol=1e-6)


def test_each_sentence_is_read_once(bench: Any) -> None:
    model, task, backbone, head, rows = bench
    read: list[int] = []
    model.backbone.register_forward_hook(lambda module, inputs, output: read.append(len(output[0])))
    finetune.fine_tune(model, task, backbone, head, rows, SETTINGS, 1e-2, 3, "qaa")
    assert sum(read) == sum(len(row.windows) for row in rows)


def test_reading_is_counted(bench: Any) -> None:
    model, task, backbone, head, rows = bench
    counts = [
        finetune.fine_tune(
            model, task, backbone, head, rows, SETTINGS.model_copy(update={"steps": steps}), 1e-2, 3, "qaa", count=True
        ).flops
        for steps in (9, 18)
    ]
    encoder = model.backbone.config
    wide, inner, layers = encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers
    positions = task.collate(rows)["input_ids"].numel()
    weights = layers * (4 * wide * wide + 2 * wide * inner)
    assert counts[0] is not None
    assert counts[0] > 2 * positions * weights > counts[1] - counts[0] > 0  # reading once outweighs the head's steps


def test_adapters_and_full_fine_tuning_read_at_every_step(bench: Any) -> None:
    model, _, backbone, head, _ = bench
    assert moves_head_alone(model, head)
    assert not moves_head_alone(model, head | backbone)
    model.adapter["0"] = torch.nn.Linear(2, 2)
    assert not moves_head_alone(model, head)
