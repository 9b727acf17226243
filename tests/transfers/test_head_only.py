"""Head tuning on what the encoder said once gives what it gives when the encoder is asked at every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_config import MakeConfig, started_at

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.config.sections import TransferConfig
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import initial_values
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.transfers import finetune
from metaprime.transfers.head_only import moves_head_alone
from metaprime.transfers.start import KShotRun, TransferContext, context_over

SETTINGS = TransferConfig(steps=12, batch=4)
Bench = tuple[TransferContext, KShotRun]


@pytest.fixture
def bench(tiny: MakeConfig, tmp_path: Path) -> Bench:
    """A fine-tuning of a fresh head, on rows of one and of several windows."""
    config = tiny(tmp_path / "unused", "data.max_length=12")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = priming_rows(task, config.data, config.run.seed)["qaa"][:9]
    assert {len(row.windows) > 1 for row in rows} == {True, False}
    method = METHODS["head"].config()
    model = build_model(encoder, task, method, rows)
    head = initial_values(model, "head", torch_stream(0, "head"))
    return context_over(model, task, method, SETTINGS, {}), started_at(head, rows)


@pytest.mark.parametrize("stop", ["fixed", "development"])
def test_it_is_the_same_training(bench: Bench, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    context, run = bench
    context = replace(context, settings=SETTINGS.model_copy(update={"stop": stop, "evaluate_every": 4}))
    once = finetune.fine_tune(context, run, 1e-2)
    monkeypatch.setattr(finetune, "moves_head_alone", lambda model, values: False)
    each_time = finetune.fine_tune(context, run, 1e-2)
    assert once.losses == pytest.approx(each_time.losses, rel=1e-5)
    assert once.steps == each_time.steps
    for name, value in each_time.values.items():
        torch.testing.assert_close(once.values[name], value, rtol=1e-4, atol=1e-6)


def test_each_sentence_is_read_once(bench: Bench) -> None:
    context, run = bench
    read: list[int] = []
    context.model.backbone.register_forward_hook(lambda module, inputs, output: read.append(len(output[0])))
    finetune.fine_tune(context, run, 1e-2)
    assert sum(read) == sum(len(row.windows) for row in run.rows)


def test_reading_is_counted(bench: Bench) -> None:
    context, run = bench
    longer = [replace(context, settings=SETTINGS.model_copy(update={"steps": steps})) for steps in (9, 18)]
    short, long = (finetune.fine_tune(one, run, 1e-2, count=True).flops for one in longer)
    encoder = context.model.backbone.config
    wide, inner, layers = encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers
    positions = context.task.collate(run.rows)["input_ids"].numel()
    weights = layers * (4 * wide * wide + 2 * wide * inner)
    assert short is not None
    assert long is not None
    # Reading once outweighs the head's steps.
    assert short > 2 * positions * weights > long - short > 0


def test_adapters_and_full_fine_tuning_read_at_every_step(bench: Bench) -> None:
    context, run = bench
    model, head = context.model, run.start()
    assert moves_head_alone(model, head)
    assert not moves_head_alone(model, head | context.backbone)
    model.adapter["0"] = torch.nn.Linear(2, 2)
    assert not moves_head_alone(model, head)
