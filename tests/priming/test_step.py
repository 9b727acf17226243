"""A meta-step's episodes over processes, what they cost, and the sum of what each process made of its share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from toy_config import MakeConfig

from metaprime.meta import Outcome
from metaprime.models.task_model import TaskModel
from metaprime.priming import memory
from metaprime.priming import prime as loop
from metaprime.priming.prime import prime
from metaprime.priming.setup import Run, set_up
from metaprime.priming.step import draw, draw_some, spent_on, subwords_processed, sum_over_processes
from metaprime.runs.flops import Spent
from metaprime.runs.log import read_metrics
from metaprime.types import NOISE, Batch, Episodes, Params

QUICK = ("outer.validate_every=0", "outer.steps=2")
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "backbone": {"backbone.dense.weight": (3, 2), "backbone.dense.bias": (3,), "backbone.norm.weight": (4,)},
    "adapter": {"adapter.down": (2, 2)},
    "head": {"head.weight": (5, 3), "head.bias": (5,)},
}
needs_learn2learn = pytest.mark.skipif(
    importlib.util.find_spec("learn2learn") is None and not os.environ.get("METAPRIME_REQUIRE_LEARN2LEARN"),
    reason="learn2learn is not installed: `make learn2learn` does it",
)


def of_process(run: Run, rank: int, count: int) -> Run:
    """The same run as one of several processes sees it."""
    beside = SimpleNamespace(process_index=rank, num_processes=count, device=torch.device("cpu"))
    return replace(run, accelerator=cast(Accelerator, beside))


def unpadded(batch: Batch, place: int, name: str = "labels") -> list[int]:
    """A tensor of one episode's batch without padding."""
    return [int(n) for n in batch[name][place][batch["attention_mask"][place].bool()]]


def test_processes_share_the_episodes_of_a_meta_step(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", *QUICK, "episodes.per_step=5"), Accelerator())
    whole, shares = draw(run, 3), [draw(of_process(run, rank, 2), 3) for rank in (0, 1)]
    assert whole.indices == (0, 1, 2, 3, 4)
    assert list(whole.languages) == run.sampler.languages_of(3)
    assert [share.indices for share in shares] == [(0, 2, 4), (1, 3)]
    for share in shares:
        assert share.total == whole.total == 5
        for place, index in enumerate(share.indices):
            assert share.languages[place] == whole.languages[index]
            assert unpadded(share.query, place) == unpadded(whole.query, index)
            for mine, all_ in zip(share.support, whole.support, strict=True):
                assert unpadded(mine, place) == unpadded(all_, index)


def test_words_are_masked_by_the_episode_whichever_process_holds_it(
    tiny: MakeConfig, toy_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    changes = ("learner.name=masked_words", f"encoder.name={toy_encoder('bert', speaks=True)}", "outer.head=reset")
    run = set_up(tiny(tmp_path / "run", *QUICK, *changes), Accelerator())
    whole, second, plain = draw_some(run, 0, (0, 1)), draw_some(run, 0, (1,)), run.sampler.draw(0, 1)[1][-4:]
    assert unpadded(whole.query, 1, "input_ids") == unpadded(second.query, 0, "input_ids")
    said = [number for row in plain for window in row.windows for number in window.input_ids]
    masked = unpadded(second.query, 0, "input_ids")
    assert len(masked) == len(said)
    assert run.encoder.tokenizer.mask_token_id in masked
    assert run.encoder.tokenizer.mask_token_id not in said


def test_only_what_the_inner_loop_trains_on_has_keys_for_noise(tiny: MakeConfig, tmp_path: Path) -> None:
    dropped = ("peft.dropout=0.3", "outer.adapter=reset")
    for changes, support, query in (
        ((), False, False),
        (dropped, True, False),
        ((*dropped, "learner.name=reptile"), True, True),
    ):
        run = set_up(tiny(tmp_path / "run", *QUICK, *changes), Accelerator())
        episodes = draw(run, 0)
        assert [NOISE in batch for batch in episodes.support] == [support] * 2
        assert (NOISE in episodes.query) == query
        assert NOISE not in draw_some(run, 0, (0, 1)).query
        keys = [
            key for batch in (*episodes.support, episodes.query) for key in batch.get(NOISE, torch.empty(0)).flatten()
        ]
        assert len({int(key) for key in keys}) == len(keys)


def test_what_is_spent_is_summed_over_processes(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", *QUICK), Accelerator())
    episodes = draw(run, 0)
    mine = subwords_processed(run, episodes)
    assert spent_on(run, episodes) == Spent(mine, None)
    run.meter.flops = 1000
    assert spent_on(run, episodes) == Spent(mine, 1000)
    three = SimpleNamespace(num_processes=3, device="cpu", reduce=lambda counts, reduction: 3 * counts)
    assert spent_on(replace(run, accelerator=cast(Accelerator, three)), episodes) == Spent(3 * mine, 3000)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="in parts"),
        pytest.param(("learner.backend=learn2learn",), id="learn2learn", marks=needs_learn2learn),
        pytest.param(("inner.task_chunk=1",), id="one by one"),
        pytest.param(("learner.name=multitask", "outer.head=reset"), id="pooled"),
    ],
)
def test_a_line_says_how_many_positions_went_through_the_encoder(
    changes: tuple[str, ...], tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CPU_SUBWORDS", 100)
    seen: list[int] = []
    passes: list[int] = []
    forward = TaskModel.forward

    def begun(run: Run, step: int) -> Episodes:
        seen.append(0)
        passes.append(0)
        return draw(run, step)

    def watched(model: TaskModel, batch: Batch) -> torch.Tensor:
        # Checks go before the first step.
        if not seen:
            return forward(model, batch)
        passes[-1] += 1
        query = model.backbone.get_submodule("encoder.layer.0.attention.self.query")
        handle = query.register_forward_pre_hook(count)
        outputs = forward(model, batch)
        handle.remove()
        return outputs

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[-1] += inputs[0].shape[:2].numel()

    monkeypatch.setattr(loop, "draw", begun)
    monkeypatch.setattr(TaskModel, "forward", watched)
    # Checks for collapse are no work of the learner.
    monkeypatch.setattr("metaprime.priming.step.is_due", lambda step: False)
    prime(tiny(tmp_path / "run", *QUICK, *changes, "episodes.per_step=4", "encoder.attention=eager"))
    assert [line["subwords"] for line in read_metrics(tmp_path / "run")] == seen
    assert len(set(seen)) == len(seen) == 2
    # More parts than one.
    assert max(passes) > (1 if "learner.name=multitask" in changes else 3)


def test_one_process_has_the_sum_already() -> None:
    one = Outcome({}, {}, {}, torch.tensor([1.0]), torch.tensor([[1.0, 1.0]]))
    assert sum_over_processes(one, Accelerator()) is one


def test_every_part_comes_back_under_its_own_name() -> None:
    def part(names: dict[str, tuple[int, ...]], fill: float) -> Params:
        return {name: fill + torch.arange(torch.Size(shape).numel()).view(shape) for name, shape in names.items()}

    one = Outcome(
        part(SHAPES["backbone"], 0.0),
        part(SHAPES["adapter"], 100.0),
        part(SHAPES["head"], 200.0),
        torch.tensor([1.0, 0.0]),
        torch.tensor([[5.0, 6.0], [0.0, 0.0]]),
    )
    doubling = SimpleNamespace(num_processes=2, reduce=lambda flat, reduction: 2 * flat)
    found: Any = sum_over_processes(one, cast(Accelerator, doubling))
    for field in ("gradients", "mean_fast", "last_fast"):
        before, after = getattr(one, field), getattr(found, field)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], 2 * before[name]) for name in before)
    assert torch.equal(found.query_loss, 2 * one.query_loss)
    assert torch.equal(found.support_loss, 2 * one.support_loss)
