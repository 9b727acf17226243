"""Every learner primes through the real command's path, moves what it says it moves, and goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_config import MakeConfig
from transformers import AutoModel

from metaprime.config.loading import override
from metaprime.meta import LEARNERS
from metaprime.priming.prime import prime
from metaprime.runs.checkpoint import newest_checkpoint
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

QUICK = ("outer.validate_every=0", "outer.steps=2", "outer.checkpoint_every=1", "outer.adapter=meta", "outer.head=meta")


def primed(tiny: MakeConfig, output: Path, *changes: str, resume: bool = False) -> Path:
    return prime(tiny(output, *QUICK, *changes), resume=resume, quiet=True).path


@pytest.mark.parametrize("name", LEARNERS)
def test_each_moves_what_it_says(tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path, name: str) -> None:
    learner = LEARNERS[name]
    encoder = toy_encoder("bert", speaks=not learner.reads_labels)
    folder = primed(tiny, tmp_path / "run", f"encoder.name={encoder}", f"learner.name={name}")
    before, after = (backbone_of(place / "model.safetensors") for place in (encoder, folder))
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert bool(moved) == ("backbone" in learner.outer)
    values = load_file(folder / "metaprime.safetensors")
    assert any(key.startswith("adapter.") for key in values) == learner.injects
    assert any(key.startswith("head.") for key in values) == learner.reads_labels


@pytest.mark.parametrize("name", LEARNERS)
def test_each_lowers_its_query_loss_in_twenty_steps(
    tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    encoder = toy_encoder("bert", speaks=not LEARNERS[name].reads_labels)
    rates = (
        "outer.lr=1e-2",
        "outer.adapter_lr=3e-2",
        "outer.head_lr=3e-2",
        "outer.warmup=0",
        "outer.checkpoint_every=20",
    )
    # At these rates a random encoder learns fast and its features become alike.
    changes = (f"encoder.name={encoder}", f"learner.name={name}", "outer.steps=20", "outer.patience=null", *rates)
    primed(tiny, tmp_path / "run", *changes)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["query_loss"] for line in lines if "query_loss" in line]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def backbone_of(file: Path) -> dict[str, torch.Tensor]:
    return {key.removeprefix("bert."): value for key, value in load_file(file).items() if not key.startswith("cls.")}


def test_masked_words_are_learned_and_the_head_stays_behind(
    tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    own = (f"encoder.name={toy_encoder('bert', speaks=True)}", "learner.name=masked_words")
    config = tiny(
        tmp_path / "run", *own, "outer.steps=20", "outer.lr=1e-2", "outer.patience=null", "outer.validate_every=10"
    )
    folder = prime(config, quiet=True).path
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["query_loss"] for line in lines if "query_loss" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    # By tags, as ever.
    assert [line["step"] for line in lines if "validation_f1" in line] == [0, 5, 10, 20]
    assert not load_file(folder / "metaprime.safetensors")
    assert AutoModel.from_pretrained(folder).config.model_type == "bert"
    with pytest.raises(MetaprimeError, match="start_head: the encoder was primed with"):
        transfer(override(config, "transfer.start_head=primed"), quiet=True)


def test_masked_words_need_a_head_that_is_there(tiny: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"without its masked-word head \(cls\.predictions\..* is missing\)"):
        primed(tiny, tmp_path / "run", "learner.name=masked_words")
    assert not (tmp_path / "run").exists()


def test_masked_words_have_no_tag_head_to_start_from(
    tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    own = (f"encoder.name={toy_encoder('bert', speaks=True)}", "learner.name=masked_words")
    with pytest.raises(
        MetaprimeError, match=r"transfer\.start_head: learner\.name 'masked_words' learns no head of this task"
    ):
        prime(tiny(tmp_path / "run", *own, "transfer.start_head=primed"), quiet=True)


@pytest.mark.parametrize(
    "changes",
    [
        ("learner.name=maml", "inner.learn_rates=true", "outer.rates_lr=0.01"),
        ("inner.learn_rates=true", "inner.order=second"),
        ("inner.optimizer=adam", "inner.lr=0.01", "inner.clip=0.5", "inner.support=same", "inner.micro_batch=1"),
        ("learner.name=reptile",),
        ("learner.name=multitask_peft",),
        ("learner.name=masked_words",),
    ],
    ids=lambda changes: changes[0],
)
def test_each_goes_on_where_it_stopped(
    tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path, changes: tuple[str, ...]
) -> None:
    if "learner.name=masked_words" in changes:
        changes = (*changes, f"encoder.name={toy_encoder('bert', speaks=True)}")
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
