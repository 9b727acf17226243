"""Every learner primes through the real command's path, moves what it says it moves, and goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metaprime.config import Config
from metaprime.loops.checkpoint import newest_checkpoint
from metaprime.loops.prime import prime
from metaprime.meta import LEARNERS

MakeConfig = Callable[..., Config]
QUICK = ("outer.validate_every=0", "outer.steps=2", "outer.checkpoint_every=1", "outer.adapter=meta", "outer.head=meta")


def primed(tiny: MakeConfig, output: Path, *changes: str, resume: bool = False) -> Path:
    return prime(tiny(output, *QUICK, *changes), resume=resume, quiet=True)


@pytest.mark.parametrize("name", LEARNERS)
def test_each_moves_what_it_says(tiny: MakeConfig, toy_bert: Path, tmp_path: Path, name: str) -> None:
    learner = LEARNERS[name]
    folder = primed(tiny, tmp_path / "run", f"learner.name={name}")
    before, after = load_file(toy_bert / "model.safetensors"), load_file(folder / "model.safetensors")
    moved = {
        key.removeprefix("bert.") for key in after if not torch.equal(after[key], before[key.removeprefix("bert.")])
    }
    assert bool(moved) == ("backbone" in learner.outer)
    values = load_file(folder / "metaprime.safetensors")
    assert any(key.startswith("adapter.") for key in values) == learner.injects
    assert any(key.startswith("head.") for key in values)


@pytest.mark.parametrize(
    "changes",
    [
        ("learner.name=maml", "inner.learn_rates=true", "outer.rates_lr=0.01"),
        ("inner.learn_rates=true", "inner.order=second"),
        ("inner.optimizer=adam", "inner.lr=0.01", "inner.clip=0.5", "inner.support=same", "inner.micro_batch=1"),
        ("learner.name=reptile",),
        ("learner.name=multitask_peft",),
    ],
    ids=lambda changes: changes[0],
)
def test_each_goes_on_where_it_stopped(tiny: MakeConfig, tmp_path: Path, changes: tuple[str, ...]) -> None:
    whole = primed(tiny, tmp_path / "whole", *changes)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "primed")
    shutil.rmtree(tmp_path / "cut" / "state" / "step-00000002")
    again = primed(tiny, tmp_path / "cut", *changes, resume=True)
    for file in ("model.safetensors", "metaprime.safetensors"):
        assert (again / file).read_bytes() == (whole / file).read_bytes()


def test_learned_rates_begin_as_the_rate_and_move(tiny: MakeConfig, tmp_path: Path) -> None:
    primed(tiny, tmp_path / "run", "inner.learn_rates=true", "outer.rates_lr=0.01", "inner.lr=0.1", "inner.steps=2")
    checkpoint = newest_checkpoint(tmp_path / "run" / "state")
    assert checkpoint
    rates = {key: value for key, value in checkpoint.tensors.items() if key.startswith("rates.")}
    fast = [key for key in checkpoint.tensors if key.split(".")[0] in ("adapter", "head")]
    assert len(rates) == 2 * len(fast)
    assert all(0.05 < float(value) < 0.15 for value in rates.values())
    assert sum(float(value) != pytest.approx(0.1, abs=1e-9) for value in rates.values()) > len(fast)
