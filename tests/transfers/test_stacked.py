"""Fine-tunings together are the fine-tunings one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_config import MakeConfig

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.config.sections import TransferConfig
from metaprime.meta import chunks
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import initial_values
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.transfers import stacked
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.stacked import AT_ONCE, go_together, groups_of, train_stacked, tune
from metaprime.transfers.start import KShotRun, TransferContext, context_over
from metaprime.types import MetaprimeError, Params

SETTINGS = TransferConfig(steps=8, batch=4, clip=0.5)
LANGUAGES = ("qaa", "qab", "qaf")
Bench = tuple[TransferContext, list[KShotRun]]


def changed(context: TransferContext, **settings: Any) -> TransferContext:
    return replace(context, settings=context.settings.model_copy(update=settings))


@pytest.fixture(params=["pfeiffer", "prefix", "lora"])
def bench(request: pytest.FixtureRequest, tiny: MakeConfig, tmp_path: Path) -> Bench:
    config = tiny(tmp_path / "unused", f"data.languages={list(LANGUAGES)}", "data.max_length=16")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = priming_rows(task, config.data, config.run.seed)
    method = METHODS[request.param].config()
    model = build_model(encoder, task, method, rows["qaa"])
    runs = []
    for place, language in enumerate(LANGUAGES):
        draw = torch_stream(place, "start")
        start = initial_values(model, "adapter", draw) | initial_values(model, "head", draw)
        runs.append(KShotRun(rows[language][: 6 + place], place, language, partial(dict, start)))
    return context_over(model, task, method, SETTINGS, {}), runs


def one_by_one(context: TransferContext, runs: list[KShotRun]) -> list[Params]:
    return [fine_tune(context, run, 1e-2).values for run in runs]


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-5), (8, 1e-3)])
def test_each_ends_where_it_ends_alone(bench: Bench, steps: int, tolerance: float) -> None:
    context, runs = changed(bench[0], steps=steps), bench[1]
    found = train_stacked(context, runs, 1e-2)
    for run, one, expected in zip(runs, found, one_by_one(context, runs), strict=True):
        values = one.values
        assert values.keys() == expected.keys()
        moved = torch.cat([(expected[name] - run.start()[name]).flatten() for name in expected])
        off = torch.cat([(values[name] - expected[name]).flatten() for name in expected])
        assert off.norm() < tolerance * moved.norm()


def test_only_what_can_goes_together(bench: Bench, tiny: MakeConfig, tmp_path: Path) -> None:
    context, runs = bench
    assert go_together(context, runs)
    assert not go_together(changed(context, stop="development"), runs)
    assert not go_together(context, runs[:1])
    # One of the runs has six sentences only.
    assert not go_together(changed(context, batch=7), runs)
    encoder = load_encoder(tiny(tmp_path / "unused").encoder.name)
    # Nothing that differs, or weights of the encoder's size.
    for name in ("full", "head", "random_mask"):
        method = METHODS[name].config()
        other = build_model(encoder, context.task, method, runs[0].rows)
        assert not go_together(context_over(other, context.task, method, SETTINGS, {}), runs)


def test_runs_share_passes_where_that_is_less_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of its own costs a thousand sub-words, and then none."""
    context, runs = bench
    monkeypatch.setattr(chunks, "PASS", 1000)
    assert go_together(context, runs)
    # Three runs of four sentences of no more than four sub-words.
    monkeypatch.setattr(stacked, "CPU_SUBWORDS", 3 * 4 * 4)
    assert not go_together(context, runs)
    monkeypatch.undo()
    monkeypatch.setattr(chunks, "PASS", 0)
    assert not go_together(context, runs)


def test_as_many_neighbours_as_may_share_a_pass_do(bench: Bench) -> None:
    context, runs = changed(bench[0], steps=1), bench[1]
    many = [replace(runs[place % 3]) for place in range(AT_ONCE + 3)]
    assert [len(group) for group in groups_of(context, many)] == [AT_ONCE, 3]
    found = list(tune(context, many, 1e-2, count=True))
    assert [id(run) for run, _ in found] == [id(run) for run in many]
    assert all(tuned.flops and tuned.steps == 1 for _, tuned in found)
    expected = one_by_one(context, runs)
    for place, (_, tuned) in enumerate(found):
        for name, value in tuned.values.items():
            torch.testing.assert_close(value, expected[place % 3][name], rtol=0, atol=1e-4)


def test_groups_are_as_large_as_a_pass_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    context, runs = bench
    alike = [replace(runs[0], rows=runs[0].rows[:4]) for _ in range(7)]
    size = sum(len(window.input_ids) for row in alike[0].rows for window in row.windows)
    for most, sizes in ((7, [7]), (3, [3, 3, 1]), (2, [2, 2, 2, 1]), (1, [1] * 7)):
        monkeypatch.setattr(stacked, "CPU_SUBWORDS", most * size)
        assert [len(group) for group in groups_of(context, alike)] == sizes


def test_flops_of_all_are_those_of_each(bench: Bench) -> None:
    """The same sentences for everyone. The pooler, which reads one position of a row, is the difference."""
    context, runs = changed(bench[0], steps=2), bench[1]
    alike = [replace(run, rows=runs[0].rows[:4], seed=0, language="qaa") for run in runs]
    found = train_stacked(context, alike, 1e-2, count=True)
    alone = fine_tune(context, alike[0], 1e-2, count=True)
    assert [one.flops for one in found] == [pytest.approx(alone.flops, rel=0.01)] * 3


def test_a_loss_that_is_not_finite_names_its_language_after_the_others(bench: Bench) -> None:
    context, runs = bench
    broken = {name: torch.full_like(value, torch.nan) for name, value in runs[1].start().items()}
    runs = [runs[0], replace(runs[1], start=lambda: broken), runs[2]]
    found = tune(context, runs, 1e-2)
    assert [next(found)[0].language for _ in range(2)] == ["qaa", "qaf"]
    with pytest.raises(MetaprimeError, match="language 'qab': the loss is nan at step 1"):
        next(found)
