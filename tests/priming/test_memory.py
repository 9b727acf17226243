"""How many episodes at a time: by memory, and on a CPU by the sub-words of a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile
from toy_config import MakeConfig

from metaprime.data.rows import Row
from metaprime.meta import InnerLoop
from metaprime.meta.chunks import CPU_SUBWORDS
from metaprime.priming import memory
from metaprime.priming.memory import Trial, activation_bytes, available, fit_to_memory, longest_episode
from metaprime.priming.setup import Run, set_up
from metaprime.types import Episodes

SETTINGS = InnerLoop(lr=0.1)


def rows_of(run: Run) -> dict[str, list[Row]]:
    return {name: [row for group in groups for row in group] for name, groups in run.sampler.pools.items()}


def longest(run: Run, steps: int = 0) -> Episodes:
    return longest_episode(run.task, rows_of(run), run.sampler.shape, steps, torch.device("cpu"))


def kept(run: Run, steps: int = 0, **changes: Any) -> int:
    trial = Trial(run.learner.step, run.loss, run.state.backbone, run.starts.values(0, (0,)))
    return activation_bytes(trial, longest(run, steps), replace(run.inner, **changes))


def test_memory_and_on_a_cpu_sub_words_say_how_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 1000)
    on_cpu = Accelerator()
    # 0.8 x 1000 - 4 x 50 leaves room for six.
    assert fit_to_memory(SETTINGS, 100, 50, 8, on_cpu).execution.chunk == 6
    assert "memory has room for 6 of 8 episodes at a time" in caplog.text
    # One at least: it may be wrong.
    assert fit_to_memory(SETTINGS, 5000, 50, 8, on_cpu).execution.chunk == 1
    caplog.clear()
    assert fit_to_memory(SETTINGS, 100, 50, 6, on_cpu) == SETTINGS.executed(chunk=None, subwords=CPU_SUBWORDS)
    assert not caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="pfeiffer"),
        # One vector of all weights that may change, however many windows there are.
        pytest.param(("peft={method: random_mask}", "outer.adapter=reset"), id="random-mask"),
    ],
)
def test_what_an_episode_keeps_is_what_is_allocated_for_it(
    changes: tuple[str, ...], tiny: MakeConfig, tmp_path: Path
) -> None:
    """Against torch's own account of the memory that a forward pass has taken when it ends."""
    run = set_up(tiny(tmp_path / "run", *changes), Accelerator())
    start = run.starts.values(0, (0,))
    values = {name: value[0].requires_grad_(value.is_floating_point()) for name, value in start.items()}
    query = {name: tensor[0] for name, tensor in longest(run).query.items()}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        ends = run.loss(run.state.backbone, values, query)
    taken = sum(event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")
    assert ends.requires_grad
    assert kept(run) == pytest.approx(taken, rel=0.15)


def test_learned_rates_stay_out_of_a_trial(tiny: MakeConfig, tmp_path: Path) -> None:
    """There are rates for two inner steps, and the trial has three."""
    run = set_up(tiny(tmp_path / "run", "inner.learn_rates=true", "inner.steps=2"), Accelerator())
    start = run.starts.values(0, (0,))
    assert "rates" in {name.split(".")[0] for name in start}
    outcome = Trial(run.learner.step, run.loss, run.state.backbone, start).run(longest(run, steps=3), run.inner)
    assert {name.split(".")[0] for name in outcome.gradients} == {"backbone", "adapter", "head"}


def test_second_order_keeps_the_passes_of_all_inner_steps(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", "episodes.support=4", "episodes.query=4"), Accelerator())
    one, three = kept(run), kept(run, steps=3, second_order=True)
    assert 4 * one < three < 10 * one


def test_a_limit_of_the_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free = available(Accelerator())
    assert free > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 1200\n")
    # What was read from files is given up for the asking.
    assert available(Accelerator()) == 4200
    # Processes of a launch share the machine.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert available(Accelerator()) == 2100
    (tmp_path / "memory.max").write_text("max\n")
    assert available(Accelerator()) > 2**19
    old = tmp_path / "memory"
    old.mkdir()
    for name, text in (
        ("limit_in_bytes", "900"),
        ("usage_in_bytes", "800"),
        ("stat", "cache 7\ntotal_inactive_file 100"),
    ):
        (old / f"memory.{name}").write_text(text)
    assert available(Accelerator()) == 100
