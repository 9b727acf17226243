"""bfloat16 products over float32 weights, against float32 everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from inner_loops import changed
from safetensors.torch import load_file
from toy_config import MakeConfig

from metaprime.meta import Outcome, Way
from metaprime.priming.prime import prime
from metaprime.priming.setup import Run, set_up
from metaprime.priming.starts import Starts
from metaprime.priming.step import draw
from metaprime.transfers.predict import predict
from metaprime.transfers.transfer import transfer
from metaprime.types import Params

LOSS, GRADIENT = 0.02, 0.05
"""Largest relative errors that are taken for rounding: of losses, and of the outer gradient's norm."""


def outcome(run: Run, **way: Way) -> Outcome:
    start = Starts(run.model, run.state, {"adapter": "reset", "head": "reset"}, seed=0).values(0, range(2))
    return run.learner.step(run.loss, run.state.backbone, start, draw(run, 0), changed(run.inner, **way))


def flat(values: Params) -> torch.Tensor:
    return torch.cat([values[name].flatten() for name in sorted(values)])


@pytest.mark.parametrize("peft", ["pfeiffer", "prefix", "lora"])
@pytest.mark.parametrize("way", [{"way": Way.LOOP}, {"way": Way.ONE_PASS}], ids=str)
def test_a_meta_step_is_that_of_float32_but_for_rounding(
    tiny: MakeConfig, tmp_path: Path, peft: str, way: dict[str, Way]
) -> None:
    settings = ("peft={method: head}", f"peft={{method: {peft}}}", "outer.validate_every=0")
    wide, narrow = (
        outcome(set_up(tiny(tmp_path / "run", *settings, f"encoder.precision={name}"), Accelerator()), **way)
        for name in ("float32", "bfloat16")
    )
    # It does something.
    assert not torch.equal(narrow.query_loss, wide.query_loss)
    assert narrow.query_loss.dtype == torch.float32
    torch.testing.assert_close(narrow.query_loss, wide.query_loss, rtol=LOSS, atol=0)
    torch.testing.assert_close(narrow.support_loss, wide.support_loss, rtol=LOSS, atol=0)
    one, other = flat(narrow.gradients), flat(wide.gradients)
    assert one.dtype == torch.float32
    assert (one - other).norm() / other.norm() < GRADIENT
    assert torch.cosine_similarity(one, other, dim=0) > 0.998


def test_what_would_need_vmap_goes_one_by_one(
    tiny: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = set_up(
        tiny(tmp_path / "run", "learner.name=maml", "encoder.precision=bfloat16", "encoder.packed=false"), Accelerator()
    )
    assert run.inner.execution.way is Way.LOOP
    assert "no gradient of bfloat16 products under vmap" in caplog.text
    assert torch.isfinite(outcome(run).query_loss).all()


def test_what_is_left_is_float32_and_predicts_as_it_was_scored(
    tiny: MakeConfig, toy_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tiny(tmp_path / "run", "encoder.precision=bfloat16", "transfer.methods=[pfeiffer]")
    prime(config)
    transfer(config)
    weights = load_file(tmp_path / "run" / "primed" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    folder = tmp_path / "run" / "transfer" / "primed" / "qai-pfeiffer-k8-s0"
    card = json.loads((folder / "metaprime.json").read_text())
    assert card["provenance"]["config"]["encoder"]["precision"] == "bfloat16"
    for line in (folder / "predictions.jsonl").read_text().splitlines()[:5]:
        said = json.loads(line)
        assert [tag for _, tag in predict(folder, " ".join(said["words"]))] == said["predicted"]
