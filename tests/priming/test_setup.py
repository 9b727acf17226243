"""What a run is made of before its first step, and that nothing is written by then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from toy_config import MakeConfig

from metaprime.meta import LEARNERS
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import partition
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.priming.step import draw
from metaprime.runs.provenance import changes as changes_of
from metaprime.types import MetaprimeError, Params


def values_of(values: Params) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in values.items()}


def test_a_run_has_the_encoder_as_it_came_and_draws_of_the_seed(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    run, again, other = (set_up(tiny(tmp_path / "run", f"run.seed={seed}"), Accelerator()) for seed in (0, 0, 1))
    stock = load_encoder(config.encoder.name)
    assert run.encoder.weights == stock.weights
    own = {f"backbone.{name}": value for name, value in stock.module.named_parameters()}
    assert set(own) - set(run.state.backbone) == {"backbone.pooler.dense.weight", "backbone.pooler.dense.bias"}
    assert all(torch.equal(value, own[name]) for name, value in run.state.backbone.items())
    drawn = [values_of({**one.state.adapter, **one.state.head}) for one in (run, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    episodes = [draw(one, 0).query["labels"].tolist() for one in (run, again, other)]
    assert episodes[0] == episodes[1] != episodes[2]
    assert not (tmp_path / "run").exists()


def test_episodes_have_the_shape_that_the_config_asks_for(tiny: MakeConfig, tmp_path: Path) -> None:
    asked = ("episodes.per_step=3", "episodes.support=4", "episodes.query=5", "episodes.length_bands=2")
    run = set_up(tiny(tmp_path / "run", *asked, "inner.steps=3", "inner.support=same"), Accelerator())
    episodes = draw(run, 0)
    assert episodes.total == len(episodes.indices) == 3
    # Every inner step has the same four sentences.
    assert [batch["labels"].shape[:2] for batch in episodes.support] == [(3, 4)] * 3
    assert all(torch.equal(batch["labels"], episodes.support[0]["labels"]) for batch in episodes.support)
    assert episodes.query["labels"].shape[:2] == (3, 5)
    assert run.sampler.shape.bands == 2


def test_an_inner_rate_is_added_for_each_step_and_each_tensor_that_moves(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", "inner.learn_rates=true", "inner.steps=2", "inner.lr=0.25"), Accelerator())
    moved = len(run.state.adapter) + len(run.state.head)
    assert len(run.state.rates) == 2 * moved > 0
    assert {rate.item() for rate in run.state.rates.values()} == {0.25}
    assert run.inner.outer == ("backbone", "adapter", "head", "rates")
    assert set(run.outer.learning) > set(run.state.rates)


def test_a_learner_that_reads_no_adapter_has_none_but_is_validated_with_it(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", "learner.name=multitask"), Accelerator())
    assert not LEARNERS["multitask"].injects
    assert (run.method.method, run.state.adapter) == ("head", {})
    assert run.best.validation
    context = run.best.validation.context
    assert context.method.method == "pfeiffer"
    assert partition(context.model).adapter
    assert list(run.best.validation.splits) == ["qac"]


def test_what_a_result_depends_on_besides_the_config(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    one, same, apart = (
        set_up(tiny(tmp_path / "run", *more), Accelerator()).provenance
        for more in ((), ("inner.task_chunk=1",), ("data.languages=[qaa, qag]",))
    )
    assert set(one.sentences) == {"qaa", "qaf", "qac (held out)"}
    assert one.weights == {"encoder.name": load_encoder(config.encoder.name).weights}
    assert one.memory == {"episodes at a time (inner.task_chunk)": "all"}
    assert same.memory == {}
    assert changes_of(one.as_json(), same) == []
    assert changes_of(one.as_json(), apart) == [
        f"sentences of qag: (not there) -> {apart.sentences['qag']}",
        f"sentences of qaf: {one.sentences['qaf']} -> (not there)",
    ]


def test_fewer_episodes_than_processes_are_refused(tiny: MakeConfig, tmp_path: Path) -> None:
    three = SimpleNamespace(process_index=0, num_processes=3, device=torch.device("cpu"), is_main_process=True)
    with pytest.raises(MetaprimeError, match=r"episodes\.per_step 2 leaves some of 3 processes without an episode"):
        set_up(tiny(tmp_path / "run"), cast(Accelerator, three))


def test_multitask_cannot_be_validated_from_an_adapter_it_has_not(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "learner.name=multitask", "transfer.start_adapter=primed")
    with pytest.raises(MetaprimeError, match=r"transfer\.start_adapter: learner\.name 'multitask' learns no adapter"):
        prime(config)
    assert not (tmp_path / "run").exists()


def test_validation_without_a_sentence_scores_no_fresh_head(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "transfer.shots=[0, 8]")
    with pytest.raises(MetaprimeError, match=r"transfer\.shots 0 .* set transfer\.start_adapter: primed and"):
        prime(config)
    assert not (tmp_path / "run").exists()
    run = set_up(
        tiny(tmp_path / "run", "transfer.shots=0", "transfer.start_adapter=primed", "transfer.start_head=primed"),
        Accelerator(),
    )
    assert run.best.validation
    backbone = {**run.best.validation.context.backbone, **run.state.backbone}
    scores = run.best.validation.scores(backbone, {**run.state.adapter, **run.state.head}, 0.1, 0, ["qac"])
    assert 0 <= scores["qac"] <= 100
