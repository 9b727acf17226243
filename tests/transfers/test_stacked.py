"""Fine-tunings together are the fine-tunings one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.config.sections import Config, TransferConfig
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, initial_values, partition
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks.task import Task
from metaprime.transfers import stacked
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.stacked import AT_ONCE, KShotRun, go_together, groups_of, train_stacked, tune
from metaprime.types import MetaprimeError, Params

MakeConfig = Callable[..., Config]
SETTINGS = TransferConfig(steps=8, batch=4, clip=0.5)
LANGUAGES = ("qaa", "qab", "qaf")
Bench = tuple[TaskModel, Task, Params, list[KShotRun]]


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
        runs.append(KShotRun(rows[language][: 6 + place], place, language, partial(dict, start)))
    return model, task, partition(model).backbone, runs


def one_by_one(bench: Bench, settings: TransferConfig) -> list[Params]:
    *given, runs = bench
    return [fine_tune(*given, run.start(), run.rows, settings, 1e-2, run.seed, run.language).values for run in runs]


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-5), (8, 1e-3)])
def test_each_ends_where_it_ends_alone(bench: Bench, steps: int, tolerance: float) -> None:
    model, task, backbone, runs = bench
    settings = SETTINGS.model_copy(update={"steps": steps})
    found = train_stacked(model, task, backbone, runs, settings, 1e-2)
    for run, one, expected in zip(runs, found, one_by_one(bench, settings), strict=True):
        values = one.values
        assert values.keys() == expected.keys()
        moved = torch.cat([(expected[name] - run.start()[name]).flatten() for name in expected])
        off = torch.cat([(values[name] - expected[name]).flatten() for name in expected])
        assert off.norm() < tolerance * moved.norm()


def test_only_what_can_goes_together(bench: Bench, tiny: MakeConfig, tmp_path: Path) -> None:
    model, task, _, runs = bench
    assert go_together(model, SETTINGS, runs)
    assert not go_together(model, SETTINGS.model_copy(update={"stop": "development"}), runs)
    assert not go_together(model, SETTINGS, runs[:1])
    assert not go_together(model, SETTINGS.model_copy(update={"batch": 7}), runs)  # one has six sentences alone
    encoder = load_encoder(tiny(tmp_path / "unused").encoder.name)
    for name in ("full", "head", "random_mask"):  # nothing that differs, or weights of the encoder's size
        other = build_model(encoder, task, METHODS[name].config(), runs[0].rows)
        assert not go_together(other, SETTINGS, runs)


def test_runs_share_passes_where_that_is_less_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which costs a pass of its own a thousand sub-words, and then none: the padding to the longest of all remains."""
    model, _, _, runs = bench
    monkeypatch.setattr(stacked, "PASS", 1000)
    assert go_together(model, SETTINGS, runs)
    monkeypatch.setattr(
        stacked, "CPU_SUBWORDS", 3 * 4 * 4
    )  # three runs of four sentences of no more than four sub-words
    assert not go_together(model, SETTINGS, runs)
    monkeypatch.undo()
    monkeypatch.setattr(stacked, "PASS", 0)
    assert not go_together(model, SETTINGS, runs)


def test_as_many_neighbours_as_may_share_a_pass_do(bench: Bench) -> None:
    model, task, backbone, runs = bench
    many = [replace(runs[place % 3]) for place in range(AT_ONCE + 3)]
    settings = SETTINGS.model_copy(update={"steps": 1})
    assert [len(group) for group in groups_of(model, settings, many)] == [AT_ONCE, 3]
    found = list(tune(model, task, backbone, many, settings, 1e-2, count=True))
    assert [id(run) for run, _ in found] == [id(run) for run in many]
    assert all(tuned.flops and tuned.steps == 1 for _, tuned in found)
    for (_, tuned), expected in zip(found, [*one_by_one(bench, settings)] * 4, strict=False):
        for name, value in tuned.values.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-4)


def test_groups_are_as_large_as_a_pass_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _, runs = bench
    alike = [replace(runs[0], rows=runs[0].rows[:4]) for _ in range(7)]
    length = max(len(window.input_ids) for row in alike[0].rows for window in row.windows)
    for most, sizes in ((7, [7]), (3, [3, 3, 1]), (2, [2, 2, 2, 1]), (1, [1] * 7)):
        monkeypatch.setattr(stacked, "CPU_SUBWORDS", most * 4 * length)
        assert [len(group) for group in groups_of(model, SETTINGS, alike)] == sizes


def test_flops_of_all_are_those_of_each(bench: Bench) -> None:
    """Where nothing is padded: the same sentences for everyone."""
    model, task, backbone, runs = bench
    alike = [replace(run, rows=runs[0].rows[:4], seed=0, language="qaa") for run in runs]
    settings = SETTINGS.model_copy(update={"steps": 2})
    found = train_stacked(model, task, backbone, alike, settings, 1e-2, count=True)
    start, rows = alike[0].start(), alike[0].rows
    alone = fine_tune(model, task, backbone, start, rows, settings, 1e-2, 0, "qaa", count=True)
    assert [one.flops for one in found] == [pytest.approx(alone.flops)] * 3


def test_a_loss_that_is_not_finite_names_its_language_after_the_others(bench: Bench) -> None:
    model, task, backbone, runs = bench
    broken = {name: torch.full_like(value, torch.nan) for name, value in runs[1].start().items()}
    runs = [runs[0], replace(runs[1], start=lambda: broken), runs[2]]
    found = tune(model, task, backbone, runs, SETTINGS, 1e-2)
    assert [next(found)[0].language for _ in range(2)] == ["qaa", "qaf"]
    with pytest.raises(MetaprimeError, match="language 'qab': the loss is nan at step 1"):
        next(found)
