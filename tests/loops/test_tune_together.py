"""Fine-tunings together are the fine-tunings one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaprime.config import Config, TransferConfig
from metaprime.loops.build import build_model, build_task, priming_rows
from metaprime.loops.finetune import fine_tune
from metaprime.loops.tune_together import Tuning, may_go_together, tune_together
from metaprime.models.encoder import load_encoder
from metaprime.models.primable import PrimableModel, initial_values, partition
from metaprime.peft import METHODS
from metaprime.streams import torch_stream
from metaprime.tasks.task import Task
from metaprime.types import MetaprimeError, Params

MakeConfig = Callable[..., Config]
SETTINGS = TransferConfig(steps=8, batch=4, clip=0.5)
LANGUAGES = ("qaa", "qab", "qaf")
Bench = tuple[PrimableModel, Task, Params, list[Tuning]]


@pytest.fixture(params=["pfeiffer", "prefix", "lora"])
def bench(request: pytest.FixtureRequest, tiny: MakeConfig, tmp_path: Path) -> Bench:
    config = tiny(tmp_path / "unused", f"data.languages={list(LANGUAGES)}", "data.max_length=16")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config, encoder)
    rows = priming_rows(config, task)
    model = build_model(encoder, task, METHODS[request.param].config(), rows["qaa"])
    runs = []
    for place, language in enumerate(LANGUAGES):
        draw = torch_stream(place, "start")
        start = initial_values(model, "adapter", draw) | initial_values(model, "head", draw)
        runs.append(Tuning(start, rows[language][: 6 + place], place, language))
    return model, task, partition(model).backbone, runs


def one_by_one(bench: Bench, settings: TransferConfig) -> list[Params]:
    *given, runs = bench
    return [fine_tune(*given, run.start, run.rows, settings, 1e-2, run.seed, run.language).values for run in runs]


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-5), (8, 1e-3)])
def test_each_ends_where_it_ends_alone(bench: Bench, steps: int, tolerance: float) -> None:
    model, task, backbone, runs = bench
    settings = SETTINGS.model_copy(update={"steps": steps})
    assert may_go_together(model, settings, runs)
    together = tune_together(model, task, backbone, runs, settings, 1e-2)
    for run, values, expected in zip(runs, together, one_by_one(bench, settings), strict=True):
        assert values.keys() == expected.keys()
        moved = torch.cat([(expected[name] - run.start[name]).flatten() for name in expected])
        off = torch.cat([(values[name] - expected[name]).flatten() for name in expected])
        assert off.norm() < tolerance * moved.norm()


def test_only_what_can_goes_together(bench: Bench) -> None:
    model, _, backbone, runs = bench
    assert not may_go_together(model, SETTINGS.model_copy(update={"stop": "development"}), runs)
    assert not may_go_together(model, SETTINGS, runs[:1])
    assert not may_go_together(model, SETTINGS.model_copy(update={"batch": 7}), runs)  # one has six sentences alone
    full = [Tuning(run.start | backbone, run.rows, run.seed, run.language) for run in runs]
    assert not may_go_together(model, SETTINGS, full)


def test_a_loss_that_is_not_finite_names_its_language(bench: Bench) -> None:
    model, task, backbone, runs = bench
    broken = {name: torch.full_like(value, torch.nan) for name, value in runs[1].start.items()}
    runs = [runs[0], Tuning(broken, runs[1].rows, 1, "qab"), runs[2]]
    with pytest.raises(MetaprimeError, match="language 'qab': the loss is nan at step 1"):
        tune_together(model, task, backbone, runs, SETTINGS, 1e-2)
